import Glibc

/// A lock of flock(2) on a file made for it, held until this object or the process is gone.
package final class FileLock {
    private let descriptor: CInt

    /// Waits until it is free.
    init(path: String) throws(SettingsError) {
        self.descriptor = try Self.open(path)
        while flock(self.descriptor, LOCK_EX) != 0 {
            guard errno == EINTR else {
                Glibc.close(self.descriptor)
                throw FileAccess.error(path, "cannot be locked")
            }
        }
    }

    /// Nil when somebody else holds it.
    package init?(tryPath path: String) throws(SettingsError) {
        self.descriptor = try Self.open(path)
        guard flock(self.descriptor, LOCK_EX | LOCK_NB) == 0 else {
            Glibc.close(self.descriptor)
            return nil
        }
    }

    deinit {
        Glibc.close(self.descriptor)
    }

    private static func open(_ path: String) throws(SettingsError) -> CInt {
        let descriptor = Glibc.open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else { throw FileAccess.error(path, "cannot be written") }
        return descriptor
    }
}
