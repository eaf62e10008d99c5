internal import ProxyProtocol
internal import Reactor
internal import Timing
internal import Tunnel

/// A connection of a trusted proxy, until its stream is opened: reads the header and nothing more than came with it.
final class ProxyConnection {
    private enum State {
        case silent(ProxyHeaderDecoder)
        /// With what came behind the header.
        case parked(Visitor, [UInt8])
        /// Handed over to an edge, or reset.
        case done
    }

    /// What one read may bring: a whole header, and of the visitor's bytes fewer than every window holds.
    private static let readBytes = 4_096

    let stream: SocketStream
    let proxy: Origin
    /// When what is waited for must have come.
    private(set) var deadline: Milliseconds = 0
    private unowned let entrance: ProxyEntrance
    private var state = State.silent(ProxyHeaderDecoder()) {
        didSet { self.share.set(self.heldBytes) }
    }
    /// What it holds counts as the bytes of streams do.
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

    /// Whose connection it is, once that is known.
    var visitor: Visitor? {
        if case .parked(let visitor, _) = self.state { visitor } else { nil }
    }

    func start(deadline: Milliseconds) {
        self.deadline = deadline
        self.share.set(self.heldBytes)
        self.stream.delegate = self
        self.stream.startReading()
    }

    /// Keeps what came until there is room for a stream.
    func park(_ visitor: Visitor, _ rest: UnsafeRawBufferPointer, deadline: Milliseconds) {
        self.deadline = deadline
        self.state = .parked(visitor, Array(rest))
        self.stream.stopReading()
    }

    /// The visitor and its first bytes, for whoever takes the stream; nil when it is gone.
    func handOver() -> (Visitor, [UInt8])? {
        guard case .parked(let visitor, let first) = self.state else { return nil }
        self.state = .done
        return (visitor, first)
    }

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
