package import Bytes
internal import COpenSSL

/// A TLS 1.3 session of OpenSSL, with a BIO that uses the driver's buffers.
package final class TLSSession: SecureChannel {
    private let context: TLSContext
    private let raw: OpaquePointer
    private let port: UnsafeMutablePointer<TransportPort>
    private var recordsSinceKey = 0
    package private(set) var peer: ChannelPeer?
    package private(set) var isClosedByPeer = false
    package private(set) var recordsReceived = 0

    /// How many post-handshake messages a peer may send before the first ``allowMessage()``. Each costs as much as 10
    /// to 20 full records and is answered, so few are allowed. A client may send none before it has logged in. Servers
    /// send tickets (OpenSSL: two by default). Key updates are needed only every 2^23 records.
    static let firstMessages: (ofClient: Int, ofServer: Int) = (0, 4)
    /// Maximum number of messages that ``allowMessage()`` accumulates. Processing all of them takes less than a
    /// millisecond.
    package static let maxMessages = 16

    /// - Parameter serverName: for a client, the dialled host. It is sent as SNI (RFC 6066, 3) unless it is an IP
    ///   address, and compared with the certificate.
    package init(context: TLSContext, serverName: String? = nil) throws(SecurityError) {
        guard let raw = SSL_new(context.raw) else { throw .last("cannot make a TLS session") }
        self.context = context
        self.raw = raw
        self.port = .allocate(capacity: 1)
        self.port.initialize(to: TransportPort())
        guard let bio = TransportBIO.make(self.port) else { throw .last("cannot make a BIO") }
        // One BIO for both directions; SSL_free frees it.
        SSL_set_bio(raw, bio, bio)
        // The port lives as long as the session.
        cssl_watch_messages(raw, onMessage, self.port)
        if context.isServer {
            SSL_set_accept_state(raw)
        } else {
            SSL_set_connect_state(raw)
            if let serverName {
                guard SSL_set1_host(raw, serverName) == 1 else { throw .last("cannot check the host's name") }
                let isAddress = serverName.contains(":") || serverName.allSatisfy { $0.isNumber || $0 == "." }
                if !isAddress { _ = cssl_set_server_name(raw, serverName) }
            }
        }
    }

    deinit {
        SSL_free(self.raw)
        self.port.deinitialize(count: 1)
        self.port.deallocate()
    }

    package func start(output: inout ByteQueue) throws(SecurityError) {
        try self.call(UnsafeRawBufferPointer(start: nil, count: 0), &output) { session throws(SecurityError) in
            try session.shakeHands()
        }
    }

    package func receive(
        _ input: UnsafeRawBufferPointer, into plain: UnsafeMutableRawBufferPointer, output: inout ByteQueue
    ) throws(SecurityError) -> Int {
        var count = 0
        try self.call(input, &output) { session throws(SecurityError) in
            if !session.isEstablished {
                try session.shakeHands()
                guard session.isEstablished else { return }
            }
            count = try session.decrypt(into: plain)
        }
        return count
    }

    private func decrypt(into plain: UnsafeMutableRawBufferPointer) throws(SecurityError) -> Int {
        var total = 0
        while true {
            precondition(total < plain.count, "the buffer for plain bytes is too small")
            var count = 0
            ERR_clear_error()
            let code = SSL_read_ex(self.raw, plain.baseAddress.map { $0 + total }, plain.count - total, &count)
            if code == 1 {
                total += count
                self.recordsReceived += 1
                continue
            }
            guard !self.port.pointee.isFlooded else {
                throw SecurityError("too many TLS messages after the handshake", limit: .messages)
            }
            switch SSL_get_error(self.raw, code) {
            case SSL_ERROR_WANT_READ: return total
            case SSL_ERROR_ZERO_RETURN:
                self.isClosedByPeer = true
                return total
            default: throw .last("bad TLS record")
            }
        }
    }

    package func encrypt(_ plain: UnsafeRawBufferPointer, output: inout ByteQueue) throws(SecurityError) {
        try self.call(UnsafeRawBufferPointer(start: nil, count: 0), &output) { session throws(SecurityError) in
            var offset = 0
            while offset < plain.count {
                var count = 0
                ERR_clear_error()
                let code = SSL_write_ex(
                    session.raw, plain.baseAddress.map { $0 + offset }, plain.count - offset, &count)
                guard code == 1 else { throw .last("cannot encrypt") }
                offset += count
                // With partial writes enabled, each call writes one record.
                session.recordsSinceKey += 1
                if session.recordsSinceKey >= session.context.recordsPerKey {
                    session.recordsSinceKey = 0
                    guard SSL_key_update(session.raw, SSL_KEY_UPDATE_NOT_REQUESTED) == 1 else {
                        throw .last("cannot change the key")
                    }
                }
            }
        }
    }

    /// Sends a close_notify alert (RFC 8446, 6.1).
    package func close(output: inout ByteQueue) {
        guard self.isEstablished else { return }
        // Ignore errors: they mean that the session is already broken.
        try? self.call(UnsafeRawBufferPointer(start: nil, count: 0), &output) { session throws(SecurityError) in
            _ = SSL_shutdown(session.raw)
        }
    }

    package func exportKey(label: String, count: Int) -> [UInt8]? {
        guard self.isEstablished else { return nil }
        var bytes = [UInt8](repeating: 0, count: count)
        let code = SSL_export_keying_material(self.raw, &bytes, count, label, label.utf8.count, nil, 0, 0)
        ERR_clear_error()
        return code == 1 ? bytes : nil
    }

    private func shakeHands() throws(SecurityError) {
        ERR_clear_error()
        let code = SSL_do_handshake(self.raw)
        if code != 1 {
            guard SSL_get_error(self.raw, code) == SSL_ERROR_WANT_READ else { throw .last("the TLS handshake failed") }
            return
        }
        var name: UnsafePointer<UInt8>?
        var length: UInt32 = 0
        SSL_get0_alpn_selected(self.raw, &name, &length)
        let chosen = String(decoding: UnsafeBufferPointer(start: name, count: Int(length)), as: UTF8.self)
        guard chosen == self.context.applicationProtocol else {
            throw SecurityError("the peer does not speak \(self.context.applicationProtocol)")
        }
        let certificate = SSL_get1_peer_certificate(self.raw)
        self.peer = ChannelPeer(
            pin: certificate.flatMap { Pin(certificate: $0) },
            system: Self.verdict(SSL_get_verify_result(self.raw), of: certificate))
        X509_free(certificate)
        self.port.pointee.messagesLeft =
            self.context.isServer ? Self.firstMessages.ofClient : Self.firstMessages.ofServer
    }

    private static func verdict(_ code: CLong, of certificate: OpaquePointer?) -> ChannelPeer.SystemVerdict {
        guard let certificate else { return .untrusted("no certificate") }
        switch CInt(truncatingIfNeeded: code) {
        case X509_V_OK: return .trusted
        case X509_V_ERR_CERT_HAS_EXPIRED:
            let time = X509_get0_notAfter(certificate)
            return .expired(X509_cmp_current_time(time) < 0 ? seconds(of: time) : nil)
        case X509_V_ERR_CERT_NOT_YET_VALID:
            let time = X509_get0_notBefore(certificate)
            return .notYetValid(X509_cmp_current_time(time) > 0 ? seconds(of: time) : nil)
        default: return .untrusted(String(cString: X509_verify_cert_error_string(code)))
        }
    }

    package func allowMessage() {
        guard let left = self.port.pointee.messagesLeft else { return }
        self.port.pointee.messagesLeft = min(left + 1, Self.maxMessages)
    }

    /// Lends `input` and `output` to the BIO while `body` runs.
    private func call(
        _ input: UnsafeRawBufferPointer, _ output: inout ByteQueue, _ body: (TLSSession) throws(SecurityError) -> Void
    ) throws(SecurityError) {
        try withUnsafeMutablePointer(to: &output) { pointer throws(SecurityError) in
            self.port.pointee.input = input.baseAddress
            self.port.pointee.inputCount = input.count
            self.port.pointee.output = pointer
            defer {
                self.port.pointee.input = nil
                self.port.pointee.inputCount = 0
                self.port.pointee.output = nil
            }
            try body(self)
        }
    }
}

/// Counts the peer's post-handshake messages: key updates and tickets (RFC 8446, 4.6).
private let onMessage:
    @convention(c) (CInt, CInt, CInt, UnsafeRawPointer?, Int, OpaquePointer?, UnsafeMutableRawPointer?) -> Void = {
        isSent, _, contentType, _, _, _, argument in
        guard isSent == 0, contentType == SSL3_RT_HANDSHAKE, let argument else { return }
        let port = argument.assumingMemoryBound(to: TransportPort.self)
        guard let left = port.pointee.messagesLeft else { return }
        if left > 0 { port.pointee.messagesLeft = left - 1 } else { port.pointee.isFlooded = true }
    }
