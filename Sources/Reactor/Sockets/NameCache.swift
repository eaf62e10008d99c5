internal import CUV
import Glibc

/// Resolves host names for one loop, and limits the damage of a slow or dead resolver.
///
/// - Each name and family has at most one query at a time, shared by all lookups that wait for it.
/// - After a good answer for one family, the other has only 50 ms left (RFC 8305, 3).
/// - The last good answer is kept. It is used if a query fails or takes longer than a second.
/// - A query blocks a thread, for half a minute if the resolver is dead. The number of parallel queries ("lanes") is
///   therefore limited, and two lanes are reserved for the gateway's own name.
package final class NameCache {
    package enum Family: CaseIterable, Sendable { case six, four }

    /// Starts a query. The completion is called once, never from inside the call.
    package typealias Query = (
        _ host: String, _ family: Family, _ completion: @escaping (Result<[SocketAddress], UVError>) -> Void
    ) -> Void

    /// How long one family waits for the other (RFC 8305, 3: Resolution Delay).
    package static let restMilliseconds: UInt64 = 50
    /// How long a query may take before the last good answer is used.
    package static let patienceMilliseconds: UInt64 = 1_000
    /// How long an answer is used without a new query. getaddrinfo(3) does not report the TTL.
    package static let freshMilliseconds: UInt64 = 1_000

    private struct Key: Hashable {
        let host: String
        let family: Family
    }

    /// The cached answers for a name.
    private struct Entry {
        /// The latest good answers.
        var addresses: [Family: [SocketAddress]] = [:]
        /// Families for which the resolver has since reported no address.
        var gone: Set<Family> = []
        /// When the last good answer arrived.
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

    /// - Parameter lanes: maximum number of parallel queries.
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

    /// libuv gives name resolutions at most half of its threads.
    private static var defaultLanes: Int {
        let threads = getenv("UV_THREADPOOL_SIZE").flatMap { Int(String(cString: $0)) } ?? 4
        return (min(max(threads, 1), 1_024) + 1) / 2
    }

    /// Sizes libuv's thread pool, up to 64 threads, to resolve this many names in parallel, both families of each. Call
    /// it before the first loop is created. UV_THREADPOOL_SIZE in the environment takes precedence.
    package static func reserveThreads(names: Int) {
        // Reserve more than needed now: names may be added, and an idle thread costs little.
        setenv("UV_THREADPOOL_SIZE", "\(min(max(4 * names, 32), 64))", 0)
    }

    /// Lets the queries of this name use the reserved lanes, so that they do not wait for those of other names.
    package func giveOwnLane(to host: String) { self.ownLanes.insert(host) }

    /// Looks up a name. `completion` is called once, never from inside this call.
    ///
    /// The addresses have port 0. The families alternate, starting with IPv6 (RFC 8305, 4).
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
        // If no family has an address any more, use the old ones: a resolver fault is more likely than a removed name.
        let families = present.isEmpty ? Family.allCases : present
        return Resolver.alternating(families.flatMap { entry.addresses[$0] ?? [] })
    }

    fileprivate func forget(_ lookup: NameLookup) {
        self.lookups[lookup.host]?[ObjectIdentifier(lookup)] = nil
        if self.lookups[lookup.host]?.isEmpty == true { self.lookups[lookup.host] = nil }
    }

    fileprivate var owner: EventLoop { self.loop }

    private func startQueries() {
        // With more than two lanes, reserve two for `ownLanes`: one name queries both families.
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

/// A pending lookup of a name.
package final class NameLookup {
    let host: String
    /// Families whose query has not answered yet.
    fileprivate var awaited: Set<NameCache.Family> = []
    /// Weak because the cache owns its lookups.
    private weak var cache: NameCache?
    private var completion: ((Result<[SocketAddress], UVError>) -> Void)?
    private var timer: LoopTimer?
    /// The error of the family that failed first.
    private var error: UVError?

    fileprivate init(
        cache: NameCache, host: String, completion: @escaping (Result<[SocketAddress], UVError>) -> Void
    ) {
        self.cache = cache
        self.host = host
        self.completion = completion
    }

    /// Cancels the lookup. The completion will not be called.
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
