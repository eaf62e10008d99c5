import Reactor
import TestSupport

/// The network between the two ends of a link. It passes bytes on in random pieces, with random delays, and may
/// break.
final class SeededWire: SocketListenerDelegate {
    /// How the connection breaks.
    enum Break: CaseIterable { case resetsBoth, resetsAgent, resetsGateway, endsBoth, swallows }

    /// The socket of one end, and the bytes queued for it.
    private final class End: SocketStreamDelegate {
        let stream: SocketStream
        private unowned let wire: SeededWire
        var waiting: [UInt8] = []
        var hasEnded = false
        var isClosed = false

        init(_ stream: SocketStream, _ wire: SeededWire) {
            self.stream = stream
            self.wire = wire
            stream.delegate = self
            stream.startReading()
        }

        func readAllowance(_ stream: SocketStream) -> Int { self.wire.isFull(beyond: self) ? 0 : 64 * 1024 }
        func socketStream(_ stream: SocketStream, didRead bytes: UnsafeRawBufferPointer) {
            self.wire.received(Array(bytes), from: self)
        }
        func socketStreamDidReachEnd(_ stream: SocketStream) {
            self.hasEnded = true
            self.wire.pump()
        }
        func socketStream(_ stream: SocketStream, didWrite count: Int) {}
        func socketStream(_ stream: SocketStream, didFail error: UVError) { self.wire.failed(self) }
        func socketStreamDidClose(_ stream: SocketStream) { self.isClosed = true }
    }

    private let loop: EventLoop
    private let listener: SocketListener
    private let gateway: UInt16
    private var generator: SeededGenerator
    /// Breaks after this many bytes, both directions together; nil: never.
    private let cut: (bytes: Int, how: Break)?
    private var carried = 0
    private var ends: [End] = []
    private var connector: Connector?
    private var timer: LoopTimer?
    private(set) var isBroken = false

    var port: UInt16 { self.listener.port }

    /// - Parameter gateway: the port to which it connects.
    init(loop: EventLoop, to gateway: UInt16, seed: UInt64, cut: (bytes: Int, how: Break)?) throws {
        self.loop = loop
        self.gateway = gateway
        self.generator = SeededGenerator(seed: seed)
        self.cut = cut
        self.listener = try SocketListener(loop: loop, address: .loopback4(port: 0))
        self.listener.delegate = self
        self.timer = LoopTimer(loop: loop) { [unowned self] in self.pump() }
    }

    func listener(_ listener: SocketListener, didAccept stream: SocketStream) {
        self.ends.append(End(stream, self))
        self.connector = Connector.connect(
            loop: self.loop, to: .host("127.0.0.1", port: self.gateway), timeout: 5_000
        ) { [unowned self] result in
            guard let stream = try? result.get() else { return self.breakNow(.resetsBoth) }
            self.ends.append(End(stream, self))
            self.pump()
        }
    }

    func listener(_ listener: SocketListener, didFail error: UVError) {}

    private func other(_ end: End) -> End? { self.ends.first { $0 !== end } }

    private func isFull(beyond end: End) -> Bool { self.other(end).map { $0.waiting.count > 256 * 1024 } ?? false }

    private func received(_ bytes: [UInt8], from end: End) {
        // Both ends get no error for swallowed bytes.
        guard !self.isBroken else { return }
        if let other = self.other(end) { other.waiting += bytes } else { self.early += bytes }
        self.pump()
    }

    /// Bytes that arrived before the other side was connected.
    private var early: [UInt8] = []

    /// Passes some of the bytes on, and sets a timer for the rest.
    private func pump() {
        guard self.ends.count == 2, !self.isBroken else { return }
        self.ends[1].waiting = self.early + self.ends[1].waiting
        self.early = []
        for end in self.ends where end.stream.isOpen {
            let most = min(end.waiting.count, [1, 100, 5_000, 100_000].randomElement(using: &self.generator) ?? 1)
            let count = most == 0 ? 0 : Int.random(in: 0...most, using: &self.generator)
            if count > 0 {
                _ = end.waiting[..<count].withUnsafeBytes { end.stream.write($0) }
                end.waiting.removeFirst(count)
                self.carried += count
            }
            if end.waiting.isEmpty, self.other(end)?.hasEnded == true { end.stream.shutdownWriting() }
            self.other(end)?.stream.startReading()
        }
        if let cut = self.cut, self.carried >= cut.bytes { return self.breakNow(cut.how) }
        guard self.ends.contains(where: { !$0.waiting.isEmpty }) else { return }
        self.timer?.start(after: UInt64.random(in: 0...1, using: &self.generator))
    }

    /// One of the two programs has ended the connection, so the other gets a reset.
    private func failed(_ end: End) {
        end.stream.close()
        guard !self.isBroken else { return }
        self.breakNow(.resetsBoth)
    }

    private func breakNow(_ how: Break) {
        self.isBroken = true
        let (agent, gateway) = (self.ends.first, self.ends.dropFirst().first)
        switch how {
        case .resetsBoth: for end in self.ends { end.stream.reset() }
        case .resetsAgent:
            agent?.stream.reset()
            gateway?.stream.close()
        case .resetsGateway:
            agent?.stream.close()
            gateway?.stream.reset()
        case .endsBoth: for end in self.ends { end.stream.shutdownWriting() }
        case .swallows: break
        }
    }

    func close() {
        self.connector?.cancel()
        self.timer?.close()
        self.timer = nil
        self.listener.close()
        for end in self.ends { end.stream.close() }
    }
}
