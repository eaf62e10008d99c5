import Glibc

/// A flock(2) lock on a lock file, held until this object is released or the process ends.
package final class FileLock {
    private let descriptor: CInt

    /// Waits until the lock is free.
    ///
    /// - Parameter file: the file that the lock guards. If root creates the lock file, it gets the owner of this file.
    init(path: String, of file: String) throws(SettingsError) {
        self.descriptor = try Self.open(path, of: file)
        while flock(self.descriptor, LOCK_EX) != 0 {
            guard errno == EINTR else { throw FileAccess.error(path, "cannot be locked") }
        }
    }

    /// Nil if the lock is held elsewhere.
    package init?(tryPath path: String) throws(SettingsError) {
        let directory = path.lastIndex(of: "/").map { String(path[..<$0]) } ?? "."
        self.descriptor = try Self.open(path, of: "\(directory)/.")
        guard flock(self.descriptor, LOCK_EX | LOCK_NB) == 0 else { return nil }
    }

    /// Runs also if an initializer fails after the file was opened.
    deinit {
        Glibc.close(self.descriptor)
    }

    /// Opens or creates the lock file. Neither follows a link to a file of another user nor waits for a pipe.
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
        // Applies also to a lock file that root created earlier. Changing the owner is safe for an empty file without a
        // second hard link.
        if status.st_uid == 0, status.st_nlink == 1, status.st_size == 0 { FileAccess.keepOwner(descriptor, file) }
        return descriptor
    }
}
