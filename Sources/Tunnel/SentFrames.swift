internal import Bytes
internal import Wire

/// The counted frames of one direction, in order: those that are still to be sent, and in a session those that the peer
/// has not acknowledged yet. After a broken carrier they are sent again from the position that the peer states.
///
/// Positions count the bytes of all counted frames since the session began. Frames never span blocks, so each block
/// ends with a whole frame, and other frames may be sent between two blocks.
///
/// Invariant: `acknowledged <= position <= end`, and every byte from `acknowledged` to `end` is stored.
struct SentFrames: ~Copyable {
    /// A block and the position of its first byte.
    private struct Piece {
        let block: Block
        var start: UInt64
    }

    /// Enough for the control frames of a quiet link. In bytes.
    private static let firstBlockSize = 4 * 1024

    private let pool: BlockPool
    private var pieces: [Piece] = []
    /// The memory of the last block and the bytes used of it: fields of their own, because they change with each frame.
    private var tail: UnsafeMutableRawPointer?
    private var tailCount = 0
    private var tailSize = 0
    /// The piece at `position`.
    private var sending = 0
    /// Whether frames are kept until they are acknowledged. Otherwise sending counts as acknowledgement.
    var keeps = false
    /// Bytes that the peer has acknowledged.
    private(set) var acknowledged: UInt64 = 0
    /// The next byte to send on the present carrier.
    private(set) var position: UInt64 = 0
    /// The end of what was ever sent.
    private(set) var highest: UInt64 = 0
    /// Bytes of all frames so far.
    private(set) var end: UInt64 = 0

    init(pool: BlockPool) { self.pool = pool }

    deinit { for piece in self.pieces { self.pool.give(piece.block) } }

    /// Bytes to send now.
    var unsent: Int { Int(self.end - self.position) }
    /// Bytes that were sent on the present carrier, or handled before it, and are not acknowledged.
    var inFlight: Int { Int(self.position - self.acknowledged) }
    /// Bytes that are stored until the peer acknowledges them.
    var kept: Int { Int(self.end - self.acknowledged) }
    /// Memory of the blocks, in bytes.
    private(set) var memory = 0

    // MARK: - New frames

    mutating func append(_ header: FrameHeader, _ payload: RawSpan) {
        let place = self.begin(header, payload.byteCount)
        payload.withUnsafeBytes { bytes in
            if let source = bytes.baseAddress { place.copyMemory(from: source, byteCount: bytes.count) }
        }
    }

    /// Appends a frame whose payload is a single number.
    mutating func append<T: FixedWidthInteger>(_ type: FrameType, id: UInt32, _ value: T) {
        let size = MemoryLayout<T>.size
        let place = self.begin(FrameHeader(id: id, type: type, length: size), size)
        withUnsafeBytes(of: value.bigEndian) { bytes in
            if let source = bytes.baseAddress { place.copyMemory(from: source, byteCount: size) }
        }
    }

    /// Appends a frame whose payload is the first `header.length` bytes of `queue`.
    mutating func append(_ header: FrameHeader, from queue: inout ByteQueue) {
        let place = self.begin(header, header.length)
        queue.withReadable { bytes in
            if let source = bytes.baseAddress { place.copyMemory(from: source, byteCount: header.length) }
        }
        queue.consume(header.length)
    }

    /// Moves whole frames from the front of `queue`, at most `atMost` bytes.
    mutating func append(framesOf queue: inout ByteQueue, atMost: Int) {
        var left = atMost
        while let first = Self.frameSize(queue.readable, at: 0), first <= left {
            self.makeRoom(first)
            // Frames that fit into the block move in one piece.
            let room = min(self.tailSize - self.tailCount, left)
            var count = first
            while let next = Self.frameSize(queue.readable, at: count), count + next <= room { count += next }
            let place = self.reserve(count)
            queue.withReadable { bytes in
                if let source = bytes.baseAddress { place.copyMemory(from: source, byteCount: count) }
            }
            queue.consume(count)
            left -= count
        }
    }

    private static func frameSize(_ bytes: RawSpan, at offset: Int) -> Int? {
        FrameHeader(bytes, at: offset).map { WireConstant.headerSize + $0.length }
    }

