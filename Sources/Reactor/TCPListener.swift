internal import CUV

/// Hears of connections that a ``TCPListener`` accepts.
package protocol TCPListenerDelegate: AnyObject {
    /// Set the stream's delegate, or close it.
    func listener(_ listener: TCPListener, didAccept stream: SocketStream)
    /// A connection could not be accepted (no descriptors, the peer was gone); the listener goes on.
    func listener(_ listener: TCPListener, didFail error: UVError)
}

/// A listening TCP socket. Its lifetime is that of every handle (see ``SocketStream``).
package final class TCPListener {
    private enum Phase { case open, closing, closed }

    package let loop: EventLoop
    private let raw: UnsafeMutablePointer<uv_tcp_t>
    private var phase = Phase.open
    private var isPaused = false
    /// libuv holds one accepted connection for us and waits until it is taken.
    private var holdsConnection = false
    package var delegate: (any TCPListenerDelegate)?
    /// The address with the port that the system chose.
    package private(set) var address: SocketAddress

    /// Binds and listens. An IPv6 listener takes no IPv4 connections, so that both families can have their own.
    ///
    /// - Parameter backlog: connections that wait to be accepted (listen(2)).
    package init(loop: EventLoop, address: SocketAddress, backlog: Int32 = 1_024) throws(UVError) {
        let raw = UnsafeMutablePointer<uv_tcp_t>.allocate(capacity: 1)
        do throws(UVError) { try check(uv_tcp_init(loop.raw, raw)) } catch {
            raw.deallocate()
            throw error
        }
        self.loop = loop
        self.raw = raw
        self.address = address
        raw.pointee.data = Unmanaged.passRetained(self).toOpaque()
        do throws(UVError) {
            let flags = address.family == .ip6 ? UV_TCP_IPV6ONLY.rawValue : 0
            try check(address.withRaw { uv_tcp_bind(raw, cuv_sockaddr($0), flags) })
            try check(uv_listen(cuv_stream_of_tcp(raw), backlog, onConnection))
        } catch {
            self.close()
            throw error
        }
        self.address = SocketAddress.read { uv_tcp_getsockname(raw, $0, $1) } ?? address
    }

    deinit {
        precondition(self.phase == .closed, "a listener was dropped before its close callback")
    }

    /// Leaves further connections in the backlog.
    package func pause() { self.isPaused = true }

    package func resume() {
        guard self.isPaused, self.phase == .open else { return }
        self.isPaused = false
        if self.holdsConnection {
            self.holdsConnection = false
            self.accept()
        }
    }

    /// Stops listening; connections in the backlog are reset by the system.
    package func close() {
        guard self.phase == .open else { return }
        if self.holdsConnection { self.resetHeldConnection() }
        self.phase = .closing
        uv_close(cuv_handle_of_tcp(self.raw), onClose)
    }

    fileprivate func connectionArrived(_ status: CInt) {
        guard self.phase == .open else { return }
        guard status == 0 else {
            self.delegate?.listener(self, didFail: UVError(code: status))
            return
        }
        // Not taking the connection makes libuv stop polling the listener, which is what a pause is.
        if self.isPaused { self.holdsConnection = true } else { self.accept() }
    }

    private func accept() {
        do throws(UVError) {
            let stream = try SocketStream.tcp(loop: self.loop)
            do throws(UVError) { try check(uv_accept(cuv_stream_of_tcp(self.raw), stream.raw)) } catch {
                stream.close()
                throw error
            }
            guard let delegate = self.delegate else { return stream.close() }
            delegate.listener(self, didAccept: stream)
        } catch {
            self.delegate?.listener(self, didFail: error)
        }
    }

    /// libuv would close the connection that it holds in order, which the visitor could take for an empty answer.
    private func resetHeldConnection() {
        self.holdsConnection = false
        // Without memory or descriptors it ends as libuv likes.
        guard let stream = try? SocketStream.tcp(loop: self.loop) else { return }
        if uv_accept(cuv_stream_of_tcp(self.raw), stream.raw) == 0 { stream.reset() } else { stream.close() }
    }

    fileprivate func didClose() {
        self.phase = .closed
        self.raw.deallocate()
        self.delegate = nil
    }
}

private let onConnection: uv_connection_cb = { handle, status in
    guard let data = handle?.pointee.data else { return }
    Unmanaged<TCPListener>.fromOpaque(data)._withUnsafeGuaranteedRef { $0.connectionArrived(status) }
}

private let onClose: uv_close_cb = { handle in
    guard let data = handle?.pointee.data else { return }
    Unmanaged<TCPListener>.fromOpaque(data).takeRetainedValue().didClose()
}
