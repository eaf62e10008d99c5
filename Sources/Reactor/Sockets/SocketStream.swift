internal import CUV

/// A connected stream socket, TCP or unix.
package final class SocketStream: LoopHandle {
    /// Maximum number of buffers per write. 64 pieces of 16 KiB are more than one read of a link can hold.
    private static let maxPieces = 64

    private enum News {
        case broken(UVError)
        case failed(UVError)
    }

    var raw: UnsafeMutablePointer<uv_stream_t> { self.memory.assumingMemoryBound(to: uv_stream_t.self) }
    let isTCP: Bool
    private var isReading = false
    private var takesUrgentInline = false
    /// The turn of the last read. libuv reads a busy socket up to 32 times before it serves the next one. One read per
    /// turn keeps the delay for other sockets short.
    private var readTurn: UInt64 = .max
    private var hasEnded = false
    /// The error that ended writing. Reported as a failure after the peer's last bytes have been read.
    private var breakage: UVError?
    /// The error to report to the delegate at the end of the turn.
    private var news: News?
    private var hasFailed = false
    /// Set by `resetWhenDelivered`.
    var delivery: Delivery?
    /// Whether `resetWhenDelivered` reset the connection before everything was delivered.
    package internal(set) var hasGivenUpDelivery = false
    private var wantsShutdown = false
    /// Set by `setResetOnDeath`.
    var resetsOnDeath = false
    private var shutdownRequest: UnsafeMutablePointer<uv_shutdown_t>?
    /// Bytes that the kernel has not taken yet. libuv is writing the first chunk while `isInFlight`.
    private var queue: ChunkQueue
    private var isInFlight = false
    /// Bytes in `queue`.
    package var queuedByteCount: Int { self.queue.byteCount }
    /// Strong reference, released in the close callback. An owner that is torn down earlier must clear it.
    package var delegate: (any SocketStreamDelegate)?

    /// An unconnected TCP socket.
    ///
    /// - Parameter family: with `AF_UNSPEC` libuv creates the socket later, when it needs one.
    init(tcp loop: EventLoop, family: CInt) throws(UVError) {
        self.isTCP = true
        self.queue = ChunkQueue(pool: loop.chunks)
        super.init(loop: loop, uv_tcp_t.self)
        let raw = self.memory.assumingMemoryBound(to: uv_tcp_t.self)
        try check(uv_tcp_init_ex(loop.raw, raw, CUnsignedInt(family)))
        self.opened()
    }

    /// An unconnected unix socket.
    init(unix loop: EventLoop) throws(UVError) {
        self.isTCP = false
        self.queue = ChunkQueue(pool: loop.chunks)
        super.init(loop: loop, uv_pipe_t.self)
        try check(uv_pipe_init(loop.raw, self.memory.assumingMemoryBound(to: uv_pipe_t.self), 0))
        self.opened()
    }

    // MARK: - Reading

    package func startReading() {
        self.loop.assertOnLoop()
        guard self.isOpen, !self.isReading, !self.hasEnded, !self.hasFailed, self.delivery == nil else {
            return
        }
        // Keep urgent data in its place among the other bytes (tcp(7), SO_OOBINLINE).
        if self.isTCP, !self.takesUrgentInline {
            self.takesUrgentInline = true
            self.withDescriptor { _ = cuv_urgent_inline($0) }
        }
        let code = uv_read_start(self.raw, onAllocate, onRead)
        guard code == 0 else { return self.fail(UVError(code: code)) }
        self.isReading = true
    }

    package func stopReading() {
        guard self.isOpen, self.isReading else { return }
        self.isReading = false
        uv_read_stop(self.raw)
    }

    /// Postpones the next read to a later turn. Call it from `readAllowance`, which must then return 0.
    package func waitForNextTurn() { self.readTurn = self.loop.turn }

    fileprivate func room() -> Int {
        guard self.isOpen, self.readTurn != self.loop.turn, let delegate = self.delegate else { return 0 }
        return min(delegate.readAllowance(self), self.loop.readBuffer.count)
    }

    fileprivate func didRead(_ count: Int, _ base: UnsafeMutablePointer<CChar>?) {
        guard self.isOpen else { return }
        if count > 0 {
            self.readTurn = self.loop.turn
            self.delegate?.socketStream(self, didRead: UnsafeRawBufferPointer(start: base, count: count))
        } else if count == Int(UV_EOF.rawValue) {
            self.isReading = false
            self.hasEnded = true
            // If a hang-up follows the last bytes, libuv reports an orderly end without reading again (1.44,
            // uv__stream_io). A reset would look like an orderly end, and a truncated answer like a complete one.
            var error: CInt = 0
            self.withDescriptor { error = cuv_end_error($0) }
            if error != 0 { return self.fail(UVError(code: error)) }
            // The kernel reports an error only once. A write has already received it, so this is not an orderly end.
            if let breakage = self.breakage { return self.fail(breakage) }
            self.delegate?.socketStreamDidReachEnd(self)
        } else if count == Int(UV_ENOBUFS.rawValue) {
            // `room` returned 0: the delegate takes no bytes, or the socket has already read in this turn.
            if self.readTurn != self.loop.turn { self.stopReading() }
        } else if count < 0 {
            self.isReading = false
            self.fail(UVError(code: CInt(truncatingIfNeeded: count)))
        }
    }

    // MARK: - Writing

    /// Writes `pieces` in order and returns how many bytes the kernel took immediately.
    ///
    /// The rest is copied and queued, and reported by `didWrite` when the kernel takes it. Does nothing after a
    /// failure, `close()` or ``shutdownWriting()``.
    package func write(_ pieces: [UnsafeRawBufferPointer]) -> Int {
        self.loop.assertOnLoop()
        guard self.canWrite else { return 0 }
        var taken = 0
        if self.queue.isEmpty { taken = self.tryWrite(pieces) }
        guard self.canWrite else { return taken }
        var skip = taken
        for piece in pieces {
            if skip >= piece.count {
                skip -= piece.count
            } else {
                self.queue.append(UnsafeRawBufferPointer(rebasing: piece[skip...]))
                skip = 0
            }
        }
        self.submit()
        return taken
    }

    package func write(_ bytes: UnsafeRawBufferPointer) -> Int {
        self.loop.assertOnLoop()
        guard self.canWrite else { return 0 }
        var taken = 0
        if self.queue.isEmpty { taken = self.tryWriteOne(bytes) }
        if taken < bytes.count, self.canWrite {
            self.queue.append(UnsafeRawBufferPointer(rebasing: bytes[taken...]))
            self.submit()
        }
        return taken
    }

    private var canWrite: Bool {
        self.isOpen && !self.hasFailed && self.breakage == nil && !self.wantsShutdown && self.delivery == nil
    }

    /// Whether writing has failed. Nothing more will reach the peer.
    package var isBroken: Bool { self.breakage != nil || self.hasFailed }

    private func tryWriteOne(_ bytes: UnsafeRawBufferPointer) -> Int {
        guard bytes.count > 0 else { return 0 }
        var buffer = uvBuffer(bytes)
        return self.judge(uv_try_write(self.raw, &buffer, 1))
    }

    private func tryWrite(_ pieces: [UnsafeRawBufferPointer]) -> Int {
        withUnsafeTemporaryAllocation(of: uv_buf_t.self, capacity: min(pieces.count, Self.maxPieces)) { buffers in
            for index in buffers.indices { buffers.initializeElement(at: index, to: uvBuffer(pieces[index])) }
            guard buffers.count > 0 else { return 0 }
            return self.judge(uv_try_write(self.raw, buffers.baseAddress, UInt32(buffers.count)))
        }
    }

    private func judge(_ code: CInt) -> Int {
        if code >= 0 { return Int(code) }
        if code != UV_EAGAIN.rawValue { self.writingFailed(UVError(code: code)) }
        return 0
    }

    /// Passes the first queued chunk to libuv, which writes it when the socket becomes writable.
    private func submit() {
        guard !self.isInFlight, self.isOpen, let first = self.queue.first else { return }
        var buffer = uvBuffer(first.readable)
        first.request.pointee.data = Unmanaged.passRetained(first).toOpaque()
        let code = uv_write(first.request, self.raw, &buffer, 1, onWrite)
        if code == 0 {
            self.isInFlight = true
            first.isInFlight = true
        } else {
            Unmanaged.passUnretained(first).release()
            self.writingFailed(UVError(code: code))
        }
    }

    fileprivate func didWrite(_ chunk: Chunk, _ status: CInt) {
        self.isInFlight = false
        chunk.isInFlight = false
        // If another call has already found a write failure, the queue is empty.
        guard self.isOpen, !self.isBroken else { return }
        guard status == 0 else { return self.writingFailed(UVError(code: status)) }
        var written = self.queue.removeFirst()
        // The socket is writable again: write the rest of the queue before waiting for the next wakeup.
        while !self.queue.isEmpty, !self.isBroken {
            let taken = self.tryWrite(self.queue.pieces(atMost: Self.maxPieces))
            guard taken > 0 else { break }
            self.queue.drop(taken)
            written += taken
        }
        self.submit()
        self.delegate?.socketStream(self, didWrite: written)
        guard self.queue.isEmpty else { return }
        if self.wantsShutdown { self.shutDown() }
        self.checkDelivery()
    }

    /// Ends our direction after the queue is written. The peer sees the end of the stream and can still answer.
    package func shutdownWriting() {
        guard self.isOpen, !self.wantsShutdown, !self.isBroken, self.delivery == nil else { return }
        self.wantsShutdown = true
        if self.queue.isEmpty { self.shutDown() }
    }

    private func shutDown() {
        guard self.shutdownRequest == nil, self.isOpen else { return }
        let request = UnsafeMutablePointer<uv_shutdown_t>.allocate(capacity: 1)
        // A failure means that the connection is already gone, which reading reports.
        if uv_shutdown(request, self.raw, onShutdown) == 0 {
            self.shutdownRequest = request
        } else {
            request.deallocate()
        }
    }

    fileprivate func didShutDown() {
        self.shutdownRequest?.deallocate()
        self.shutdownRequest = nil
    }

    /// Ends writing. If the connection has ended, the bytes that the peer sent before are still read.
    private func writingFailed(_ error: UVError) {
        guard self.isOpen, !self.isBroken else { return }
        self.queue.removeAll()
        var isOver = false
        self.withDescriptor { isOver = cuv_is_hung_up($0) != 0 }
        // Without a hang-up, reading would never reach an end: fail now.
        guard isOver, !self.hasEnded, self.delivery == nil else { return self.fail(error) }
        self.breakage = error
        self.report(.broken(error))
    }

    /// Detects the end of a connection that is not being read, which would otherwise go unnoticed. Call it regularly.
    ///
    /// A stream is not read after ``stopReading()``, or after the peer's end. The peer can still reset the connection
    /// or vanish then.
    package func checkPeer() {
        guard self.isOpen, !self.isReading else { return }
        if let error = self.pendingError { return self.writingFailed(error) }
        guard self.hasEnded, self.isTCP, !self.wantsShutdown else { return }
        var isClosed = false
        self.withDescriptor { isClosed = cuv_is_closed($0) != 0 }
        if isClosed { self.writingFailed(.connectionReset) }
    }

    func fail(_ error: UVError) {
        guard self.isOpen, !self.hasFailed else { return }
        self.hasFailed = true
        self.report(.failed(error))
    }

    /// Reports at the end of the turn, so that the delegate is never called from inside its own call.
    private func report(_ news: News) {
        if self.news == nil { self.loop.atTurnEnd(self) }
        self.news = news
    }

    // MARK: - The end

    /// Closes in order. Bytes that the kernel has taken are still delivered; bytes queued here are dropped.
    package func close() {
        guard self.isOpen else { return }
        if self.resetsOnDeath { self.withDescriptor { _ = cuv_reset_on_close($0, 0) } }
        self.tearDown()
    }

    private func tearDown() {
        self.delivery?.close()
        self.closeHandle()
    }

    /// Closes with a TCP reset, so that the peer does not mistake a truncated answer for a complete one. Closes a unix
    /// socket in order.
    package func reset() {
        guard self.isOpen else { return }
        if self.isTCP, !self.resetsOnDeath { self.withDescriptor { _ = cuv_reset_on_close($0, 1) } }
        self.tearDown()
    }

    override func didClose() {
        self.queue.removeAll()
        let delegate = self.delegate
        self.delegate = nil
        delegate?.socketStreamDidClose(self)
    }
}

