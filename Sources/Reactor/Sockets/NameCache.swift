internal import CUV
import Glibc

/// Resolves host names for one loop, and limits the damage of a slow or dead resolver.
///
/// - For each name and family there is one query at a time, however many wait for it.
/// - The families do not wait for each other: once one has an answer, the other has 50 ms more (RFC 8305, 3).
/// - The last good answer is kept. It is used when a query fails, and when it takes longer than a second.
/// - A query blocks a thread, for half a minute if the resolver is dead. So their number is bounded, and two lanes are
///   reserved for the gateway's own name.
package final class NameCache {
    package enum Family: CaseIterable, Sendable { case six, four }

    /// Starts a query; the completion is called once, never from inside the call.
    package typealias Query = (
        _ host: String, _ family: Family, _ completion: @escaping (Result<[SocketAddress], UVError>) -> Void
    ) -> Void

    /// How long one family waits for the other (RFC 8305, 3: Resolution Delay).
    package static let restMilliseconds: UInt64 = 50
    /// How long a query may take before the last good answer is used.
    package static let patienceMilliseconds: UInt64 = 1_000
    /// How long an answer is used without a new query: getaddrinfo(3) does not tell how long it holds.
    package static let freshMilliseconds: UInt64 = 1_000

    private struct Key: Hashable {
        let host: String
        let family: Family
    }

    /// What is known of a name.
    private struct Entry {
        /// The latest good answers.
        var addresses: [Family: [SocketAddress]] = [:]
        /// Families of which the resolver has said since that there is none.
        var gone: Set<Family> = []
        /// When an answer came last.
        var answeredAt: UInt64?
    }

    private unowned let loop: EventLoop
    private let lanes: Int
    private let query: Query
    private var entries: [String: Entry] = [:]
    private var running: Set<Key> = []
    private var queued: [Key] = []
    private var ownLanes: Set<String> = []
    private var lookups: [String: [ObjectIdentifier: NameLookup]] = [:]

    /// - Parameter lanes: queries at once.
    package init(loop: EventLoop, lanes: Int, query: @escaping Query) {
        self.loop = loop
        self.lanes = max(lanes, 1)
        self.query = query
    }

    convenience init(loop: EventLoop) {
        self.init(loop: loop, lanes: Self.defaultLanes) { [unowned loop] host, family, completion in
            do throws(UVError) {
                _ = try Resolver.resolve(loop: loop, host: host, family: family, completion: completion)
            } catch {
                let failure = error
                loop.atTurnEnd(Late { completion(.failure(failure)) })
            }
        }
    }

    /// libuv lets name resolutions have half of its threads.
    private static var defaultLanes: Int {
        let threads = getenv("UV_THREADPOOL_SIZE").flatMap { Int(String(cString: $0)) } ?? 4
        return (min(max(threads, 1), 1_024) + 1) / 2
    }

    /// Sizes libuv's thread pool so that this many names can be resolved in parallel, both families of each. Call it
    /// before the first loop is created. A UV_THREADPOOL_SIZE in the environment takes precedence.
    package static func reserveThreads(names: Int) {
        // Some more than needed now, as names may be added; one that has nothing to do costs little.
        setenv("UV_THREADPOOL_SIZE", "\(min(max(4 * names, 32), 64))", 0)
    }

    /// The queries of this name do not wait for those of others.
    package func giveOwnLane(to host: String) { self.ownLanes.insert(host) }

    /// Looks up a name; `completion` is called once and never from inside this call.
    ///
    /// The addresses have no port. IPv6 comes first, and the families take turns (RFC 8305, 4).
    package func lookUp(
        _ host: String, completion: @escaping (Result<[SocketAddress], UVError>) -> Void
    ) -> NameLookup {
        let lookup = NameLookup(cache: self, host: host, completion: completion)
        self.lookups[host, default: [:]][ObjectIdentifier(lookup)] = lookup
        if let answeredAt = self.entries[host]?.answeredAt, self.loop.now - answeredAt < Self.freshMilliseconds {
            lookup.finishLater(after: 0)
            return lookup
        }
        lookup.awaited = Set(Family.allCases)
        if !self.known(host).isEmpty { lookup.finishLater(after: Self.patienceMilliseconds) }
        for family in Family.allCases {
            let key = Key(host: host, family: family)
            if !self.running.contains(key), !self.queued.contains(key) { self.queued.append(key) }
        }
        self.startQueries()
        return lookup
    }

    fileprivate func known(_ host: String) -> [SocketAddress] {
        guard let entry = self.entries[host] else { return [] }
        let present = Family.allCases.filter { !entry.gone.contains($0) && entry.addresses[$0] != nil }
        // A name that has vanished is more likely a fault of the resolver than the end of the service.
        let families = present.isEmpty ? Family.allCases : present
        return Resolver.alternating(families.flatMap { entry.addresses[$0] ?? [] })
    }

    fileprivate func forget(_ lookup: NameLookup) {
        self.lookups[lookup.host]?[ObjectIdentifier(lookup)] = nil
        if self.lookups[lookup.host]?.isEmpty == true { self.lookups[lookup.host] = nil }
    }

    fileprivate var owner: EventLoop { self.loop }

    private func startQueries() {
        // One name's two queries are kept for those with lanes of their own, where there are enough.
        let kept = self.ownLanes.isEmpty || self.lanes <= 2 ? 0 : 2
        while let index = self.queued.firstIndex(where: { key in
            self.running.count < (self.ownLanes.contains(key.host) ? self.lanes : self.lanes - kept)
        }) {
            let key = self.queued.remove(at: index)
            self.running.insert(key)
            self.query(key.host, key.family) { [weak self] result in self?.answered(key, result) }
        }
    }

    private func answered(_ key: Key, _ result: Result<[SocketAddress], UVError>) {
        self.running.remove(key)
        switch result {
        case .success(let addresses):
            self.entries[key.host, default: Entry()].addresses[key.family] = addresses
            self.entries[key.host]?.gone.remove(key.family)
            self.entries[key.host]?.answeredAt = self.loop.now
        case .failure(let error) where error.isNoSuchName: self.entries[key.host]?.gone.insert(key.family)
        case .failure: break
        }
        for lookup in (self.lookups[key.host] ?? [:]).values { lookup.answered(key.family, result) }
        self.startQueries()
    }
}

