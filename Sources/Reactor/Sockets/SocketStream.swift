internal import CUV

/// A connected stream socket, TCP or unix.
package final class SocketStream: LoopHandle {
    /// Of one write: 64 pieces of 16 KiB are more than one read of a link can hold.
    private static let maxPieces = 64

    private enum News {
        case broken(UVError)
        case failed(UVError)
    }

    var raw: UnsafeMutablePointer<uv_stream_t> { self.memory.assumingMemoryBound(to: uv_stream_t.self) }
    let isTCP: Bool
    private var isReading = false
    private var takesUrgentInline = false
    /// The turn of the last read. libuv would read a busy socket up to 32 times before it looks at the next; one read
    /// a turn keeps the others' waiting short.
    private var readTurn: UInt64 = .max
    private var hasEnded = false
    /// The error that ended writing: reported as a failure once the peer's last bytes have been read.
    private var breakage: UVError?
    /// What the delegate has to be told at the end of the turn.
    private var news: News?
    private var hasFailed = false
    /// Set by `resetWhenDelivered`.
    var delivery: Delivery?
    /// Whether `resetWhenDelivered` has reset before everything was delivered.
    package internal(set) var hasGivenUpDelivery = false
    private var wantsShutdown = false
    /// Set by `setResetOnDeath`.
    var resetsOnDeath = false
    private var shutdownRequest: UnsafeMutablePointer<uv_shutdown_t>?
    /// Bytes that the kernel did not take; the first chunk is in flight while `isInFlight`.
    private var queue: ChunkQueue
    private var isInFlight = false
    /// Bytes in `queue`.
    package var queuedByteCount: Int { self.queue.byteCount }
    /// Cleared by whoever tears the owner down; held strongly, which the close callback ends.
    package var delegate: (any SocketStreamDelegate)?

    /// An unconnected TCP socket.
    ///
    /// - Parameter family: with `AF_UNSPEC` libuv makes the socket itself when it needs one.
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
        // Urgent data is data: it keeps its place among the other bytes (tcp(7), SO_OOBINLINE).
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

    /// Leaves the next read to a later turn; for `readAllowance`, which returns 0 then.
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
            // libuv takes a hang-up behind the last bytes for an orderly end without reading again (1.44,
            // uv__stream_io); a reset would then look like one, and a truncated answer like a whole one.
            var error: CInt = 0
            self.withDescriptor { error = cuv_end_error($0) }
            if error != 0 { return self.fail(UVError(code: error)) }
            // The kernel reports an error once. A write received it, so this end is not orderly.
            if let breakage = self.breakage { return self.fail(breakage) }
            self.delegate?.socketStreamDidReachEnd(self)
        } else if count == Int(UV_ENOBUFS.rawValue) {
            // Our own `room` said that nothing can be taken, or nothing more in this turn.
            if self.readTurn != self.loop.turn { self.stopReading() }
        } else if count < 0 {
            self.isReading = false
            self.fail(UVError(code: CInt(truncatingIfNeeded: count)))
        }
    }

    // MARK: - Writing

    /// Writes `pieces` in order and returns how many bytes the kernel took at once.
    ///
    /// The rest is copied and queued, and reported by `didWrite` when it is gone.
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

    /// Whether writing has failed: nothing more reaches the peer.
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

    /// Hands the first queued chunk to libuv, which writes it when the socket can take it.
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
        // What was queued is gone already when another call has found that writing failed.
        guard self.isOpen, !self.isBroken else { return }
        guard status == 0 else { return self.writingFailed(UVError(code: status)) }
        var written = self.queue.removeFirst()
        // The socket has room again: give it what else waits before asking to be woken.
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

    /// Ends our direction once the queue is written: the peer sees the end of the stream and can still answer.
    package func shutdownWriting() {
        guard self.isOpen, !self.wantsShutdown, !self.isBroken, self.delivery == nil else { return }
        self.wantsShutdown = true
        if self.queue.isEmpty { self.shutDown() }
    }

    private func shutDown() {
        guard self.shutdownRequest == nil, self.isOpen else { return }
        let request = UnsafeMutablePointer<uv_shutdown_t>.allocate(capacity: 1)
        // A failure means that the connection is gone already, which reading reports.
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

    /// Nothing more can be written. If the connection is over, what the peer sent before its end is still read.
    private func writingFailed(_ error: UVError) {
        guard self.isOpen, !self.isBroken else { return }
        self.queue.removeAll()
        var isOver = false
        self.withDescriptor { isOver = cuv_is_hung_up($0) != 0 }
        // Without a hang-up the end of what there is to read would never come.
        guard isOver, !self.hasEnded, self.delivery == nil else { return self.fail(error) }
        self.breakage = error
        self.report(.broken(error))
    }

    /// Looks whether the connection of a stream that does not read is over: nothing else would tell. It does not read
    /// because it was told so, or because the peer has ended its direction; then it may still reset ours, or vanish.
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

    /// At the end of the turn, so that no delegate is called back from inside its own call.
    private func report(_ news: News) {
        if self.news == nil { self.loop.atTurnEnd(self) }
        self.news = news
    }

    // MARK: - The end

    /// Closes in order: what the kernel has taken is still delivered, what is queued here is dropped.
    package func close() {
        guard self.isOpen else { return }
        if self.resetsOnDeath { self.withDescriptor { _ = cuv_reset_on_close($0, 0) } }
        self.tearDown()
    }

    private func tearDown() {
        self.delivery?.close()
        self.closeHandle()
    }

    /// Closes with a TCP reset, so that the peer cannot take what it got for a complete answer.
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
        // The connection is over before the delivery: reset now.
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
