package import Metrics
internal import Reactor
internal import Tunnel

/// Traffic of all links of a program, or of one name.
package struct Traffic: Equatable, Sendable {
    /// Open streams with a visitor.
    package internal(set) var streams = 0
    /// Bytes read from visitors for the link.
    package internal(set) var toBackend = Counter()
    /// Bytes from backends that visitors' sockets have taken.
    package internal(set) var toVisitor = Counter()
}

/// Counts the traffic of one name over all its links.
package final class NameMeter {
    package fileprivate(set) var traffic = Traffic()

    package init() {}
}

/// Counters and current state of a gateway's links. Histograms are in seconds.
package struct RelayFigures: Sendable {
    package fileprivate(set) var traffic = Traffic()
    /// Links whose sockets have queued bytes now.
    package fileprivate(set) var congestedLinks = 0
    /// Time from the first byte that a link's socket did not take until the queue was empty.
    package fileprivate(set) var queueDelay = Histogram(
        bounds: [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30])
    /// Time from a visitor's arrival to its agent's ACCEPT, which version 1 does not have.
    package fileprivate(set) var opening = Histogram(
        bounds: [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10])
    /// Time from a visitor's arrival to the first byte sent to it.
    package fileprivate(set) var firstByte = Histogram(
        bounds: [0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60])
    /// Time that links were without a connection before they were resumed.
    package fileprivate(set) var pause = Histogram(
        bounds: [0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300])
    /// Bytes that were sent again to agents whose links were resumed.
    package fileprivate(set) var resent = Counter()
    /// How often each limit was hit.
    package fileprivate(set) var limitHits = CounterTable<LimitHit>()

    package init() {}
}

/// Collects the figures of a gateway's links. All links share it.
package final class RelayMeter {
    package fileprivate(set) var figures = RelayFigures()

    package init() {}

    package func hit(_ limit: LimitHit, _ count: Int = 1) { self.figures.limitHits.add(limit, count: count) }
}

/// Adds the figures of one ``LinkSession`` to the program's ``RelayMeter``. Costs a few additions for each read and
/// write of an edge. Reads the clock only at a stream's ACCEPT and first byte.
struct LinkMeter {
    private struct Slot {
        var name: NameMeter?
        /// Nanoseconds of the monotonic clock.
        var arrival: UInt64 = 0
        var awaitsAccept = false
        var awaitsByte = false
    }

    private let total: RelayMeter
    /// Indexed by stream slot. A slot without a name meter has no visitor.
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

    /// Bytes were read from a visitor for the link.
    func taken(_ key: StreamKey, _ count: Int) {
        guard key.slot < self.slots.count, let name = self.slots[key.slot].name else { return }
        self.total.figures.traffic.toBackend.add(count)
        name.traffic.toBackend.add(count)
    }

    /// A visitor's socket took bytes.
    mutating func delivered(_ key: StreamKey, _ count: Int) {
        guard count > 0, key.slot < self.slots.count, let name = self.slots[key.slot].name else { return }
        self.total.figures.traffic.toVisitor.add(count)
        name.traffic.toVisitor.add(count)
        guard self.slots[key.slot].awaitsByte else { return }
        self.slots[key.slot].awaitsByte = false
        self.total.figures.firstByte.observe(nanoseconds: EventLoop.nanoseconds &- self.slots[key.slot].arrival)
    }

    func hit(_ limit: LimitHit, _ count: Int) { self.total.hit(limit, count) }

    /// - Parameter milliseconds: how long the link had no connection.
    func resumed(after milliseconds: UInt64) { self.total.figures.pause.observe(nanoseconds: milliseconds * 1_000_000) }

    func resent(_ bytes: Int) { self.total.figures.resent.add(bytes) }

    mutating func closed(_ key: StreamKey) {
        guard key.slot < self.slots.count, let name = self.slots[key.slot].name else { return }
        self.slots[key.slot] = Slot()
        self.total.figures.traffic.streams -= 1
        name.traffic.streams -= 1
    }
}

/// Adds the figures of one ``LinkTransport`` to the program's ``RelayMeter``. Reads the clock only when the socket's
/// queue fills or empties.
struct TransportMeter {
    private let total: RelayMeter
    private var congestedSince: UInt64?

    init(_ total: RelayMeter) { self.total = total }

    func hit(_ limit: LimitHit) { self.total.hit(limit) }

    /// Records the number of bytes in the socket's queue after a write or a send.
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
