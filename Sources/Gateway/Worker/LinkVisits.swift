internal import Control
internal import GatewayCore
internal import Reactor
internal import Relay
internal import Tunnel
internal import Wire

/// What the gateway knows about a visitor's stream from the start.
struct Visit {
    let visitor: Visitor
    let name: Name
    let agent: AgentIdentity
}

/// Whether a link has room for a visitor: now, soon (a stream is being ended to make room), or not.
enum LinkRoom { case free, soon, none }

/// The visitors of one link: opens streams for them, and makes room if the link is full.
final class LinkVisits {
    private let link: LinkSession
    private unowned let worker: Worker
    /// Visits by stream, to release their places and report their end.
    private var visits: [StreamKey: Visit] = [:]
    /// Streams of this link that are being ended to make room.
    private var leaving: Set<StreamKey> = []

    init(link: LinkSession, worker: Worker) {
        self.link = link
        self.worker = worker
    }

    subscript(key: StreamKey) -> Visit? { self.visits[key] }

    /// Looks for room in the link. If the link is full, ends its longest-stalled stream; the new visitor has to wait
    /// for that place.
    ///
    /// - Parameter atMost: the authenticator's limit on the agent's streams; nil if it set none.
    func room(atMost: Int?) -> LinkRoom {
        guard self.link.streamCount >= atMost ?? .max || !self.link.makeRoom() else { return .free }
        guard self.leaving.isEmpty else { return .soon }
        let before = self.link.loop.now - min(StalledStreams.minMilliseconds, self.link.loop.now)
        let stalled = self.link.stalledStreams(before: before).min { $0.since < $1.since }
        guard let (key, _) = stalled else { return .none }
        self.leaving.insert(key)
        self.worker.metrics.hit(.visitors)
        self.link.abort(key, .stalled)
        return .soon
    }

    /// Opens a stream for an admitted visitor. If the link is full, the visitor is reset and no longer counts.
    ///
    /// - Parameters:
    ///   - first: bytes already read from the visitor; valid during the call.
    ///   - atMost: the authenticator's limit on the agent's streams; nil if it set none.
    /// - Returns: the visitor's edge; nil if the visitor was refused.
    func letIn(
        _ visitor: Visitor, _ stream: SocketStream, first: UnsafeRawBufferPointer?, at exposure: Exposure, atMost: Int?
    ) -> Edge? {
        if let atMost, self.link.streamCount >= atMost {
            self.worker.metrics.visitor(.agentLimit)
            self.refuse(visitor, stream, at: exposure, "the agent has \(atMost) streams already")
            return nil
        }
        let address = visitor.address.map { WireAddress($0) } ?? .none
        let local = visitor.local.map { WireAddress($0) } ?? .none
        guard self.link.isOpen, self.link.makeRoom(),
            let edge = self.link.open(
                exposure: exposure.number, visitor: address, local: local, socket: stream,
                meter: (exposure.meter, visitor.arrival))
        else {
            self.worker.metrics.visitor(.agentFull)
            self.refuse(visitor, stream, at: exposure, "the agent accepts no more streams")
            return nil
        }
        self.visits[edge.key] = Visit(visitor: visitor, name: exposure.name, agent: exposure.identity)
        self.worker.metrics.visitor(.admitted)
        if let first { edge.send(first: first) }
        return edge
    }

    private func refuse(_ visitor: Visitor, _ stream: SocketStream, at exposure: Exposure, _ reason: String) {
        self.worker.visitors.left(visitor.source, to: exposure.identity)
        exposure.log("\(visitor) of '\(exposure.name)' refused: \(reason)", visitor)
        stream.reset()
    }

    /// A visitor's stream has ended: releases its place.
    func ended(_ key: StreamKey) {
        guard let visit = self.visits.removeValue(forKey: key) else { return }
        self.leaving.remove(key)
        self.worker.visitors.left(visit.visitor.source, to: visit.agent)
    }
}
