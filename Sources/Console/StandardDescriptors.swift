import Glibc

/// Standard input, output and error.
package enum StandardDescriptors {
    /// Opens /dev/null in the place of each that is closed: the next file or socket would take its number, and what is
    /// written to standard error would go there.
    ///
    /// - Parameter isOutputNeeded: leave standard output such that writing to it fails, as it did when it was closed.
    package static func ensureOpen(isOutputNeeded: Bool = false) {
        for descriptor in STDIN_FILENO...STDERR_FILENO where fcntl(descriptor, F_GETFD) == -1 && errno == EBADF {
            // The lowest free number (open(2)), which is this one.
            _ = open("/dev/null", isOutputNeeded && descriptor == STDOUT_FILENO ? O_RDONLY : O_RDWR)
        }
    }
}
