import Glibc

/// Tells one state of a file from the next without reading it: whoever replaces it changes the inode, whoever writes to
/// it changes time or size (stat(2)).
package struct FileStamp: Equatable, Sendable {
    private let device: UInt64
    private let inode: UInt64
    private let size: Int64
    private let changed: Int64
    private let mode: UInt32
    /// Why it cannot be looked at, errno(3); 0 when it can.
    private let failure: Int32

    /// Nil when there is no such file, and nothing that leads to one (``FileAccess/exists(_:)``).
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

    /// Of a file that cannot be looked at nobody knows.
    package var isEmpty: Bool { self.failure == 0 && self.size == 0 }
}
