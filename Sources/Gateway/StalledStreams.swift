internal import Relay
internal import Timing
internal import Tunnel
internal import Wire

/// Ends the streams that wait for a peer which takes nothing, the longest-stalled first, when room or memory runs
/// short. A pause alone is not a reason.
final class StalledStreams {
    /// A stream that has waited for less is not ended for others.
    static let leastMilliseconds: Milliseconds = 2_000
    /// Between two searches through all streams.
    private static let searchMilliseconds: Milliseconds = 500
    /// Of the budget: from here on streams are ended, until less than the other part is used.
    static let highWater = (9, of: 10)
    private static let lowWater = (8, of: 10)
    /// Streams that are ended in a second for the sake of memory.
    private static let mostPerTick = 256

    private var found: [(connection: LinkConnection, key: StreamKey, since: Milliseconds)] = []
    private var searchedAt: Milliseconds?

    /// Ends the stream that has waited the longest; false if no stream is stalled.
    func endOldest(among connections: () -> [LinkConnection], now: Milliseconds) -> Bool {
        if self.found.isEmpty {
            if let searched = self.searchedAt, now - searched < Self.searchMilliseconds { return false }
            self.search(connections(), now)
        }
        while let next = self.found.popLast() {
            // It may have got ahead, or ended, since the search.
            guard next.connection.isStalled(next.key, since: next.since) else { continue }
            next.connection.abort(next.key, .stalled)
            return true
        }
        return false
    }

    private func search(_ connections: [LinkConnection], _ now: Milliseconds) {
        self.searchedAt = now
        guard now >= Self.leastMilliseconds else { return }
        for connection in connections {
            for (key, since) in connection.stalledStreams(before: now - Self.leastMilliseconds) {
                self.found.append((connection, key, since))
            }
        }
        // The longest at the end, from where they are taken.
        self.found.sort { $0.since > $1.since }
    }

    /// Ends streams while memory is short; call it about once a second. Returns how many that were.
    func relieve(_ budget: ByteBudget, among connections: () -> [LinkConnection], now: Milliseconds) -> Int {
        guard budget.used >= budget.limit / Self.highWater.of * Self.highWater.0 else { return 0 }
        // What was found before is old.
        self.found = []
        self.searchedAt = nil
        var count = 0
        while count < Self.mostPerTick, budget.used >= budget.limit / Self.lowWater.of * Self.lowWater.0,
            self.endOldest(among: connections, now: now)
        {
            count += 1
        }
        return count
    }
}