/// Calls a closure at the end of the turn.
private final class Late: TurnEndHandler {
    private let body: () -> Void

    init(_ body: @escaping () -> Void) { self.body = body }

    func turnDidEnd() { self.body() }
}

/// A caller that waits for a name.
package final class NameLookup {
    let host: String
    /// Families whose query is awaited.
    fileprivate var awaited: Set<NameCache.Family> = []
    /// Weak, as the cache owns its lookups.
    private weak var cache: NameCache?
    private var completion: ((Result<[SocketAddress], UVError>) -> Void)?
    private var timer: LoopTimer?
    /// Of the family that failed first.
    private var error: UVError?

    fileprivate init(
        cache: NameCache, host: String, completion: @escaping (Result<[SocketAddress], UVError>) -> Void
    ) {
        self.cache = cache
        self.host = host
        self.completion = completion
    }

    /// The completion will not be called any more.
    package func cancel() {
        self.completion = nil
        self.timer?.close()
        self.timer = nil
        self.cache?.forget(self)
    }

    fileprivate func finishLater(after milliseconds: UInt64) {
        guard let cache = self.cache else { return }
        let timer = self.timer ?? LoopTimer(loop: cache.owner) { [weak self] in self?.finish() }
        self.timer = timer
        timer.start(after: milliseconds)
    }

    fileprivate func answered(_ family: NameCache.Family, _ result: Result<[SocketAddress], UVError>) {
        guard self.awaited.remove(family) != nil else { return }
        switch result {
        case .success:
            if self.awaited.isEmpty { self.finish() } else { self.finishLater(after: NameCache.restMilliseconds) }
        case .failure(let error):
            self.error = self.error ?? error
            if self.awaited.isEmpty { self.finish() }
        }
    }

    private func finish() {
        guard let completion = self.completion else { return }
        let addresses = self.cache?.known(self.host) ?? []
        let error = self.error ?? .timedOut
        self.cancel()
        completion(addresses.isEmpty ? .failure(error) : .success(addresses))
    }
}
