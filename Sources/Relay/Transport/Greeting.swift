internal import Bytes
internal import ProxyProtocol
internal import Secure

/// The beginning of a connection at the gateway: an optional PROXY header and the first message of the handshake. Until
/// that message is complete, an unauthenticated connection costs no more memory than the bytes it has sent.
final class Greeting {
    enum Progress: Equatable {
        case needMore
        /// A PROXY header is complete. Call ``Greeting/next()`` afterwards: handshake bytes may have followed it.
        case header(ProxyHeader)
        /// The first message is complete.
        case whole
        /// The first message is larger than a legitimate one.
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
    /// Bytes of the handshake.
    private var bytes = ByteQueue()

    init(_ version: LinkProtocol) { self.version = version }

    /// Processes bytes from the socket.
    ///
    /// - Precondition: `bytes` is not empty.
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
        // Not a PROXY header after all: for example, 'P' is also the first letter of POST.
        case .invalid(.noHeader): return .failed(.otherProtocol(firstByte: firstByte))
        case .invalid(let fault): return .failed(.security(SecurityError(fault.description)))
        case .header(let header, let count):
            self.state = .handshake
            self.bytes.append(UnsafeRawBufferPointer(rebasing: bytes[count...]))
            return .header(header)
        }
    }

    /// The number of handshake bytes received.
    var count: Int { self.bytes.count }

    func withHandshake(_ body: (UnsafeRawBufferPointer) -> Void) { self.bytes.withReadable(body) }

    /// Adds bytes that arrived while the connection waits.
    func append(_ bytes: UnsafeRawBufferPointer) { self.bytes.append(bytes) }

    /// Checks the handshake bytes received so far.
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
