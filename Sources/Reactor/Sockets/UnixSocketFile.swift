internal import CUV
import Glibc

/// The file of a unix socket that another process may have created.
package enum UnixSocketFile {
    /// Whether a program may be listening on the socket. Only a refused connection proves that none is. False if the
    /// file is missing or not a socket.
    package static func isAlive(_ path: String) -> Bool {
        var status = stat()
        guard lstat(path, &status) == 0, status.st_mode & S_IFMT == S_IFSOCK else { return false }
        return cuv_unix_connect(path) != -ECONNREFUSED
    }

    /// Removes a stale socket file, that is, one on which no program listens. Keeps a live socket and any other file.
    ///
    /// - Returns: whether the path is free now.
    package static func removeDead(_ path: String) -> Bool {
        var status = stat()
        guard lstat(path, &status) == 0 else { return errno == ENOENT }
        guard status.st_mode & S_IFMT == S_IFSOCK, !self.isAlive(path) else { return false }
        return unlink(path) == 0 || errno == ENOENT
    }
}
