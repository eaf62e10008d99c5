import Glibc

/// A lock of flock(2) on a file made for it, held until this object or the process is gone.
package final class FileLock {
    private let descriptor: CInt

    /// Waits until it is free.
    ///
    /// - Parameter file: what it guards, whose owner gets the lock too when root makes it.
    init(path: String, of file: String) throws(SettingsError) {
        self.descriptor = try Self.open(path, of: file)
        while flock(self.descriptor, LOCK_EX) != 0 {
            guard errno == EINTR else { throw FileAccess.error(path, "cannot be locked") }
        }
    }

    /// Nil when somebody else holds it.
    package init?(tryPath path: String) throws(SettingsError) {
        let directory = path.lastIndex(of: "/").map { String(path[..<$0]) } ?? "."
        self.descriptor = try Self.open(path, of: "\(directory)/.")
        guard flock(self.descriptor, LOCK_EX | LOCK_NB) == 0 else { return nil }
    }

    /// Also when an initializer fails after the file was opened.
    deinit {
        Glibc.close(self.descriptor)
    }

    /// Neither follows a link to another's file nor waits for a pipe.
    private static func open(_ path: String, of file: String) throws(SettingsError) -> CInt {
        let flags = O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK
        var descriptor = Glibc.open(path, flags | O_CREAT | O_EXCL, 0o600)
        if descriptor < 0, errno == EEXIST { descriptor = Glibc.open(path, flags) }
        guard descriptor >= 0 else { throw FileAccess.error(path, "cannot be written") }
        var status = stat()
        guard fstat(descriptor, &status) == 0, status.st_mode & S_IFMT == S_IFREG else {
            Glibc.close(descriptor)
            throw SettingsError(path, "cannot be locked: it is not a regular file")
        }
        // Also one that root has left before. An empty file without a second name is nothing that could be stolen so.
        if status.st_uid == 0, status.st_nlink == 1, status.st_size == 0 { FileAccess.keepOwner(descriptor, file) }
        return descriptor
    }
}
