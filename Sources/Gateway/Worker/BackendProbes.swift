internal import Reactor
internal import Relay
internal import Timing
internal import Tunnel
internal import Wire

/// Finds out, for one link, whether the backends of its exposures answer, before these are published: opens a stream
/// for no visitor, and takes it back when the agent has connected the backend.
final class BackendProbes {
    /// Between two probes of a backend that does not answer.
    private static let pause: Milliseconds = 2_000

    private let link: LinkSession
    private var running: [StreamKey: Exposure] = [:]
    /// Those that have answered, until their stream is gone.
    private var answered: Set<StreamKey> = []
    private var waiting: [(exposure: Exposure, due: Milliseconds)] = []

    init(link: LinkSession) { self.link = link }

    func begin(_ exposure: Exposure) {
        self.waiting.append((exposure, self.link.loop.now))
        self.tick()
    }

    /// The exposure is gone or belongs to another link.
    func forget(_ exposure: Exposure) {
        self.waiting.removeAll { $0.exposure === exposure }
        for (key, probed) in self.running where probed === exposure { self.running[key] = nil }
    }

    /// Call it about once a second.
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

    /// Whether the stream is a probe's, whose backend is connected now; it is taken back.
    func wasAccepted(_ key: StreamKey) -> Bool {
        guard self.running[key] != nil else { return false }
        self.answered.insert(key)
        self.link.abort(key, .none)
        return true
    }

    enum End {
        case answered(Exposure)
        /// It will be asked again.
        case silent(Exposure)
        /// Nobody waits for it any more.
        case forgotten
    }

    /// The stream of a probe is over.
    func ended(_ edge: Edge) -> End {
        let hasAnswered = self.answered.remove(edge.key) != nil
        guard let exposure = self.running.removeValue(forKey: edge.key) else { return .forgotten }
        if hasAnswered { return .answered(exposure) }
        self.waiting.append((exposure, self.link.loop.now + Self.pause))
        return .silent(exposure)
    }
}
