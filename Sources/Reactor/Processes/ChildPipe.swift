internal import CUV
import Glibc

/// Our end of a pipe to or from a ``ChildProcess``: writes some bytes and closes, or reads until the end.
///
/// The close callback frees the write request and its bytes; libuv completes every request before that.
final class ChildPipe: LoopHandle {
    /// The two ends of a new pipe. Both are close-on-exec, and the caller of ``make(oursReads:)`` closes both.
    struct Ends {
        let reading: CInt
        let writing: CInt
    }

    private var raw: UnsafeMutablePointer<uv_pipe_t> { self.memory.assumingMemoryBound(to: uv_pipe_t.self) }
    private var request: UnsafeMutablePointer<uv_write_t>?
    private var bytes: UnsafeMutableRawBufferPointer?
    private var didRead: ((UnsafeRawBufferPointer) -> Void)?
    private var didEnd: (() -> Void)?

    /// Creates a pipe(2). UV_CREATE_PIPE would create a socket pair, but a program cannot open /dev/stdout if that is a
    /// socket (unix(7) sockets do not support open). Our end is non-blocking. The child's end blocks, as programs
    /// expect.
    static func make(oursReads: Bool) throws(UVError) -> Ends {
        let nonBlocking = CInt(UV_NONBLOCK_PIPE.rawValue)
        var ends: (CInt, CInt) = (-1, -1)
        let code = withUnsafeMutableBytes(of: &ends) { memory in
            uv_pipe(
                memory.bindMemory(to: uv_file.self).baseAddress, oursReads ? nonBlocking : 0,
                oursReads ? 0 : nonBlocking)
        }
        try check(code)
        return Ends(reading: ends.0, writing: ends.1)
    }

    /// Takes ownership of `descriptor`, even if it throws.
    init(loop: EventLoop, descriptor: CInt) throws(UVError) {
        super.init(loop: loop, uv_pipe_t.self)
        // uv_pipe_init cannot fail on an initialised loop.
        uv_pipe_init(loop.raw, self.raw, 0)
        self.opened()
        let code = uv_pipe_open(self.raw, descriptor)
        guard code == 0 else {
            Glibc.close(descriptor)
            self.close()
            throw UVError(code: code)
        }
    }

    /// Reads until the end (or an error, which pipes do not report), and then calls `didEnd`, never from inside this
    /// call.
    ///
    /// - Parameter didRead: receives bytes in the loop's read buffer. Use or copy them before returning.
    func read(_ didRead: @escaping (UnsafeRawBufferPointer) -> Void, didEnd: @escaping () -> Void) {
        self.didRead = didRead
        self.didEnd = didEnd
        // uv_read_start fails only if the handle is closing or cannot be read, so the result is ignored.
        uv_read_start(cuv_stream_of_pipe(self.raw), onAllocate, onRead)
    }

    /// Writes `bytes` as fast as the reader takes them, then closes the pipe. Errors are ignored: the program need not
    /// read its input.
    func writeAndClose(_ bytes: [UInt8]) {
        guard self.isOpen, self.request == nil, !bytes.isEmpty else { return self.close() }
        let copy = UnsafeMutableRawBufferPointer.allocate(byteCount: bytes.count, alignment: 1)
        copy.copyBytes(from: bytes)
        let request = UnsafeMutablePointer<uv_write_t>.allocate(capacity: 1)
        self.bytes = copy
        self.request = request
        var buffer = uv_buf_t(base: copy.baseAddress?.assumingMemoryBound(to: CChar.self), len: copy.count)
        if uv_write(request, cuv_stream_of_pipe(self.raw), &buffer, 1, onWrite) != 0 { self.close() }
    }

    func close() {
        self.didRead = nil
        self.didEnd = nil
        self.closeHandle()
    }

    fileprivate var readBuffer: uv_buf_t {
        let buffer = self.loop.readBuffer
        return uv_buf_t(base: buffer.baseAddress?.assumingMemoryBound(to: CChar.self), len: buffer.count)
    }

    fileprivate func didRead(_ count: Int, _ base: UnsafeMutablePointer<CChar>?) {
        guard self.isOpen, count != 0 else { return }
        if count > 0 {
            self.didRead?(UnsafeRawBufferPointer(start: base, count: count))
        } else {
            let didEnd = self.didEnd
            self.close()
            didEnd?()
        }
    }

    override func didClose() {
        self.request?.deallocate()
        self.bytes?.deallocate()
    }
}

private let onAllocate: uv_alloc_cb = { handle, _, buffer in
    borrow(handle?.pointee.data) { (pipe: ChildPipe) in buffer?.pointee = pipe.readBuffer }
}

private let onRead: uv_read_cb = { stream, count, buffer in
    borrow(stream?.pointee.data) { (pipe: ChildPipe) in pipe.didRead(count, buffer?.pointee.base) }
}

private let onWrite: uv_write_cb = { request, _ in
    borrow(request?.pointee.handle?.pointee.data) { (pipe: ChildPipe) in pipe.close() }
}
