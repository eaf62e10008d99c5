package import Bytes

/// What the handshake has shown about the peer.
package struct ChannelPeer: Equatable, Sendable {
    /// The result of verifying the peer's certificate against the system's certificate authorities.
    package enum SystemVerdict: Equatable, Sendable {
        /// The chain leads to a trusted authority, and the certificate names the dialled host.
        case trusted
        /// Like `trusted`, but expired: the expiry time in seconds since 1970, or nil if an issuer's certificate has
        /// expired instead.
        case expired(Int64?)
        /// Like `trusted`, but not valid yet: the start time in seconds since 1970, or nil if an issuer's certificate
        /// is not valid yet instead.
        case notYetValid(Int64?)
        /// Not trusted; the text is OpenSSL's reason.
        case untrusted(String)
    }

    /// The pin of the peer's key; nil if it presented no certificate.
    package let pin: Pin?
    package let system: SystemVerdict
}

/// The encryption of one connection: bytes in, bytes out. The driver owns the socket.
package protocol SecureChannel: AnyObject {
    /// The peer; nil until the handshake is complete.
    var peer: ChannelPeer? { get }
    /// Whether the peer has announced that it will send no more data.
    var isClosedByPeer: Bool { get }
    /// The number of records (in version 1: reads) decrypted so far. Each has a fixed cost, however small it is.
    var recordsReceived: Int { get }
    /// Allows the peer one more message that is neither data nor part of the first handshake. Call it once a second
    /// after the login.
    func allowMessage()
    /// Starts the handshake on the dialling side.
    func start(output: inout ByteQueue) throws(SecurityError)
    /// Processes bytes from the socket. Writes decrypted bytes to `plain` and bytes for the peer to `output`.
    ///
    /// - Precondition: `plain` is at least as large as `input` and 16 KiB more.
    /// - Returns: the number of bytes written to `plain`. All of `input` is consumed.
    /// - Throws: if the peer's bytes are invalid. `output` may then hold an alert to send.
    func receive(
        _ input: UnsafeRawBufferPointer, into plain: UnsafeMutableRawBufferPointer, output: inout ByteQueue
    ) throws(SecurityError) -> Int
    /// Encrypts all of `plain` into `output`.
    ///
    /// - Precondition: the handshake is complete.
    func encrypt(_ plain: UnsafeRawBufferPointer, output: inout ByteQueue) throws(SecurityError)
    /// Announces that no more data will be sent, if the protocol can do that.
    func close(output: inout ByteQueue)
    /// Bytes that only the two ends of this connection can know (RFC 8446, 7.5, without a context); nil if the protocol
    /// has none.
    ///
    /// - Precondition: the handshake is complete.
    func exportKey(label: String, count: Int) -> [UInt8]?
}

extension SecureChannel {
    package var isEstablished: Bool { self.peer != nil }
}
