internal import GatewayCore
internal import Relay
internal import Timing
internal import Tunnel
internal import Wire

/// Ends streams whose peer accepts no bytes, longest-stalled first, when memory or room for visitors runs short. A
/// stall alone does not end a stream here: `stall-timeout` does that.
final class StalledStreams {
    /// A stream is not ended before it has stalled for this long.
    static let minMilliseconds: Milliseconds = 2_000
    /// Minimum time between two scans of all streams.
    private static let searchMilliseconds: Milliseconds = 500
    /// Above this share of the budget streams are ended, until less than `lowWater` is used.
    static let highWater = (9, of: 10)
    private static let lowWater = (8, of: 10)
    /// Streams ended per second because of memory.
    private static let maxPerTick = 256

    /// A link and its agent.
    typealias Owned = (agent: AgentIdentity, link: LinkSession)
    private struct Found {
        let link: LinkSession
        let key: StreamKey
        let since: Milliseconds
    }

    /// Stalled streams of the last scan by agent, the longest-stalled last, because they are taken from the end.
    private var found: [AgentIdentity: [Found]] = [:]
    private var searchedAt: Milliseconds?

    /// Ends the longest-stalled stream, of one agent or of all.
    ///
    /// - Returns: the stream's agent; nil if no such stream is stalled.
    func endOldest(of agent: AgentIdentity? = nil, among links: () -> [Owned], now: Milliseconds) -> AgentIdentity? {
        if let ended = self.endFound(of: agent) { return ended }
        if let searched = self.searchedAt, now - searched < Self.searchMilliseconds { return nil }
        self.search(links(), now)
        return self.endFound(of: agent)
    }

    private func endFound(of agent: AgentIdentity?) -> AgentIdentity? {
        func longest() -> AgentIdentity? {
            self.found.min { ($0.value.last?.since ?? .max) < ($1.value.last?.since ?? .max) }?.key
        }
        while let agent = agent ?? longest(), let next = self.found[agent]?.popLast() {
            if self.found[agent]?.isEmpty ?? false { self.found[agent] = nil }
            // It may have made progress or ended since the scan.
            guard next.link.isStalled(next.key, since: next.since) else { continue }
            next.link.abort(next.key, .stalled)
            return agent
        }
        return nil
    }

    private func search(_ links: [Owned], _ now: Milliseconds) {
        self.searchedAt = now
        self.found = [:]
        guard now >= Self.minMilliseconds else { return }
        for (agent, link) in links {
            for (key, since) in link.stalledStreams(before: now - Self.minMilliseconds) {
                self.found[agent, default: []].append(Found(link: link, key: key, since: since))
            }
        }
        for agent in self.found.keys { self.found[agent]?.sort { $0.since > $1.since } }
    }

    static func isShort(_ budget: ByteBudget) -> Bool {
        budget.used >= budget.limit / Self.highWater.of * Self.highWater.0
    }

    /// Ends stalled streams while memory is short, and returns how many. Call about once a second.
    func relieve(_ budget: ByteBudget, among links: () -> [Owned], now: Milliseconds) -> Int {
        guard Self.isShort(budget) else { return 0 }
        // The last scan is out of date.
        self.found = [:]
        self.searchedAt = nil
        var count = 0
        while count < Self.maxPerTick, budget.used >= budget.limit / Self.lowWater.of * Self.lowWater.0,
            self.endOldest(among: links, now: now) != nil
        {
            count += 1
        }
        return count
    }
}
