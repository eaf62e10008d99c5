internal import Bytes
internal import ProxyProtocol
internal import Secure

/// The beginning of a connection at the gateway: a PROXY header, if there is one, and the first message of the handshake.
/// Until the message is complete, an unauthenticated connection costs no more than the bytes that it has sent.
final class Greeting {
    enum Progress: Equatable {
        case needMore
        /// Call ``Greeting/next()``: bytes of the handshake may have followed.
        case header(ProxyHeader)
        /// The first message is complete.
        case whole
        /// The first message is larger than a handshake has reason to begin with.
        case tooLarge
        case failed(LinkEnd)
    }

    private enum State {
        case start
        case header(ProxyHeaderDecoder, firstByte: UInt8)
        case handshake
    }

    private let version: LinkProtocol
    private var state = State.start
    /// Of the handshake.
    private var bytes = ByteQueue()

    init(_ version: LinkProtocol) { self.version = version }

    /// - Parameter bytes: at least one.
    func received(_ bytes: UnsafeRawBufferPointer) -> Progress {
        switch self.state {
        case .start:
            if ProxyHeader.canBegin(with: bytes[0]) {
                return self.headerReceived(bytes, ProxyHeaderDecoder(), firstByte: bytes[0])
            }
            self.state = .handshake
        case .header(let decoder, let first): return self.headerReceived(bytes, decoder, firstByte: first)
        case .handshake: break
        }
        self.bytes.append(bytes)
        return self.next()
    }

    private func headerReceived(
        _ bytes: UnsafeRawBufferPointer, _ decoder: ProxyHeaderDecoder, firstByte: UInt8
    ) -> Progress {
        var decoder = decoder
        switch decoder.received(bytes.bytes) {
        case .needMore:
            self.state = .header(decoder, firstByte: firstByte)
            return .needMore
        // 'P' is also the first letter of POST.
        case .invalid(.noHeader): return .failed(.otherProtocol(firstByte: firstByte))
        case .invalid(let fault): return .failed(.security(SecurityError(fault.description)))
        case .header(let header, let count):
            self.state = .handshake
            self.bytes.append(UnsafeRawBufferPointer(rebasing: bytes[count...]))
            return .header(header)
        }
    }

    /// Bytes of the handshake.
    var count: Int { self.bytes.count }

    func withHandshake(_ body: (UnsafeRawBufferPointer) -> Void) { self.bytes.withReadable(body) }

    /// Adds bytes that follow a complete message.
    func append(_ bytes: UnsafeRawBufferPointer) { self.bytes.append(bytes) }

    /// Judges the received bytes of the handshake.
    func next() -> Progress {
        self.bytes.withReadable { bytes in
            guard let first = bytes.first else { return .needMore }
            guard first == self.version.firstByte else { return .failed(.otherProtocol(firstByte: first)) }
            switch self.version.greeting(bytes.bytes) {
            case .needMore: return .needMore
            case .invalid: return .failed(.security(SecurityError("not a TLS handshake")))
            case .tooLarge: return .tooLarge
            case .whole: return .whole
            }
        }
    }
}
