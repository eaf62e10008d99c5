internal import Bytes
internal import ProxyProtocol
internal import Secure

/// What a connection begins with, as the gateway reads it: the header of a proxy, if one sends it, and the first message
/// of the handshake. Until that is complete a stranger costs no more than the bytes it has sent.
final class Greeting {
    enum Progress: Equatable {
        case needMore
        /// Then ask for the ``Greeting/next()``: more may have come behind it.
        case header(ProxyHeader)
        /// All bytes of the handshake so far.
        case whole([UInt8])
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

    /// Judges what has come of the handshake.
    func next() -> Progress {
        guard self.bytes.count > 0 else { return .needMore }
        let first = self.bytes.readable.unsafeLoad(as: UInt8.self)
        guard first == self.version.firstByte else { return .failed(.otherProtocol(firstByte: first)) }
        switch self.version.greeting(self.bytes.readable) {
        case .needMore: return .needMore
        case .invalid: return .failed(.security(SecurityError("not the beginning of a TLS handshake")))
        case .tooLarge: return .tooLarge
        case .whole: return .whole(self.bytes.withReadable { Array($0) })
        }
    }
}
