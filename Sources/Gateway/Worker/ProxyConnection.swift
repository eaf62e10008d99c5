internal import ProxyProtocol
internal import Reactor
internal import Timing
internal import Tunnel

/// A connection from a trusted proxy until its stream is opened. Reads the PROXY header and only the bytes received
/// with it.
final class ProxyConnection {
    private enum State {
        case silent(ProxyHeaderDecoder)
        /// The header is complete and the visitor waits for room; with the bytes that followed the header.
        case parked(Visitor, [UInt8])
        /// Handed to an edge, or reset.
        case done
    }

    /// Bytes per read: enough for a whole header, and less than any window, so the visitor's bytes after it always fit.
    private static let readBytes = 4_096

    let stream: SocketStream
    let proxy: Origin
    /// The deadline for the PROXY header, later for room at the agent. In milliseconds, on the loop's clock.
    private(set) var deadline: Milliseconds = 0
    private unowned let entrance: ProxyEntrance
    private var state = State.silent(ProxyHeaderDecoder()) {
        didSet { self.share.set(self.heldBytes) }
    }
    /// The charge for what it holds in the process's byte budget, which also counts the bytes of streams.
    private var share: BudgetShare

    init(_ stream: SocketStream, from proxy: Origin, entrance: ProxyEntrance, budget: ByteBudget) {
        self.stream = stream
        self.proxy = proxy
        self.entrance = entrance
        self.share = BudgetShare(budget)
    }

    private var heldBytes: Int {
        switch self.state {
        case .silent: Self.readBytes
        case .parked(_, let first): first.count
        case .done: 0
        }
    }

    /// Nil until the header has arrived.
    var visitor: Visitor? {
        if case .parked(let visitor, _) = self.state { visitor } else { nil }
    }

    func start(deadline: Milliseconds) {
        self.deadline = deadline
        self.share.set(self.heldBytes)
        self.stream.delegate = self
        self.stream.startReading()
    }

    /// Keeps the bytes after the header until there is room for a stream, and stops reading.
    func park(_ visitor: Visitor, _ rest: UnsafeRawBufferPointer, deadline: Milliseconds) {
        self.deadline = deadline
        self.state = .parked(visitor, Array(rest))
        self.stream.stopReading()
    }

    /// Gives up the stream to the caller, with its visitor and first bytes; nil if the connection is not parked.
    func handOver() -> (Visitor, [UInt8])? {
        guard case .parked(let visitor, let first) = self.state else { return nil }
        self.state = .done
        return (visitor, first)
    }

    /// The caller has taken the stream.
    func handedOver() { self.state = .done }

    func reset() {
        self.state = .done
        self.stream.reset()
    }

    private func failed(_ reason: String, _ result: VisitorResult = .headerBad) {
        if case .done = self.state { return }
        self.entrance.failed(self, reason, result)
    }
}

extension ProxyConnection: SocketStreamDelegate {
    func readAllowance(_ stream: SocketStream) -> Int {
        if case .silent = self.state { Self.readBytes } else { 0 }
    }

    func socketStream(_ stream: SocketStream, didRead bytes: UnsafeRawBufferPointer) {
        guard case .silent(var decoder) = self.state else { return }
        switch decoder.received(bytes.bytes) {
        case .needMore: self.state = .silent(decoder)
        case .invalid(let fault): self.failed("\(fault)")
        case .header(let header, let count):
            self.entrance.headerArrived(self, header, rest: UnsafeRawBufferPointer(rebasing: bytes[count...]))
        }
    }

    func socketStreamDidReachEnd(_ stream: SocketStream) { self.failed("it closed without a PROXY header") }

    func socketStream(_ stream: SocketStream, didWrite count: Int) {}

    func socketStream(_ stream: SocketStream, didFail error: UVError) { self.failed("\(error)", .gone) }

    func socketStreamDidClose(_ stream: SocketStream) {}
}
