package import Timing
package import Wire

/// Decides when an agent dials, registers, waits and stops.
///
/// ```
///            started            connected              welcomed
///   idle ───────────► dialling ───────────► linked ─────────────► up
///                        ▲ │ dialFailed        │ linkEnded          │ linkEnded
///      deadlineReached   │ ▼                   ▼                    ▼
///                       waiting ◄─────────────────────────────────
///   linked, up ── tokenRefused ──► awaitingToken ── tokenChanged ──► dialling
///   up ── linkDetached ──► waiting ── ... ──► linked ── resumed ──► up, or welcomed if the gateway has forgotten the link
///   any ── a permanent refusal, stopRequested ──► stopped
/// ```
///
/// The wait is random, from 0 to a maximum: 1 s, doubled with each failure up to 60 s ("full jitter"). A thousand
/// agents that lost the same gateway therefore do not return in step. A link that was up for 10 s, and for at least the
/// longest wait before it, resets the count. After GOAWAY(drain) the waits stay short for five minutes.
///
/// Call ``deadlineReached(now:)`` at ``nextDeadline``.
///
/// A refused name does not affect the others: ``WantedNames`` requests it again. The agent exits when all its names are
/// permanently refused.
package struct AgentMachine: Sendable {
    private enum State {
        case idle
        case dialling
        case linked
        case up(since: Milliseconds)
        /// `atItsRequest`: the gateway asked for this wait.
        case waiting(until: Milliseconds, atItsRequest: Bool)
        /// The token was refused. Waiting for a new one.
        case awaitingToken
        case stopped
    }

    /// What the driver must do next.
    package enum Action: Equatable, Sendable {
        case none
        /// Resolve the gateway's name again and connect.
        case dial
        /// Report that the next attempt is in this many milliseconds.
        case wait(Milliseconds)
        /// Send these requests.
        case register([Register])
        /// Unregister the names with these numbers.
        case unregister([UInt16])
        /// Report that the name is reachable. The address is text from the gateway: the driver validates it.
        case announce(WantedName, port: UInt16, address: String, note: String?)
        /// Report that the name is gone, or not registered yet and requested again later. Sent once for each reason.
        case missing(WantedName, ErrorCode, String)
        /// Close everything and exit.
        case stop(ExitReason, String)
    }

    /// The state that is shown to people.
    package enum Progress: Equatable, Sendable {
        case connecting
        /// Until the next attempt, or for a new token.
        case waiting
        case connected(names: Int)
    }

    private static let firstWait: Milliseconds = 1_000
    private static let maxWait: Milliseconds = 60_000
    /// A link that was up for this long, and for at least the longest wait before it, resets the waits. An agent thus
    /// returns within seconds to a gateway that restarts twice, but rarely to one that ends every link.
    private static let steadyAfter: Milliseconds = 10_000
    /// The longest wait after GOAWAY(drain), and how long it applies. Including the time to connect, the agent is back
    /// within 3 s after its gateway. Most restarts take less than five minutes.
    private static let maxHurriedWait: Milliseconds = 2_000
    private static let hurry: Milliseconds = 300_000
    /// The longest wait before the first attempt to resume a link. Random, because a thousand agents may have lost the
    /// same gateway.
    private static let maxFirstResume: Milliseconds = 500
    /// The shortest time between two waits that changes of the network cut short.
    private static let networkPause: Milliseconds = 10_000
    private static let networkPauseWhenDetached: Milliseconds = 1_000
    /// The agent tries again after this time even if the gateway requests a longer wait.
    private static let maxRetryAfterSeconds: UInt16 = 300

    /// Exit instead of reconnecting (`--once`).
    private let once: Bool
    private var state = State.idle
    private var names: WantedNames
    private var failures = 0
    /// Until when waits are short.
    private var hurriesUntil: Milliseconds = 0
    /// When the link came up that waits for its next connection; nil if none waits. Its names stay registered.
    private var detachedLink: Milliseconds?
    /// When a change of the network last cut a wait short.
    private var networkChangedAt: Milliseconds?
    /// The wait that the gateway requested, in seconds.
    private var retryAfterSeconds: UInt16 = 0

    /// - Parameter wantedNames: at most 65,536. The index of a name is its exposure number.
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

    /// When ``deadlineReached(now:)`` has work to do. Nil if that depends on other events.
    package var nextDeadline: Milliseconds? {
        switch self.state {
        case .waiting(let until, _): until
        case .up: self.names.nextDeadline
        case .idle, .dialling, .linked, .awaitingToken, .stopped: nil
        }
    }

    package mutating func deadlineReached(now: Milliseconds) -> [Action] {
        switch self.state {
        case .waiting(let until, _) where now >= until:
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

    /// The connection or the TLS handshake failed.
    ///
    /// - Parameter random: evenly distributed from 0 to `UInt64.max`.
    package mutating func dialFailed(_ text: String, now: Milliseconds, random: UInt64) -> Action {
        self.retry(text, now: now, random: random)
    }

    /// The gateway's key is not trusted.
    ///
    /// - Parameter reason: `configuration` if the file of known keys cannot be read.
    package mutating func keyRefused(_ text: String, reason: ExitReason = .wrongGatewayKey) -> Action {
        self.stop(reason, text)
    }

    package mutating func welcomed(_ welcome: Welcome, now: Milliseconds) -> [Action] {
        if case .stopped = self.state { return [] }
        self.linkForgotten()
        self.state = .up(since: now)
        let beyond = self.names.linkBegan(atMost: Int(welcome.maximumNames), now: now)
        if let ending = self.ending(beyond.first?.wanted, .tooManyNames, beyond.first?.text) { return [ending] }
        return [.register(self.names.dueRequests(now: now))]
            + beyond.map { .missing($0.wanted, .tooManyNames, $0.text) }
    }

    /// Replaces the wanted names. Unchanged names are not affected.
    package mutating func changed(to wantedNames: [WantedName], now: Milliseconds) -> [Action] {
        self.names.change(to: wantedNames, now: now)
        return self.deadlineReached(now: now)
    }

    /// The gateway granted or refused a name, or withdrew it.
    package mutating func registered(_ answer: Registered, now: Milliseconds) -> Action {
        // A link that seems to be stuck may still deliver answers.
        guard self.hasLink, let wanted = self.wanted(of: answer.exposure) else { return .none }
        guard answer.code != .none else {
            // Repeated answers are not reported.
            guard self.names.granted(answer) else { return .none }
            // Keep as much as the frame allows: a truncated address would be a different one.
            let (place, note) = answer.place
            return .announce(
                wanted, port: answer.port, address: PeerText.escaped(place, atMost: Registered.maximumText),
                note: note.map { PeerText.escaped($0) })
        }
        // GOAWAY(drain) announces the same for the whole link, and the agent then makes its next link.
        guard answer.code != .drain else { return .none }
        let text = answer.text.isEmpty ? "\(answer.code)" : PeerText.escaped(answer.text)
        let isNews = self.names.refused(answer.exposure, answer.code, text, now: now)
        return self.ending(wanted, answer.code, text) ?? (isNews ? .missing(wanted, answer.code, text) : .none)
    }

    /// The action that stops the agent if this refusal is permanent: for all its names, or with `--once` for this name.
    private mutating func ending(_ wanted: WantedName?, _ code: ErrorCode, _ text: String?) -> Action? {
        guard let wanted, let text else { return nil }
        let isFinal = self.once ? self.names.isFinalWithOnce(wanted, code) : self.names.areAllPermanentlyRefused
        guard isFinal, let reason = ExitReason(final: code) else { return nil }
        let isOne = self.once || self.names.count == 1
        let subject =
            isOne ? "the name '\(wanted.name)'" : "all \(self.names.count) names, most recently '\(wanted.name)'"
        return self.stop(reason, "the gateway refused \(subject): \(text)")
    }

    /// The gateway sent GOAWAY. The link ends or drains.
    package mutating func goAway(_ goAway: GoAway, now: Milliseconds) -> Action {
        self.retryAfterSeconds = min(goAway.retryAfterSeconds, Self.maxRetryAfterSeconds)
        // The gateway is restarting or being replaced and sends its own retry time, so the link has not failed.
        if goAway.code == .drain, case .up = self.state {
            self.failures = 0
            self.hurriesUntil = now + Milliseconds(self.retryAfterSeconds) * 1_000 + Self.hurry
        }
        guard let reason = ExitReason(final: goAway.code) else { return .none }
        return self.stop(reason, goAway.text.isEmpty ? "\(goAway.code)" : PeerText.escaped(goAway.text))
    }

    /// The gateway refused the token. The machine waits for ``tokenChanged()`` or until it is stopped.
    package mutating func tokenRefused(now: Milliseconds) {
        if case .stopped = self.state { return }
        self.forgetFailures(now: now)
        self.state = .awaitingToken
        self.linkForgotten()
        self.names.linkEnded()
        self.failures += 1
        self.retryAfterSeconds = 0
    }

    package mutating func tokenChanged() -> Action {
        guard case .awaitingToken = self.state else { return .none }
        self.state = .dialling
        return .dial
    }

    /// The connection of the link is gone, and the link waits for the next one. Its names stay registered.
    ///
    /// - Parameter window: how long the link waits, in milliseconds.
    package mutating func linkDetached(window: Milliseconds, now: Milliseconds, random: UInt64) -> Action {
        // Without `up` an attempt to replace the connection is under way already.
        guard case .up(let since) = self.state else { return .none }
        self.detachedLink = since
        self.failures = 0
        self.retryAfterSeconds = 0
        self.hurriesUntil = max(self.hurriesUntil, now + window)
        let wait = random % (Self.maxFirstResume + 1)
        self.state = .waiting(until: now + wait, atItsRequest: false)
        return .wait(wait)
    }

    /// The connection of the link answers nothing: makes another one beside it.
    package mutating func linkStuck(window: Milliseconds, now: Milliseconds) -> Action {
        guard case .up(let since) = self.state else { return .none }
        self.detachedLink = since
        self.failures = 0
        self.hurriesUntil = max(self.hurriesUntil, now + window)
        self.state = .dialling
        return .dial
    }

    /// The connection that seemed to be stuck moves again.
    package mutating func linkMoves(now: Milliseconds) -> [Action] {
        switch self.state {
        case .dialling, .linked, .waiting: break
        case .idle, .up, .awaitingToken, .stopped: return []
        }
        guard let since = self.detachedLink else { return [] }
        self.detachedLink = nil
        self.state = .up(since: since)
        return self.deadlineReached(now: now)
    }

    /// Whether there is a link, with or without a connection.
    private var hasLink: Bool {
        if case .up = self.state { true } else { self.detachedLink != nil }
    }

    /// This machine's addresses or routes have changed, or it woke up: tries again without waiting, unless the gateway
    /// requested the wait or the network changes all the time.
    package mutating func networkChanged(now: Milliseconds) -> Action {
        guard case .waiting(_, atItsRequest: false) = self.state else { return .none }
        let pause = self.detachedLink == nil ? Self.networkPause : Self.networkPauseWhenDetached
        if let last = self.networkChangedAt, now - last < pause { return .none }
        self.networkChangedAt = now
        self.state = .dialling
        return .dial
    }

    /// The link continues on the present connection.
    package mutating func resumed(now: Milliseconds) -> [Action] {
        guard case .linked = self.state, let since = self.detachedLink else { return [] }
        self.detachedLink = nil
        self.failures = 0
        self.state = .up(since: since)
        return self.deadlineReached(now: now)
    }

    /// The link that waited for a connection is over. The attempts to connect go on.
    package mutating func linkForgotten() {
        guard self.detachedLink != nil else { return }
        self.detachedLink = nil
        self.names.linkEnded()
    }

    /// The link has ended, for whatever reason.
    package mutating func linkEnded(_ text: String, now: Milliseconds, random: UInt64) -> Action {
        self.forgetFailures(now: now)
        return self.retry(text, now: now, random: random)
    }

    /// Resets the waits after a link that was up for long enough.
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
        if self.detachedLink == nil { self.names.linkEnded() }
        self.failures += 1
        let wait = random % (self.longestWait(now) + 1) + Milliseconds(self.retryAfterSeconds) * 1_000
        self.state = .waiting(until: now + wait, atItsRequest: self.retryAfterSeconds > 0)
        self.retryAfterSeconds = 0
        return .wait(wait)
    }

    /// The longest wait after the failures so far.
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
