package import Bytes
internal import COpenSSL

/// The encryption of protocol version 1 (`docs/version-1.md`). It stops only casual observers: both directions use the
/// same key stream, nothing is authenticated, and an attacker on the path can flip any bit.
///
/// Each side sends 38 bytes, `magic | version u8 | compressed public key`, the dialling side first. Everything after
/// that is encrypted.
package final class Version1Session: SecureChannel {
    /// "digl".
    package static let magic: [UInt8] = [0x64, 0x69, 0x67, 0x6C]
    static let version: UInt8 = 1
    private static let greetingSize = 5 + Version1KeyPair.publicKeySize

    private enum State {
        /// The bytes of the peer's greeting received so far.
        case greeting([UInt8])
        case open(seal: Version1Cipher, open: Version1Cipher)
    }

    private let isServer: Bool
    /// A server creates them only when the peer's greeting is complete, because that takes 0.4 ms.
    private var keys: Version1KeyPair?
    package private(set) var recordsReceived = 0
    private var state = State.greeting([])
    package private(set) var peer: ChannelPeer?
    /// Always false: the protocol has no close message.
    package var isClosedByPeer: Bool { false }

    package init(isServer: Bool) throws(SecurityError) {
        self.isServer = isServer
        if !isServer { self.keys = try Version1KeyPair() }
    }

    /// For test vectors only.
    ///
    /// - Parameter secret: a big-endian number from 1 to the curve's order - 1.
    package init(isServer: Bool, secret: [UInt8]) throws(SecurityError) {
        self.isServer = isServer
        self.keys = try Version1KeyPair(secret: secret)
    }

    private func greet(_ output: inout ByteQueue) {
        guard let key = self.keys?.publicKey else { return }
        output.append(Self.magic)
        output.append(Self.version)
        output.append(key)
    }

    package func start(output: inout ByteQueue) throws(SecurityError) { self.greet(&output) }

    /// Does nothing: the protocol has no such messages.
    package func allowMessage() {}

    package func receive(
        _ input: UnsafeRawBufferPointer, into plain: UnsafeMutableRawBufferPointer, output: inout ByteQueue
    ) throws(SecurityError) -> Int {
        switch self.state {
        case .open(_, let open):
            try open.apply(input, to: plain)
            self.recordsReceived += 1
            return input.count
        case .greeting(var greeting):
            let taken = min(Self.greetingSize - greeting.count, input.count)
            greeting += input[..<taken]
            // Check each byte as it arrives, so that other protocols are rejected without waiting for 38 bytes.
            guard greeting.prefix(4) == Self.magic.prefix(greeting.count) else {
                throw SecurityError("not a version 1 greeting")
            }
            if greeting.count > 4, greeting[4] != Self.version {
                throw SecurityError("the peer uses version \(greeting[4]), not 1")
            }
            guard greeting.count == Self.greetingSize else {
                self.state = .greeting(greeting)
                return 0
            }
            if self.keys?.publicKey == nil { self.keys = try Version1KeyPair() }
            guard var digest = try self.keys?.sharedDigest(with: Array(greeting[5...])) else {
                preconditionFailure("a client makes its keys at the start")
            }
            defer { digest.withUnsafeMutableBytes { OPENSSL_cleanse($0.baseAddress, $0.count) } }
            let open = try Version1Cipher(digest: digest)
            self.state = .open(seal: try Version1Cipher(digest: digest), open: open)
            self.peer = ChannelPeer(pin: nil, system: .untrusted("version 1 has no certificates"))
            if self.isServer { self.greet(&output) }
            let rest = UnsafeRawBufferPointer(rebasing: input[taken...])
            try open.apply(rest, to: plain)
            return rest.count
        }
    }

    package func encrypt(_ plain: UnsafeRawBufferPointer, output: inout ByteQueue) throws(SecurityError) {
        guard case .open(let seal, _) = self.state else { preconditionFailure("encrypting before the handshake") }
        var failure: SecurityError?
        output.append(atMost: plain.count) { room in
            do throws(SecurityError) { try seal.apply(plain, to: room) } catch { failure = error }
            return failure == nil ? plain.count : 0
        }
        if let failure { throw failure }
    }

    package func exportKey(label: String, count: Int) -> [UInt8]? { nil }

    package func close(output: inout ByteQueue) {}
}
