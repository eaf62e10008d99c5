/// A first-in, first-out queue of bytes with one owner.
///
/// The storage is one contiguous block of memory. When it is full, it moves its content to the front if at least half
/// of it is consumed, and doubles otherwise. The queue cannot be copied, so appending never makes a hidden copy. The
/// memory is freed with its owner.
///
/// Invariant: `0 <= head <= tail <= capacity`.
package struct ByteQueue: ~Copyable {
    private var base: UnsafeMutableRawPointer?
    package private(set) var capacity: Int
    private var head: Int
    private var tail: Int

    /// An empty queue that owns no memory yet.
    package init() {
        self.base = nil
        self.capacity = 0
        self.head = 0
        self.tail = 0
    }

    deinit {
        self.base?.deallocate()
    }

    /// Number of readable bytes.
    @inlinable package var count: Int { self.length }

    @usableFromInline package var length: Int { self.tail - self.head }

    package var isEmpty: Bool { self.head == self.tail }

    /// The readable bytes, borrowed until the queue next changes.
    package var readable: RawSpan {
        @_lifetime(borrow self)
        get {
            guard let base = self.base else { return RawSpan() }
            let span = RawSpan(
                _unsafeBytes: UnsafeRawBufferPointer(start: base + self.head, count: self.tail - self.head))
            return _overrideLifetime(span, borrowing: self)
        }
    }

    /// Calls `body` with the readable bytes, for C functions that take a pointer. It is valid during the call only.
    package func withReadable<R>(_ body: (UnsafeRawBufferPointer) -> R) -> R {
        guard let base = self.base else { return body(UnsafeRawBufferPointer(start: nil, count: 0)) }
        return body(UnsafeRawBufferPointer(start: base + self.head, count: self.tail - self.head))
    }

    package mutating func append(_ bytes: UnsafeRawBufferPointer) {
        guard let source = bytes.baseAddress, bytes.count > 0 else { return }
        self.makeRoom(bytes.count).copyMemory(from: source, byteCount: bytes.count)
        self.tail += bytes.count
    }

    package mutating func append(_ bytes: RawSpan) {
        bytes.withUnsafeBytes { self.append($0) }
    }

    package mutating func append(_ bytes: [UInt8]) {
        bytes.withUnsafeBytes { self.append($0) }
    }

    /// Appends `value` in network byte order.
    package mutating func append<T: FixedWidthInteger>(_ value: T) {
        self.makeRoom(MemoryLayout<T>.size).storeBytes(of: value.bigEndian, as: T.self)
        self.tail += MemoryLayout<T>.size
    }

    /// Lets `body` write up to `atMost` bytes at the end. `body` returns how many it wrote.
    package mutating func append(atMost: Int, _ body: (UnsafeMutableRawBufferPointer) -> Int) {
        let room = UnsafeMutableRawBufferPointer(start: self.makeRoom(atMost), count: atMost)
        let written = body(room)
        precondition(written >= 0 && written <= atMost, "wrote outside the reserved room")
        self.tail += written
    }

    /// Moves the first `count` bytes of `other` to the end of this queue.
    package mutating func take(_ count: Int, from other: inout ByteQueue) {
        precondition(count >= 0 && count <= other.count, "taking more than there is")
        other.withReadable { self.append(UnsafeRawBufferPointer(rebasing: $0[0..<count])) }
        other.consume(count)
    }

    /// Drops the first `count` readable bytes.
    package mutating func consume(_ count: Int) {
        precondition(count >= 0 && count <= self.tail - self.head, "consuming more than there is")
        self.head += count
        if self.head == self.tail {
            self.head = 0
            self.tail = 0
        }
    }

    /// Drops all bytes and keeps the memory for reuse.
    package mutating func removeAll() {
        self.head = 0
        self.tail = 0
    }

    /// Frees the memory if the queue is empty.
    package mutating func releaseStorageIfEmpty() {
        guard self.head == self.tail, let base = self.base else { return }
        base.deallocate()
        self.base = nil
        self.capacity = 0
        self.head = 0
        self.tail = 0
    }

    /// Overwrites two readable bytes at `offset` with `value`, in network byte order.
    package mutating func overwrite(_ value: UInt16, at offset: Int) {
        precondition(offset >= 0 && offset + 2 <= self.tail - self.head, "overwriting outside the queue")
        self.base?.storeBytes(of: value.bigEndian, toByteOffset: self.head + offset, as: UInt16.self)
    }

    /// Makes room for `count` bytes and returns where they go.
    private mutating func makeRoom(_ count: Int) -> UnsafeMutableRawPointer {
        if let base = self.base, self.capacity - self.tail >= count { return base + self.tail }
        let used = self.tail - self.head
        let (needed, overflow) = used.addingReportingOverflow(count)
        precondition(!overflow && count >= 0, "byte queue overflow")
        if let base = self.base, needed <= self.capacity, self.head >= self.capacity / 2 {
            base.copyMemory(from: base + self.head, byteCount: used)
            self.head = 0
            self.tail = used
            return base + used
        }
        var wanted = max(self.capacity, 256)
        while wanted < needed { wanted *= 2 }
        if wanted == self.capacity { wanted *= 2 }
        let fresh = UnsafeMutableRawPointer.allocate(byteCount: wanted, alignment: 16)
        if let base = self.base {
            fresh.copyMemory(from: base + self.head, byteCount: used)
            base.deallocate()
        }
        self.base = fresh
        self.capacity = wanted
        self.head = 0
        self.tail = used
        return fresh + used
    }
}
