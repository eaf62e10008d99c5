import Glibc

/// Standard input, output and error.
package enum StandardDescriptors {
    /// Opens /dev/null in place of each closed descriptor. Otherwise the next file or socket would get its number, and
    /// output to standard error would go there.
    ///
    /// - Parameter isOutputNeeded: whether writing to a closed standard output must still fail.
    package static func ensureOpen(isOutputNeeded: Bool = false) {
        for descriptor in STDIN_FILENO...STDERR_FILENO where fcntl(descriptor, F_GETFD) == -1 && errno == EBADF {
            // open(2) returns the lowest free number, which is this one.
            _ = open("/dev/null", isOutputNeeded && descriptor == STDOUT_FILENO ? O_RDONLY : O_RDWR)
        }
    }
}
