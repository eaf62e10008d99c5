package import Metrics
internal import Reactor
internal import Tunnel

/// Bytes and streams of some links: of all those of a program, or of one name.
package struct Traffic: Equatable, Sendable {
    /// Streams that have a visitor and are not over.
    package internal(set) var streams = 0
    /// What visitors sent, as far as it was read for the link.
    package internal(set) var toBackend = Counter()
    /// What backends sent, as far as the visitors' sockets took it.
    package internal(set) var toVisitor = Counter()
}

/// Counts the traffic of one name, over however many links.
package final class NameMeter {
    package fileprivate(set) var traffic = Traffic()

    package init() {}
}

/// What the links of a gateway have done so far, and do.
package struct RelayFigures: Sendable {
    package fileprivate(set) var traffic = Traffic()
    /// Links whose sockets hold bytes at this moment that they could not send.
    package fileprivate(set) var congestedLinks = 0
    /// From the first byte that a link's socket did not take until it had taken all.
    package fileprivate(set) var queueDelay = Histogram(
        bounds: [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30])
    /// From a visitor's arrival to its agent's ACCEPT; version 1 has none.
    package fileprivate(set) var opening = Histogram(
        bounds: [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10])
    /// From a visitor's arrival to the first byte that it was sent.
    package fileprivate(set) var firstByte = Histogram(
        bounds: [0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60])
    /// How often limits were reached, by limit.
    package fileprivate(set) var limitHits = CounterTable<LimitHit>()

    package init() {}
}

/// Measures the links of a gateway while they run; each link adds to it.
package final class RelayMeter {
    package fileprivate(set) var figures = RelayFigures()

    package init() {}

    package func hit(_ limit: LimitHit, _ count: Int = 1) { self.figures.limitHits.add(limit, count: count) }
}

/// What a ``LinkSession`` tells its program's ``RelayMeter``. Costs some additions for each read and write of an edge,
/// and looks at the clock when a stream begins to move.
struct LinkMeter {
    private struct Slot {
        var name: NameMeter?
        /// Nanoseconds of the monotonic clock.
        var arrival: UInt64 = 0
        var awaitsAccept = false
        var awaitsByte = false
    }

    private let total: RelayMeter
    /// By the slot of the stream; without a name meter there is no visitor.
    private var slots: [Slot] = []

    init(_ total: RelayMeter) { self.total = total }

    mutating func opened(_ key: StreamKey, of name: NameMeter, arrival: UInt64) {
        while self.slots.count <= key.slot { self.slots.append(Slot()) }
        self.slots[key.slot] = Slot(name: name, arrival: arrival, awaitsAccept: true, awaitsByte: true)
        self.total.figures.traffic.streams += 1
        name.traffic.streams += 1
    }

    mutating func accepted(_ key: StreamKey) {
        guard key.slot < self.slots.count, self.slots[key.slot].awaitsAccept else { return }
        self.slots[key.slot].awaitsAccept = false
        self.total.figures.opening.observe(nanoseconds: EventLoop.nanoseconds &- self.slots[key.slot].arrival)
    }

    /// Bytes of a visitor were taken for the link.
    func taken(_ key: StreamKey, _ count: Int) {
        guard key.slot < self.slots.count, let name = self.slots[key.slot].name else { return }
        self.total.figures.traffic.toBackend.add(count)
        name.traffic.toBackend.add(count)
    }

    /// Bytes were handed to a visitor's socket.
    mutating func delivered(_ key: StreamKey, _ count: Int) {
        guard count > 0, key.slot < self.slots.count, let name = self.slots[key.slot].name else { return }
        self.total.figures.traffic.toVisitor.add(count)
        name.traffic.toVisitor.add(count)
        guard self.slots[key.slot].awaitsByte else { return }
        self.slots[key.slot].awaitsByte = false
        self.total.figures.firstByte.observe(nanoseconds: EventLoop.nanoseconds &- self.slots[key.slot].arrival)
    }

    func hit(_ limit: LimitHit, _ count: Int) { self.total.hit(limit, count) }

    mutating func closed(_ key: StreamKey) {
        guard key.slot < self.slots.count, let name = self.slots[key.slot].name else { return }
        self.slots[key.slot] = Slot()
        self.total.figures.traffic.streams -= 1
        name.traffic.streams -= 1
    }
}

/// What a ``LinkTransport`` tells its program's ``RelayMeter``. Looks at the clock when the socket is full.
struct TransportMeter {
    private let total: RelayMeter
    private var congestedSince: UInt64?

    init(_ total: RelayMeter) { self.total = total }

    func hit(_ limit: LimitHit) { self.total.hit(limit) }

    /// The socket was given bytes or has sent some, and holds so many now.
    mutating func queued(_ count: Int) {
        if count > 0 {
            guard self.congestedSince == nil else { return }
            self.congestedSince = EventLoop.nanoseconds
            self.total.figures.congestedLinks += 1
        } else if let since = self.congestedSince {
            self.congestedSince = nil
            self.total.figures.congestedLinks -= 1
            self.total.figures.queueDelay.observe(nanoseconds: EventLoop.nanoseconds &- since)
        }
    }
}
