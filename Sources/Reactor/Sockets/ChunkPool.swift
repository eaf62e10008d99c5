internal import CUV

/// A buffer of bytes to write to a socket, with the libuv request for writing it.
///
/// A chunk is in a pool, in a stream's queue, or in flight. In flight it belongs to libuv, even if its stream closes:
/// the request's `data` holds a reference to it, taken in `SocketStream.submit` and released in `onWrite`.
final class Chunk {
    /// In bytes. Small, because a slow peer may hold a whole chunk for a few bytes, and because progress shows only
    /// when a chunk has been written.
    static let size = 16 * 1024

    let base: UnsafeMutableRawPointer
    let request: UnsafeMutablePointer<uv_write_t>
    var head = 0
    var tail = 0
    var isInFlight = false

    init() {
        self.base = .allocate(byteCount: Self.size, alignment: 64)
        self.request = .allocate(capacity: 1)
    }

    deinit {
        self.base.deallocate()
        self.request.deallocate()
    }

    var count: Int { self.tail - self.head }
    var room: Int { Self.size - self.tail }

    var readable: UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(start: self.base + self.head, count: self.count)
    }

    /// Appends as many bytes as fit and returns their number.
    func append(_ bytes: UnsafeRawBufferPointer) -> Int {
        let count = min(bytes.count, self.room)
        guard count > 0, let source = bytes.baseAddress else { return 0 }
        (self.base + self.tail).copyMemory(from: source, byteCount: count)
        self.tail += count
        return count
    }
}

/// A pool of chunks for reuse, so that a congested loop does not allocate for each write.
final class ChunkPool {
    /// Maximum number of free chunks: 2 MiB stay allocated after a burst.
    private static let maxFree = 128
    private var free: [Chunk] = []

    func take() -> Chunk { self.free.popLast() ?? Chunk() }

    func give(_ chunk: Chunk) {
        guard self.free.count < Self.maxFree, !chunk.isInFlight else { return }
        chunk.head = 0
        chunk.tail = 0
        self.free.append(chunk)
    }

    func drain() { self.free.removeAll() }
}
