package import Timing
package import Wire

/// When an agent dials, registers, waits and gives up.
///
/// ```
///            started            connected              welcomed
///   idle ───────────► dialling ───────────► linked ─────────────► up
///                        ▲ │ dialFailed        │ linkEnded          │ linkEnded
///      deadlineReached   │ ▼                   ▼                    ▼
///                       waiting ◄─────────────────────────────────
///   linked, up ── tokenRefused ──► awaitingToken ── tokenChanged ──► dialling
///   any ── a refusal that waiting cannot mend, stopRequested ──► stopped
/// ```
///
/// The wait is drawn evenly from 0 to 1 s doubled with each failure, at most 60 s ("full jitter"): a thousand agents
/// that lost the same gateway do not come back in step. A link that was up for 10 s, and for at least the longest wait
/// before it, resets the count. After GOAWAY(drain) the waits stay short for five minutes.
///
/// Call ``deadlineReached(now:)`` when ``nextDeadline`` has come.
///
/// A refused name does not affect the others: ``WantedNames`` requests it again. The agent exits when all its names are
/// permanently refused.
package struct AgentMachine: Sendable {
    private enum State {
        case idle
        case dialling
        case linked
        case up(since: Milliseconds)
        case waiting(until: Milliseconds)
        /// The token was refused; waiting for another one.
        case awaitingToken
        case stopped
    }

    /// What the driver has to do next.
    package enum Action: Equatable, Sendable {
        case none
        /// Resolve the gateway's name anew and connect.
        case dial
        /// Tell the user: the next attempt is after this many milliseconds.
        case wait(Milliseconds)
        /// Send these.
        case register([Register])
        /// Give the names with these numbers back.
        case unregister([UInt16])
        /// Tell the user: the name is reachable. The address is the gateway's text: the driver
        /// validates it.
        case announce(WantedName, port: UInt16, address: String)
        /// Tell the user: the name is gone, or not had yet and asked for again later. Said once for each reason.
        case missing(WantedName, ErrorCode, String)
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
    private static let maxWait: Milliseconds = 60_000
    /// A link that was up for this long, and for at least the longest wait before it, resets the waits. An agent thus
    /// returns within seconds to a gateway that is restarted twice, and seldom to one that ends every link.
    private static let steadyAfter: Milliseconds = 10_000
    /// The longest wait after GOAWAY(drain), and how long it applies. With the time to connect, the agent is back within
    /// 3 s of its gateway; most restarts take less than five minutes.
    private static let maxHurriedWait: Milliseconds = 2_000
    private static let hurry: Milliseconds = 300_000
    /// A gateway that is away for longer may be asked again.
    private static let maxRetryAfterSeconds: UInt16 = 300

    /// Give up instead of coming back.
    private let once: Bool
    private var state = State.idle
    private var names: WantedNames
    private var failures = 0
    /// Until when the waits are short.
    private var hurriesUntil: Milliseconds = 0
    /// The gateway's word on when to come back, in seconds.
    private var retryAfterSeconds: UInt16 = 0

    /// - Parameter wantedNames: at most 65,536; the index is the exposure's number.
    package init(wantedNames: [WantedName], once: Bool) {
        self.names = WantedNames(wantedNames)
        self.once = once
    }

    package func wanted(of exposure: UInt16) -> WantedName? { self.names.wanted(of: exposure) }

    package var progress: Progress {
        switch self.state {
        case .idle, .dialling, .linked, .stopped: .connecting
        case .up: .connected(names: self.names.reachableCount)
        case .waiting, .awaitingToken: .waiting
        }
    }

    package mutating func started() -> Action {
        self.state = .dialling
        return .dial
    }

    /// When ``deadlineReached(now:)`` has work to do; nil if that depends on other events.
    package var nextDeadline: Milliseconds? {
        switch self.state {
        case .waiting(let until): until
        case .up: self.names.nextDeadline
        case .idle, .dialling, .linked, .awaitingToken, .stopped: nil
        }
    }

    package mutating func deadlineReached(now: Milliseconds) -> [Action] {
        switch self.state {
        case .waiting(let until) where now >= until:
            self.state = .dialling
            return [.dial]
        case .up:
            let gone = self.names.dueReturns(now: now)
            let requests = self.names.dueRequests(now: now)
            return (gone.isEmpty ? [] : [.unregister(gone)]) + (requests.isEmpty ? [] : [.register(requests)])
        case .waiting, .idle, .dialling, .linked, .awaitingToken, .stopped: return []
        }
    }

    package mutating func connected() {
        guard case .dialling = self.state else { return }
        self.state = .linked
    }

    /// No connection, or no TLS.
    ///
    /// - Parameter random: evenly from 0 to `UInt64.max`.
    package mutating func dialFailed(_ text: String, now: Milliseconds, random: UInt64) -> Action {
        self.retry(text, now: now, random: random)
    }

    /// The gateway is not the one that was meant.
    ///
    /// - Parameter reason: `configuration` when the file of known keys cannot be read.
    package mutating func keyRefused(_ text: String, reason: ExitReason = .wrongGatewayKey) -> Action {
        self.stop(reason, text)
    }

    package mutating func welcomed(_ welcome: Welcome, now: Milliseconds) -> [Action] {
        if case .stopped = self.state { return [] }
        self.state = .up(since: now)
        let beyond = self.names.linkBegan(atMost: Int(welcome.maximumNames), now: now)
        if let ending = self.ending(beyond.first?.wanted, .tooManyNames, beyond.first?.text) { return [ending] }
        return [.register(self.names.dueRequests(now: now))]
            + beyond.map { .missing($0.wanted, .tooManyNames, $0.text) }
    }

    /// Replaces the wanted names. Unchanged names are not touched.
    package mutating func changed(to wantedNames: [WantedName], now: Milliseconds) -> [Action] {
        self.names.change(to: wantedNames, now: now)
        return self.deadlineReached(now: now)
    }

    /// The gateway's word about one name.
    package mutating func registered(_ answer: Registered, now: Milliseconds) -> Action {
        guard case .up = self.state, let wanted = self.wanted(of: answer.exposure) else { return .none }
        guard answer.code != .none else {
            // A repetition is not news.
            guard self.names.granted(answer) else { return .none }
            // As long as the frame allows: a cut address would be another address.
            let address = PeerText.escaped(answer.text, atMost: Registered.maximumText)
            return .announce(wanted, port: answer.port, address: address)
        }
        // GOAWAY says the same of the whole link, and leads to the next one.
        guard answer.code != .drain else { return .none }
        let text = answer.text.isEmpty ? "\(answer.code)" : PeerText.escaped(answer.text)
        let isNews = self.names.refused(answer.exposure, answer.code, text, now: now)
        return self.ending(wanted, answer.code, text) ?? (isNews ? .missing(wanted, answer.code, text) : .none)
    }

    /// The action that stops the agent, if this refusal is a reason to.
    private mutating func ending(_ wanted: WantedName?, _ code: ErrorCode, _ text: String?) -> Action? {
        guard let wanted, let text else { return nil }
        let isFinal = self.once ? self.names.isFinalWithOnce(wanted, code) : self.names.areAllPermanentlyRefused
        guard isFinal, let reason = ExitReason(final: code) else { return nil }
        let isOne = self.once || self.names.count == 1
        let subject =
            isOne ? "the name '\(wanted.name)'" : "all \(self.names.count) names, most recently '\(wanted.name)'"
        return self.stop(reason, "the gateway refused \(subject): \(text)")
    }

    /// The gateway said goodbye; the link ends or is drained.
    package mutating func goAway(_ goAway: GoAway, now: Milliseconds) -> Action {
        self.retryAfterSeconds = min(goAway.retryAfterSeconds, Self.maxRetryAfterSeconds)
        // It is restarted, or goes on elsewhere, and says itself when to come back: no failure of the link.
        if goAway.code == .drain, case .up = self.state {
            self.failures = 0
            self.hurriesUntil = now + Milliseconds(self.retryAfterSeconds) * 1_000 + Self.hurry
        }
        guard let reason = ExitReason(final: goAway.code) else { return .none }
        return self.stop(reason, goAway.text.isEmpty ? "\(goAway.code)" : PeerText.escaped(goAway.text))
    }

    /// The gateway refused the token. The machine waits for ``tokenChanged()`` or the end.
    package mutating func tokenRefused(now: Milliseconds) {
        if case .stopped = self.state { return }
        self.forgetFailures(now: now)
        self.state = .awaitingToken
        self.names.linkEnded()
        self.failures += 1
        self.retryAfterSeconds = 0
    }

    package mutating func tokenChanged() -> Action {
        guard case .awaitingToken = self.state else { return .none }
        self.state = .dialling
        return .dial
    }

    /// The link is over, whatever the reason.
    package mutating func linkEnded(_ text: String, now: Milliseconds, random: UInt64) -> Action {
        self.forgetFailures(now: now)
        return self.retry(text, now: now, random: random)
    }

    /// A link that was up for long enough resets the waits.
    private mutating func forgetFailures(now: Milliseconds) {
        guard case .up(let since) = self.state, now - since >= max(Self.steadyAfter, self.longestWait(now)) else {
            return
        }
        self.failures = 0
    }

    package mutating func stopRequested() -> Action {
        self.stop(.stopped, "stopped")
    }

    private mutating func retry(_ text: String, now: Milliseconds, random: UInt64) -> Action {
        if case .stopped = self.state { return .none }
        if self.once { return self.stop(.unavailable, text) }
        self.names.linkEnded()
        self.failures += 1
        let wait = random % (self.longestWait(now) + 1) + Milliseconds(self.retryAfterSeconds) * 1_000
        self.state = .waiting(until: now + wait)
        self.retryAfterSeconds = 0
        return .wait(wait)
    }

    /// After the failures so far.
    private func longestWait(_ now: Milliseconds) -> Milliseconds {
        guard self.failures > 0 else { return 0 }
        let longest = now < self.hurriesUntil ? Self.maxHurriedWait : Self.maxWait
        return min(longest, Self.firstWait << Milliseconds(min(self.failures - 1, 6)))
    }

    private mutating func stop(_ reason: ExitReason, _ text: String) -> Action {
        if case .stopped = self.state { return .none }
        self.state = .stopped
        return .stop(reason, text)
    }
}