extension SocketStream: TurnEndHandler {
    package func turnDidEnd() {
        guard let news = self.news, self.isOpen else { return }
        self.news = nil
        // The connection failed before everything was delivered: reset now.
        guard self.delivery == nil else { return self.reset() }
        switch news {
        case .broken(let error): self.delegate?.socketStream(self, didBreak: error)
        case .failed(let error): self.delegate?.socketStream(self, didFail: error)
        }
    }
}

private func uvBuffer(_ bytes: UnsafeRawBufferPointer) -> uv_buf_t {
    uv_buf_t(
        base: UnsafeMutableRawPointer(mutating: bytes.baseAddress)?.assumingMemoryBound(to: CChar.self),
        len: bytes.count)
}

private let onAllocate: uv_alloc_cb = { handle, _, buffer in
    borrow(handle?.pointee.data) { (stream: SocketStream) in
        buffer?.pointee = uv_buf_t(
            base: stream.loop.readBuffer.baseAddress?.assumingMemoryBound(to: CChar.self), len: stream.room())
    }
}

private let onRead: uv_read_cb = { raw, count, buffer in
    borrow(raw?.pointee.data) { (stream: SocketStream) in stream.didRead(count, buffer?.pointee.base) }
}

private let onWrite: uv_write_cb = { request, status in
    guard let request, let data = request.pointee.data else { return }
    // Balances the passRetained in `submit`.
    let chunk = Unmanaged<Chunk>.fromOpaque(data).takeRetainedValue()
    borrow(request.pointee.handle?.pointee.data) { (stream: SocketStream) in stream.didWrite(chunk, status) }
}

private let onShutdown: uv_shutdown_cb = { request, _ in
    borrow(request?.pointee.handle?.pointee.data) { (stream: SocketStream) in stream.didShutDown() }
}
