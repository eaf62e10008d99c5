package import Timing
package import Wire

/// What an agent wants to expose.
package struct Wish: Equatable, Sendable {
    package let name: Name
    /// The wanted public port, or 0.
    package let port: UInt16

    package init(name: Name, port: UInt16) {
        self.name = name
        self.port = port
    }
}

/// When an agent dials, registers, waits and gives up.
///
/// ```
///            started            connected              welcomed
///   idle ───────────► dialling ───────────► linked ─────────────► up
///                        ▲ │ dialFailed        │ linkEnded          │ linkEnded
///           timerFired   │ ▼                   ▼                    ▼
///                       waiting ◄─────────────────────────────────
///   any ── a refusal that waiting cannot mend, stopRequested ──► stopped
/// ```
///
/// The wait is drawn evenly from 0 to 1 s doubled with each failure, at most 60 s ("full jitter"): a thousand agents
/// that lost the same gateway do not come back in step. A link that was up for 10 s, and for as long as
/// the longest wait before it, starts the count anew.
package struct AgentMachine: Sendable {
    private enum State {
        case idle
        case dialling
        case linked
        case up(since: Milliseconds)
        case waiting
        case stopped
    }

    /// What the driver has to do next.
    package enum Action: Equatable, Sendable {
        case none
        /// Resolve the gateway's name anew and connect.
        case dial
        /// Call `timerFired` after this many milliseconds.
        case wait(Milliseconds)
        /// Send these.
        case register([Register])
        /// Tell the user: the name is reachable. The address is the gateway's text: the driver
        /// validates it.
        case announce(Wish, port: UInt16, address: String)
        /// Tell the user: the name is gone, or not had yet and asked for again later.
        case missing(Wish, ErrorCode, String)
        /// Close everything and end.
        case stop(ExitReason, String)
    }

    /// How far it has come, for people.
    package enum Progress: Equatable, Sendable {
        case connecting
        /// Until the next attempt.
        case waiting
        case connected(names: Int)
    }

    private static let firstWait: Milliseconds = 1_000
    private static let mostWait: Milliseconds = 60_000
    /// A link that was up for this long, and for at least the longest wait before it, resets the waits. An agent thus
    /// returns within seconds to a gateway that is restarted twice, and seldom to one that ends every link.
    private static let steadyAfter: Milliseconds = 10_000
    /// A name that was ours and is refused now is asked for again after this time.
    private static let askAgainAfter: Milliseconds = 30_000

    private let wishes: [Wish]
    /// Give up instead of coming back.
    private let once: Bool
    private var state = State.idle
    private var failures = 0
    /// Exposures that were registered at least once: a name that was ours and is taken now may come back.
    private var wasRegistered: Set<UInt16> = []
    /// Exposures that are reachable now, with what the gateway said of them.
    private var reachable: [UInt16: Registered] = [:]
    /// When to ask again for names that are missing.
    private var askAgain: [UInt16: Milliseconds] = [:]
    /// A gateway that is away for longer may be asked again.
    private static let mostRetryAfterSeconds: UInt16 = 300

    /// The gateway's word on when to come back, in seconds.
    private var retryAfterSeconds: UInt16 = 0

    /// - Parameter wishes: at most 65,536; the index is the exposure's number.
    package init(wishes: [Wish], once: Bool) {
        self.wishes = wishes
        self.once = once
    }

    package func wish(of exposure: UInt16) -> Wish? {
        Int(exposure) < self.wishes.count ? self.wishes[Int(exposure)] : nil
    }

    package var progress: Progress {
        switch self.state {
        case .idle, .dialling, .linked, .stopped: .connecting
        case .up: .connected(names: self.reachable.count)
        case .waiting: .waiting
        }
    }

    package mutating func started() -> Action {
        self.state = .dialling
        return .dial
    }

    package mutating func timerFired() -> Action {
        guard case .waiting = self.state else { return .none }
        self.state = .dialling
        return .dial
    }

    package mutating func connected() {
        guard case .dialling = self.state else { return }
        self.state = .linked
    }

    /// No connection, or no TLS.
    ///
    /// - Parameter random: evenly from 0 to `UInt64.max`.
    package mutating func dialFailed(_ text: String, random: UInt64) -> Action {
        self.retry(text, random: random)
    }

    /// The gateway is not the one that was meant.
    ///
    /// - Parameter reason: `configuration` when the file of known keys cannot be read.
    package mutating func keyRefused(_ text: String, reason: ExitReason = .wrongGatewayKey) -> Action {
        self.stop(reason, text)
    }

    package mutating func welcomed(_ welcome: Welcome, now: Milliseconds) -> Action {
        guard self.wishes.count <= Int(welcome.maximumNames) else {
            return self.stop(
                .nameRefused,
                "the gateway allows \(welcome.maximumNames) names on a link and \(self.wishes.count) are wanted: "
                    + "start another agent for the rest")
        }
        self.state = .up(since: now)
        self.reachable = [:]
        self.askAgain = [:]
        return .register(self.wishes.indices.map { self.request(UInt16($0)) })
    }

    /// The gateway's word about one name.
    package mutating func registered(_ answer: Registered, now: Milliseconds) -> Action {
        guard let wish = self.wish(of: answer.exposure) else { return .none }
        guard answer.code != .none else {
            self.wasRegistered.insert(answer.exposure)
            // A repetition is not news.
            guard self.reachable.updateValue(answer, forKey: answer.exposure) != answer else { return .none }
            // As long as the frame allows: a cut address would be another address.
            let address = PeerText.escaped(answer.text, most: Registered.maximumText)
            return .announce(wish, port: answer.port, address: address)
        }
        self.reachable[answer.exposure] = nil
        let text = answer.text.isEmpty ? "\(answer.code)" : PeerText.escaped(answer.text)
        switch answer.code {
        case .drain:
            // GOAWAY says the same of the whole link, and leads to the next one.
            return .none
        case .replaced, .conflict:
            return .missing(wish, answer.code, text)
        case .withdrawn, .revoked:
            // What was taken away may be given back.
            self.askAgain[answer.exposure] = now + Self.askAgainAfter
            return .missing(wish, answer.code, text)
        default:
            if let reason = ExitReason(final: answer.code), !self.wasRegistered.contains(answer.exposure) {
                return self.stop(reason, "the gateway refused the name '\(wish.name)': \(text)")
            }
            self.askAgain[answer.exposure] = now + Self.askAgainAfter
            return .missing(wish, answer.code, text)
        }
    }

    /// Call it about once a second while a link is up.
    package mutating func tick(now: Milliseconds) -> Action {
        guard case .up = self.state else { return .none }
        let due = self.askAgain.filter { $0.value <= now }.keys.sorted()
        guard !due.isEmpty else { return .none }
        for exposure in due { self.askAgain[exposure] = nil }
        return .register(due.map { self.request($0) })
    }

    private func request(_ exposure: UInt16) -> Register {
        let wish = self.wishes[Int(exposure)]
        return Register(exposure: exposure, port: wish.port, name: wish.name.text)
    }

    /// The gateway said goodbye; the link ends or is drained.
    package mutating func goAway(_ goAway: GoAway) -> Action {
        self.retryAfterSeconds = min(goAway.retryAfterSeconds, Self.mostRetryAfterSeconds)
        // It is restarted, or goes on elsewhere, and says itself when to come back: no failure of the link.
        if goAway.code == .drain, case .up = self.state { self.failures = 0 }
        guard let reason = ExitReason(final: goAway.code) else { return .none }
        return self.stop(reason, goAway.text.isEmpty ? "\(goAway.code)" : PeerText.escaped(goAway.text))
    }

    /// The link is over, whatever the reason.
    package mutating func linkEnded(_ text: String, now: Milliseconds, random: UInt64) -> Action {
        if case .up(let since) = self.state, now - since >= max(Self.steadyAfter, self.longestWait) {
            self.failures = 0
        }
        return self.retry(text, random: random)
    }

    package mutating func stopRequested() -> Action {
        self.stop(.stopped, "stopped")
    }

    private mutating func retry(_ text: String, random: UInt64) -> Action {
        if case .stopped = self.state { return .none }
        if self.once { return self.stop(.unavailable, text) }
        self.state = .waiting
        self.reachable = [:]
        self.failures += 1
        let wait = random % (self.longestWait + 1) + Milliseconds(self.retryAfterSeconds) * 1_000
        self.retryAfterSeconds = 0
        return .wait(wait)
    }

    /// After the failures so far.
    private var longestWait: Milliseconds {
        self.failures == 0 ? 0 : min(Self.mostWait, Self.firstWait << Milliseconds(min(self.failures - 1, 6)))
    }

    private mutating func stop(_ reason: ExitReason, _ text: String) -> Action {
        if case .stopped = self.state { return .none }
        self.state = .stopped
        return .stop(reason, text)
    }
}
