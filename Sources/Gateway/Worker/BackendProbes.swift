internal import Reactor
internal import Relay
internal import Timing
internal import Tunnel
internal import Wire

/// Probes the backends of a link's exposures before they are published: opens a stream without a visitor, and resets it
/// once the agent has connected to the backend.
final class BackendProbes {
    /// Between two probes of a backend that does not accept connections.
    private static let pause: Milliseconds = 2_000

    private let link: LinkSession
    private var running: [StreamKey: Exposure] = [:]
    /// Successful probes whose stream has not ended yet.
    private var answered: Set<StreamKey> = []
    /// Exposures to probe, and when.
    private var waiting: [(exposure: Exposure, due: Milliseconds)] = []

    init(link: LinkSession) { self.link = link }

    /// Probes an exposure from now on, until its backend accepts a connection.
    func begin(_ exposure: Exposure) {
        self.waiting.append((exposure, self.link.loop.now))
        self.tick()
    }

    /// The exposure is gone or has moved to another link.
    func forget(_ exposure: Exposure) {
        self.waiting.removeAll { $0.exposure === exposure }
        for (key, probed) in self.running where probed === exposure { self.running[key] = nil }
    }

    /// Starts probes that are due. Call about once a second.
    func tick() {
        guard self.link.isOpen else { return }
        let now = self.link.loop.now
        for (exposure, due) in self.waiting where due <= now {
            let edge = self.link.open(exposure: exposure.number, visitor: .none, local: .none, socket: nil)
            guard let edge else { continue }
            self.waiting.removeAll { $0.exposure === exposure }
            self.running[edge.key] = exposure
        }
    }

    /// Whether an accepted stream is a probe. If so, the backend is reachable, and the stream is reset.
    func wasAccepted(_ key: StreamKey) -> Bool {
        guard self.running[key] != nil else { return false }
        self.answered.insert(key)
        self.link.abort(key, .none)
        return true
    }

    enum End {
        case answered(Exposure)
        /// It will be probed again.
        case silent(Exposure)
        /// The result is no longer needed.
        case forgotten
    }

    /// The stream of a probe has ended.
    func ended(_ edge: Edge) -> End {
        let hasAnswered = self.answered.remove(edge.key) != nil
        guard let exposure = self.running.removeValue(forKey: edge.key) else { return .forgotten }
        if hasAnswered { return .answered(exposure) }
        self.waiting.append((exposure, self.link.loop.now + Self.pause))
        return .silent(exposure)
    }
}
