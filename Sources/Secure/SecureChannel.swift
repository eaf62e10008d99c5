package import Bytes

/// What the handshake told of the peer.
package struct ChannelPeer: Equatable, Sendable {
    /// What the system's certificate authorities make of the peer's certificate.
    package enum SystemVerdict: Equatable, Sendable {
        /// It leads to a trusted authority and names the host that was dialled.
        case trusted
        /// The same, but it has expired: when, in seconds since 1970; nil if a certificate of its issuers has.
        case expired(Int64?)
        /// The same, but it is not valid yet: from when on; nil if a certificate of its issuers is not.
        case notYetValid(Int64?)
        /// Why not, in OpenSSL's words.
        case untrusted(String)
    }

    /// The pin of the peer's key; nil when it showed no certificate.
    package let pin: Pin?
    package let system: SystemVerdict
}

/// One encrypted connection as bytes in, bytes out; sockets are the driver's business.
package protocol SecureChannel: AnyObject {
    /// The peer, once the handshake is over.
    var peer: ChannelPeer? { get }
    /// The peer has said that nothing more will come.
    var isClosedByPeer: Bool { get }
    /// Pieces that were decrypted, each of which costs the same however small it is.
    var recordsReceived: Int { get }
    /// The peer may send one more message that is neither data nor part of the first handshake. Call it once a second
    /// after the login.
    func allowMessage()
    /// Says the first words of the handshake, as the dialling side.
    func start(output: inout ByteQueue) throws(SecurityError)
    /// Takes what the socket delivered; what it means is written to `plain`, what must be answered to `output`.
    ///
    /// - Precondition: `plain` is at least as large as `input` and 16 KiB more.
    /// - Returns: number of bytes written to `plain`. All of `input` is used up.
    func receive(
        _ input: UnsafeRawBufferPointer, into plain: UnsafeMutableRawBufferPointer, output: inout ByteQueue
    ) throws(SecurityError) -> Int
    /// Encrypts all of `plain` into `output`.
    ///
    /// - Precondition: the handshake is over.
    func encrypt(_ plain: UnsafeRawBufferPointer, output: inout ByteQueue) throws(SecurityError)
    /// Says that nothing more will come, if there is a way to say it.
    func close(output: inout ByteQueue)
}

extension SecureChannel {
    package var isEstablished: Bool { self.peer != nil }
}
