import Glibc

/// Tells one state of a file from the next without reading it: whoever replaces it changes the inode, whoever writes to
/// it changes time or size (stat(2)).
package struct FileStamp: Equatable, Sendable {
    private let device: UInt64
    private let inode: UInt64
    private let size: Int64
    private let changed: Int64
    private let mode: UInt32

    /// Nil when there is no such file.
    package init?(path: String) {
        var status = stat()
        guard stat(path, &status) == 0 else { return nil }
        self.device = UInt64(status.st_dev)
        self.inode = UInt64(status.st_ino)
        self.size = Int64(status.st_size)
        self.changed = Int64(status.st_ctim.tv_sec) * 1_000_000_000 + Int64(status.st_ctim.tv_nsec)
        self.mode = status.st_mode
    }

    package var isEmpty: Bool { self.size == 0 }

    /// Whether it is the same file, in whatever state: another was put in its place if not.
    package func isSameFile(as other: FileStamp) -> Bool { self.device == other.device && self.inode == other.inode }
}
