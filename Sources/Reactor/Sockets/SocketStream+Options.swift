internal import CUV

/// How the kernel gets on with sending.
package struct Sending: Equatable, Sendable {
    /// Milliseconds since the peer last acknowledged anything, old bytes included.
    package let sinceAcknowledgement: UInt32
    /// How often in a row the first unacknowledged segment was sent again for want of an acknowledgement.
    package let timeouts: Int
    /// Bytes of a full segment, without headers and options.
    package let segment: Int

    package init(sinceAcknowledgement: UInt32, timeouts: Int, segment: Int) {
        self.sinceAcknowledgement = sinceAcknowledgement
        self.timeouts = timeouts
        self.segment = segment
    }
}

/// Options and addresses of TCP sockets; on a unix socket they do nothing.
extension SocketStream {
    /// If this process dies, the peer gets a reset: what it received so far must not look whole.
    package func setResetOnDeath() {
        guard self.isTCP else { return }
        self.resetsOnDeath = true
        self.withDescriptor { _ = cuv_reset_on_close($0, 1) }
    }

    /// The error that the connection met while nothing was read or written, if any. The kernel reports it once.
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

    /// Probes a silent peer after `seconds`, and then every `interval` seconds; after `count` probes without an answer
    /// the connection fails with ETIMEDOUT (tcp(7), TCP_KEEPIDLE, TCP_KEEPINTVL, TCP_KEEPCNT).
    package func setKeepAlive(seconds: Int32, interval: Int32, count: Int32) {
        guard self.isTCP else { return }
        self.withDescriptor { _ = cuv_keepalive($0, seconds, interval, count) }
    }

    /// Gives up when sent bytes stay unacknowledged this long (tcp(7), TCP_USER_TIMEOUT).
    package func setUserTimeout(milliseconds: UInt32) {
        guard self.isTCP else { return }
        self.withDescriptor { _ = cuv_user_timeout($0, milliseconds) }
    }

    /// Takes no more from us while more than `bytes` were not yet sent (tcp(7), TCP_NOTSENT_LOWAT): what is urgent
    /// does not queue behind what is bulky.
    package func setNotSentLowWater(bytes: UInt32) {
        guard self.isTCP else { return }
        self.withDescriptor { _ = cuv_notsent_lowat($0, bytes) }
    }

    /// Bounds what the kernel takes of the peer before it is read, in place of its own choice by speed (tcp(7),
    /// SO_RCVBUF: it doubles the value for its own needs).
    package func setReceiveBuffer(bytes: UInt32) {
        guard self.isTCP else { return }
        self.withDescriptor { _ = cuv_receive_buffer($0, bytes) }
    }

    /// Bytes that the kernel holds because the peer has not taken them (tcp(7), SIOCOUTQ); 0 when it cannot tell.
    package var unacknowledgedByteCount: Int {
        var count: CInt = 0
        if self.isTCP { self.withDescriptor { count = cuv_unacknowledged($0) } }
        return Int(count)
    }

    /// Milliseconds since the peer last acknowledged anything, while it has something to acknowledge (tcp(7),
    /// TCP_INFO); else nil. A peer that keeps its window shut acknowledges probes, at least every two minutes.
    package var unansweredMilliseconds: UInt32? {
        guard self.unacknowledgedByteCount > 0 else { return nil }
        return self.sending?.sinceAcknowledgement
    }

    /// How sending goes (tcp(7), TCP_INFO); nil when the kernel cannot tell.
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

    /// Who is at the other end of a unix socket, as of its connect(2) (unix(7), SO_PEERCRED).
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
