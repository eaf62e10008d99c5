internal import Control
internal import GatewayCore
internal import Reactor
internal import Relay
internal import Tunnel
internal import Wire

/// A visitor's stream, as the gateway knows it from the beginning.
struct Visit {
    let visitor: Visitor
    let name: Name
    let agent: AgentIdentity
}

/// Whether a link can take a visitor.
enum LinkRoom { case free, soon, none }

/// Who visits what over one link: lets visitors in, and makes room for them.
final class LinkVisits {
    private let link: LinkSession
    private unowned let worker: Worker
    /// To give the place back, and to say so at the end.
    private var visits: [StreamKey: Visit] = [:]
    /// Streams that are being ended to make room for others of this link.
    private var leaving: Set<StreamKey> = []

    init(link: LinkSession, worker: Worker) {
        self.link = link
        self.worker = worker
    }

    subscript(key: StreamKey) -> Visit? { self.visits[key] }

    /// Looks for room in the link. When as many streams run as may, one that is stalled is ended for the newcomer, which
    /// has to wait until its place is free.
    ///
    /// - Parameter atMost: streams of the agent, as its authenticator says.
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

    /// Opens a stream for an admitted visitor. If the link has no room, the visitor is reset and no longer counts.
    ///
    /// - Parameters:
    ///   - first: bytes that were read already.
    ///   - atMost: streams of the agent, as its authenticator says.
    /// - Returns: the visitor's edge; nil when it was refused.
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

    /// A visitor's stream is over: its place is free.
    func ended(_ key: StreamKey) {
        guard let visit = self.visits.removeValue(forKey: key) else { return }
        self.leaving.remove(key)
        self.worker.visitors.left(visit.visitor.source, to: visit.agent)
    }
}