    /// Writes the header and returns the place of the payload.
    private mutating func begin(_ header: FrameHeader, _ length: Int) -> UnsafeMutableRawPointer {
        let place = self.reserve(WireConstant.headerSize + length)
        place.storeBytes(of: header.word.bigEndian, as: UInt64.self)
        return place + WireConstant.headerSize
    }

    private mutating func reserve(_ size: Int) -> UnsafeMutableRawPointer {
        if self.tailSize - self.tailCount < size { self.makeRoom(size) }
        guard let tail = self.tail else { preconditionFailure("no block") }
        let place = tail + self.tailCount
        self.tailCount += size
        self.end += UInt64(size)
        return place
    }

    private mutating func makeRoom(_ size: Int) {
        guard self.tailSize - self.tailCount < size else { return }
        self.sealTail()
        let isSmall = self.pieces.isEmpty && size <= Self.firstBlockSize
        let block = isSmall ? Block(size: Self.firstBlockSize) : self.pool.take()
        self.memory += block.size
        self.pieces.append(Piece(block: block, start: self.end))
        self.openTail(count: 0)
    }

    /// The last block is not the last any more.
    private mutating func sealTail() { self.pieces.last?.block.count = self.tailCount }

    /// Continues the last block behind its first `count` bytes.
    private mutating func openTail(count: Int) {
        self.tail = self.pieces.last?.block.base
        self.tailSize = self.pieces.last?.block.size ?? 0
        self.tailCount = count
    }

    /// Bytes in a piece.
    private func count(_ index: Int) -> Int {
        index == self.pieces.count - 1 ? self.tailCount : self.pieces[index].block.count
    }

    private func endOfPiece(_ index: Int) -> UInt64 { self.pieces[index].start + UInt64(self.count(index)) }

    private mutating func give(_ block: Block) {
        self.memory -= block.size
        self.pool.give(block)
    }

    // MARK: - Sending

    /// Calls `body` with the next bytes to send, block by block, until at least `atMost` bytes are sent or none are
    /// left.
    mutating func send(atMost: Int, _ body: (UnsafeRawBufferPointer) -> Void) {
        var left = atMost
        while self.position < self.end, left > 0 {
            let piece = self.pieces[self.sending]
            let offset = Int(self.position - piece.start)
            let count = self.count(self.sending) - offset
            if count > 0 { body(UnsafeRawBufferPointer(start: piece.block.base + offset, count: count)) }
            left -= count
            self.position += UInt64(count)
            if self.sending < self.pieces.count - 1 { self.sending += 1 }
        }
        self.highest = max(self.highest, self.position)
        if !self.keeps { self.acknowledge(self.position) }
    }

    /// Drops bytes that the peer has handled.
    ///
    /// - Precondition: `acknowledged <= position <= self.position`.
    mutating func acknowledge(_ position: UInt64) {
        precondition(position >= self.acknowledged && position <= self.position, "an acknowledgement out of range")
        self.acknowledged = position
        while self.pieces.count > 1, self.endOfPiece(0) <= position {
            self.give(self.pieces.removeFirst().block)
            self.sending = max(0, self.sending - 1)
        }
        // The last block is used again.
        guard self.kept == 0, !self.pieces.isEmpty else { return }
        self.tailCount = 0
        self.pieces[0].start = self.end
    }

    /// A new carrier: the peer has handled everything before `position`, and the rest is sent again.
    ///
    /// - Precondition: `acknowledged <= position <= end`.
    mutating func rewind(to position: UInt64) {
        precondition(position >= self.acknowledged && position <= self.end, "a rewind out of range")
        self.position = position
        self.acknowledge(position)
        self.sending = self.pieces.indices.first { position < self.endOfPiece($0) } ?? max(0, self.pieces.count - 1)
    }

    /// Forgets everything.
    mutating func dropAll() {
        self.acknowledged = self.end
        self.position = self.end
        while let last = self.pieces.popLast() { self.give(last.block) }
        self.openTail(count: 0)
        self.sending = 0
    }

    /// Frees the memory if nothing is kept.
    mutating func releaseStorageIfEmpty() {
        guard self.kept == 0, let last = self.pieces.popLast() else { return }
        self.give(last.block)
        self.openTail(count: 0)
        self.sending = 0
    }
}
