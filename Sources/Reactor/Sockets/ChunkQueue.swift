/// The write queue of a socket, made of chunks from a pool.
struct ChunkQueue {
    private let pool: ChunkPool
    private var chunks: [Chunk] = []
    private(set) var byteCount = 0

    init(pool: ChunkPool) { self.pool = pool }

    var isEmpty: Bool { self.chunks.isEmpty }
    var first: Chunk? { self.chunks.first }

    /// Copies the bytes to the end. A chunk in flight belongs to libuv, so nothing is added to it.
    mutating func append(_ bytes: UnsafeRawBufferPointer) {
        var rest = bytes
        while rest.count > 0 {
            let chunk: Chunk
            if let last = self.chunks.last, last.room > 0, !last.isInFlight {
                chunk = last
            } else {
                chunk = self.pool.take()
                self.chunks.append(chunk)
            }
            let count = chunk.append(rest)
            self.byteCount += count
            rest = UnsafeRawBufferPointer(rebasing: rest[count...])
        }
    }

    /// The bytes of the first chunks, valid until the queue changes.
    func pieces(atMost: Int) -> [UnsafeRawBufferPointer] { self.chunks.prefix(atMost).map(\.readable) }

    /// Removes the first chunk and returns how many bytes it held.
    ///
    /// - Precondition: the queue is not empty.
    mutating func removeFirst() -> Int {
        let chunk = self.chunks.removeFirst()
        let count = chunk.count
        self.byteCount -= count
        self.pool.give(chunk)
        return count
    }

    /// Removes bytes from the front.
    mutating func drop(_ count: Int) {
        var rest = count
        while rest > 0, let first = self.chunks.first {
            if rest >= first.count {
                rest -= self.removeFirst()
            } else {
                first.head += rest
                self.byteCount -= rest
                rest = 0
            }
        }
    }

    mutating func removeAll() {
        for chunk in self.chunks { self.pool.give(chunk) }
        self.chunks.removeAll()
        self.byteCount = 0
    }
}
