internal import CUV
import Glibc

/// The file of a unix socket, seen by one who does not own it.
package enum UnixSocketFile {
    /// Whether a program listens there, or the file cannot be told to be dead: what is not refused may be alive.
    package static func isAlive(_ path: String) -> Bool {
        var status = stat()
        guard lstat(path, &status) == 0, status.st_mode & S_IFMT == S_IFSOCK else { return false }
        return cuv_unix_connect(path) != -ECONNREFUSED
    }

    /// Removes a socket on which nobody listens any more; one that is alive, and any other file, stays.
    ///
    /// - Returns: whether nothing is in the way afterwards.
    package static func removeDead(_ path: String) -> Bool {
        var status = stat()
        guard lstat(path, &status) == 0 else { return errno == ENOENT }
        guard status.st_mode & S_IFMT == S_IFSOCK, !self.isAlive(path) else { return false }
        return unlink(path) == 0 || errno == ENOENT
    }
}
