import Glibc

/// Detects changes of a file without reading it: replacing the file changes the inode, writing to it changes time or
/// size (stat(2)).
package struct FileStamp: Equatable, Sendable {
    private let device: UInt64
    private let inode: UInt64
    private let size: Int64
    private let changed: Int64
    private let mode: UInt32
    /// Why the file could not be examined, errno(3); 0 if it could.
    private let failure: Int32

    /// Nil if there is no such file; a dangling link counts as a file (``FileAccess/exists(_:)``).
    package init?(path: String) {
        var status = stat()
        if stat(path, &status) == 0 {
            self.failure = 0
        } else {
            self.failure = errno
            guard FileAccess.exists(path) else { return nil }
            status = stat()
        }
        self.device = UInt64(status.st_dev)
        self.inode = UInt64(status.st_ino)
        self.size = Int64(status.st_size)
        self.changed = Int64(status.st_ctim.tv_sec) * 1_000_000_000 + Int64(status.st_ctim.tv_nsec)
        self.mode = status.st_mode
    }

    /// Whether the file is empty. False if it could not be examined.
    package var isEmpty: Bool { self.failure == 0 && self.size == 0 }
}
