internal import CUV

/// A piece of bytes that waits for a socket, with the request that libuv needs while it writes them.
///
/// It is in a pool, in a stream's queue, or in flight. In flight it is libuv's, whatever becomes of its stream: the
/// request's `data` holds one reference to it, taken in `SocketStream.submit` and given back in `onWrite`.
final class Chunk {
    /// Small, as a slow peer may hold one for a few bytes, and as a chunk that went out is what progress is seen by.
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

    /// Appends as much as fits and returns how much that was.
    func append(_ bytes: UnsafeRawBufferPointer) -> Int {
        let count = min(bytes.count, self.room)
        guard count > 0, let source = bytes.baseAddress else { return 0 }
        (self.base + self.tail).copyMemory(from: source, byteCount: count)
        self.tail += count
        return count
    }
}

/// Chunks for reuse, so that a congested loop does not allocate for each write.
final class ChunkPool {
    /// 2 MiB: what a burst leaves behind at rest.
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
