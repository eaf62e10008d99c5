internal import CUV

/// The state of the sending side of a TCP connection.
package struct Sending: Equatable, Sendable {
    /// Milliseconds since the peer's last ACK, even one that acknowledged nothing new.
    package let sinceAcknowledgement: UInt32
    /// Consecutive retransmission timeouts of the first unacknowledged segment.
    package let timeouts: Int
    /// Size of a full segment in bytes, without headers and options.
    package let segment: Int

    package init(sinceAcknowledgement: UInt32, timeouts: Int, segment: Int) {
        self.sinceAcknowledgement = sinceAcknowledgement
        self.timeouts = timeouts
        self.segment = segment
    }
}

/// Options and addresses of TCP sockets. On a unix socket the setters do nothing.
extension SocketStream {
    /// Makes the kernel reset the connection if this process dies, so that the peer does not mistake a truncated answer
    /// for a complete one.
    package func setResetOnDeath() {
        guard self.isTCP else { return }
        self.resetsOnDeath = true
        self.withDescriptor { _ = cuv_reset_on_close($0, 1) }
    }

    /// The error that occurred while nothing was read or written, if any. The kernel reports it only once.
    var pendingError: UVError? {
        var code: CInt = 0
        if self.isTCP { self.withDescriptor { code = cuv_pending_error($0) } }
        return code == 0 ? nil : UVError(code: code)
    }

    /// Sends small writes at once (tcp(7), TCP_NODELAY).
    package func setNoDelay() {
        guard self.isTCP, self.isOpen else { return }
        uv_tcp_nodelay(cuv_tcp_of_stream(self.raw), 1)
    }

    /// Probes a silent peer after `seconds`, and then every `interval` seconds. After `count` unanswered probes the
    /// connection fails with ETIMEDOUT (tcp(7), TCP_KEEPIDLE, TCP_KEEPINTVL, TCP_KEEPCNT).
    package func setKeepAlive(seconds: Int32, interval: Int32, count: Int32) {
        guard self.isTCP else { return }
        self.withDescriptor { _ = cuv_keepalive($0, seconds, interval, count) }
    }

    /// Fails the connection if sent bytes stay unacknowledged this long (tcp(7), TCP_USER_TIMEOUT).
    package func setUserTimeout(milliseconds: UInt32) {
        guard self.isTCP else { return }
        self.withDescriptor { _ = cuv_user_timeout($0, milliseconds) }
    }

    /// Makes the kernel take no more bytes while it holds more than `bytes` unsent (tcp(7), TCP_NOTSENT_LOWAT). This
    /// keeps urgent bytes from queueing behind bulk data.
    package func setNotSentLowWater(bytes: UInt32) {
        guard self.isTCP else { return }
        self.withDescriptor { _ = cuv_notsent_lowat($0, bytes) }
    }

    /// Limits how many bytes the kernel buffers before they are read, and disables its auto-tuning (tcp(7), SO_RCVBUF).
    /// The kernel doubles the value for its own overhead.
    package func setReceiveBuffer(bytes: UInt32) {
        guard self.isTCP else { return }
        self.withDescriptor { _ = cuv_receive_buffer($0, bytes) }
    }

    /// Bytes that the kernel holds because the peer has not acknowledged them (tcp(7), SIOCOUTQ); 0 if unknown.
    package var unacknowledgedByteCount: Int {
        var count: CInt = 0
        if self.isTCP { self.withDescriptor { count = cuv_unacknowledged($0) } }
        return Int(count)
    }

    /// Milliseconds since the peer's last ACK (tcp(7), TCP_INFO); nil if no bytes are unacknowledged. A peer with a
    /// closed window still acknowledges probes, at least every two minutes.
    package var unansweredMilliseconds: UInt32? {
        guard self.unacknowledgedByteCount > 0 else { return nil }
        return self.sending?.sinceAcknowledgement
    }

    /// The state of the sending side (tcp(7), TCP_INFO); nil if unknown.
    package var sending: Sending? {
        guard self.isTCP else { return nil }
        var state = cuv_sending()
        var code: CInt = -1
        self.withDescriptor { code = cuv_sending($0, &state) }
        guard code == 0 else { return nil }
        return Sending(
            sinceAcknowledgement: state.since_ack, timeouts: Int(state.timeouts), segment: Int(state.segment))
    }

    func withDescriptor(_ body: (CInt) -> Void) {
        var descriptor: uv_os_fd_t = -1
        guard self.isOpen, uv_fileno(cuv_handle(self.memory), &descriptor) == 0 else { return }
        body(descriptor)
    }

    /// The process and user ID of a unix socket's peer at its connect(2) (unix(7), SO_PEERCRED); nil for a TCP socket.
    package var peerCredentials: (process: Int32, user: UInt32)? {
        var process: CInt = 0
        var user: CUnsignedInt = 0
        var code: CInt = -1
        if !self.isTCP { self.withDescriptor { code = cuv_peer_credentials($0, &process, &user) } }
        return code == 0 ? (process, user) : nil
    }

    package var peerAddress: SocketAddress? {
        guard self.isTCP, self.isOpen else { return nil }
        return SocketAddress.read { uv_tcp_getpeername(cuv_tcp_of_stream(self.raw), $0, $1) }
    }

    package var localAddress: SocketAddress? {
        guard self.isTCP, self.isOpen else { return nil }
        return SocketAddress.read { uv_tcp_getsockname(cuv_tcp_of_stream(self.raw), $0, $1) }
    }
}
