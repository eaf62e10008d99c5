internal import Timing
package import Wire

/// A name that an agent wants to expose.
package struct WantedName: Equatable, Sendable {
    package let name: Name
    /// The requested public port, or 0 for any.
    package let port: UInt16

    package init(name: Name, port: UInt16) {
        self.name = name
        self.port = port
    }
}

/// The names that an agent wants: which of them are registered, and when to request the others again.
///
/// Each name has an exposure number and keeps it from link to link. A free number is reused only after all others, so a
/// late answer or stream cannot be taken for another name's.
struct WantedNames: Sendable {
    private enum State: Sendable {
        /// No link is up.
        case idle
        /// To be requested from this time on.
        case due(Milliseconds)
        /// REGISTER was sent.
        case requested
        /// Reachable, with the gateway's answer.
        case granted(Registered)
        /// To be requested again from this time on; nil: not on this link.
        case refused(ErrorCode, again: Milliseconds?)
    }

    private struct Entry: Sendable {
        let wanted: WantedName
        var state: State
        /// The name was registered at least once, so no refusal is permanent.
        var wasOurs = false
        /// Refusals since the last grant.
        var refusals = 0
        /// The reason of the latest refusal on this link, as reported to the user.
        var reported: String?

        /// When to request the name.
        var due: Milliseconds? {
            switch self.state {
            case .due(let time): time
            case .refused(_, let again): again
            case .idle, .requested, .granted: nil
            }
        }

        var isRequested: Bool {
            if case .requested = self.state { true } else { false }
        }

        var grant: Registered? {
            if case .granted(let answer) = self.state { answer } else { nil }
        }

        var refusal: ErrorCode? {
            if case .refused(let code, _) = self.state { code } else { nil }
        }

        /// The name counts against the link's limit: it is registered, or may be soon.
        var takesPlace: Bool {
            switch self.state {
            case .requested, .granted: true
            case .idle, .due, .refused: false
            }
        }
    }

    /// After temporary trouble at the gateway, for example a port in use: 1 s, doubled each time up to 30 s.
    private static let firstPause: Milliseconds = 1_000
    /// Another agent has the name, or the name was withdrawn. Either may change at any time.
    private static let pause: Milliseconds = 30_000
    /// The name is not allowed. That changes only with the gateway's configuration.
    private static let longPause: Milliseconds = 300_000
    /// How many REGISTER and UNREGISTER frames a gateway accepts on a link before it ends the link with
    /// GOAWAY(glitches) (docs/protocol.md).
    private static let registrations: (least: Int, perSecond: Int) = (32, 1)

    private var entries: [UInt16: Entry] = [:]
    /// In the order of the configuration.
    private var order: [UInt16] = []
    private var nextNumber: UInt16 = 0
    /// Exposure numbers for which UNREGISTER is still to be sent.
    private var toGiveBack: [UInt16] = []
    private var maxNames = 0
    private var bucket = TokenBucket(burst: 0, perSecond: 0, now: 0)

    init(_ wantedNames: [WantedName]) {
        for wanted in wantedNames { self.add(wanted, .idle) }
    }

    var count: Int { self.order.count }

    var reachableCount: Int { self.entries.values.count { $0.grant != nil } }

    func wanted(of number: UInt16) -> WantedName? { self.entries[number]?.wanted }

    private mutating func add(_ wanted: WantedName, _ state: State) {
        while self.entries[self.nextNumber] != nil || self.toGiveBack.contains(self.nextNumber) {
            self.nextNumber &+= 1
        }
        self.entries[self.nextNumber] = Entry(wanted: wanted, state: state)
        self.order.append(self.nextNumber)
        self.nextNumber &+= 1
    }

    /// A link is up: the names that fit become due. Names that were registered before come first.
    ///
    /// - Returns: the names that do not fit.
    mutating func linkBegan(atMost: Int, now: Milliseconds) -> [(wanted: WantedName, text: String)] {
        self.linkEnded()
        self.maxNames = atMost
        self.bucket = TokenBucket(
            burst: max(Self.registrations.least, 2 * atMost) - 1, perSecond: Self.registrations.perSecond, now: now)
        let ours = self.order.filter { self.entries[$0]?.wasOurs == true }
        let others = self.order.filter { self.entries[$0]?.wasOurs != true }
        for number in (ours + others).prefix(atMost) { self.entries[number]?.state = .due(now) }
        return (ours + others).dropFirst(atMost).compactMap { number in
            let text = "the gateway allows \(atMost) names per link: start another agent for the rest"
            self.refused(number, .tooManyNames, text, now: now)
            return self.wanted(of: number).map { ($0, text) }
        }
    }

    mutating func linkEnded() {
        self.toGiveBack = []
        for number in self.order {
            self.entries[number]?.state = .idle
            self.entries[number]?.reported = nil
        }
    }

    /// Replaces the wanted names. New ones are due at once; removed ones are queued for UNREGISTER.
    mutating func change(to wantedNames: [WantedName], now: Milliseconds) {
        let gone = self.order.filter { number in !wantedNames.contains { $0 == self.entries[number]?.wanted } }
        for number in gone {
            if self.entries[number]?.takesPlace == true { self.toGiveBack.append(number) }
            self.entries[number] = nil
        }
        let kept = self.order.filter { self.entries[$0] != nil }
        self.order = []
        for wanted in wantedNames {
            if let number = kept.first(where: { self.entries[$0]?.wanted == wanted }) {
                self.order.append(number)
            } else {
                self.add(wanted, .due(now))
            }
        }
        // Removed names may have made room.
        for number in self.order where self.entries[number]?.refusal == .tooManyNames {
            self.entries[number]?.state = .refused(.tooManyNames, again: now)
        }
    }

    /// Takes the numbers for which UNREGISTER is due, at most as many as the gateway accepts now.
    mutating func dueReturns(now: Milliseconds) -> [UInt16] {
        var numbers: [UInt16] = []
        while let number = self.toGiveBack.first, self.bucket.take(now: now) {
            self.toGiveBack.removeFirst()
            numbers.append(number)
        }
        return numbers
    }

    /// - Returns: whether the answer is new.
    mutating func granted(_ answer: Registered) -> Bool {
        guard var entry = self.entries[answer.exposure], entry.grant != answer else { return false }
        entry.state = .granted(answer)
        entry.wasOurs = true
        entry.refusals = 0
        entry.reported = nil
        self.entries[answer.exposure] = entry
        return true
    }

    /// - Parameter text: the reason, for the user.
    /// - Returns: whether the reason is new.
    @discardableResult
    mutating func refused(_ number: UInt16, _ code: ErrorCode, _ text: String, now: Milliseconds) -> Bool {
        guard var entry = self.entries[number] else { return false }
        let isNews = entry.reported != text
        entry.state = .refused(code, again: Self.pause(after: code, refusals: entry.refusals).map { now + $0 })
        entry.refusals += 1
        entry.reported = text
        self.entries[number] = entry
        // The other excess names would get the same answer.
        for other in self.order where code == .tooManyNames && self.entries[other]?.refusal == code {
            self.entries[other]?.state = .refused(code, again: now + Self.longPause)
        }
        return isNews
    }

    /// How long to wait before a name is requested again; nil: not on this link.
    private static func pause(after code: ErrorCode, refusals: Int) -> Milliseconds? {
        switch code {
        // A newer link of the same agent has it.
        case .replaced, .conflict: nil
        case .withdrawn, .revoked, .nameTaken: self.pause
        case .portTaken: self.growing(refusals)
        default: ExitReason(final: code) == nil ? self.growing(refusals) : self.longPause
        }
    }

    private static func growing(_ refusals: Int) -> Milliseconds {
        min(self.firstPause << Milliseconds(min(refusals, 5)), self.pause)
    }

    /// Whether a name is permanently refused.
    private static func isFinal(_ entry: Entry) -> Bool {
        guard let code = entry.refusal, !entry.wasOurs, code != .portTaken else { return false }
        return ExitReason(final: code) != nil
    }

    var areAllPermanentlyRefused: Bool { self.entries.values.allSatisfy(Self.isFinal) }

    /// The same for one name with `--once`, where a port in use is permanent too.
    func isFinalWithOnce(_ wanted: WantedName, _ code: ErrorCode) -> Bool {
        guard let entry = self.entries.values.first(where: { $0.wanted == wanted }) else { return false }
        return code == .portTaken && !entry.wasOurs || Self.isFinal(entry)
    }

    /// Takes the REGISTER frames that are due, at most as many as the gateway accepts now.
    mutating func dueRequests(now: Milliseconds) -> [Register] {
        // A name whose port changes is unregistered before it is requested again.
        guard self.toGiveBack.isEmpty else { return [] }
        var places = self.places
        var requests: [Register] = []
        for number in self.dueNumbers(now: now) {
            guard self.mayAsk(for: number, places), self.bucket.take(now: now), let wanted = self.wanted(of: number)
            else { break }
            places -= 1
            self.entries[number]?.state = .requested
            requests.append(Register(exposure: number, port: wanted.port, name: wanted.name.text))
        }
        return requests
    }

    /// How many more names the link may have.
    private var places: Int { self.maxNames - self.entries.values.count { $0.takesPlace } }

    /// Whether a due name may be requested: there is room, or no request is pending and an excess name tests the limit
    /// again. The answer also decides for the other excess names.
    private func mayAsk(for number: UInt16, _ places: Int) -> Bool {
        guard places <= 0 else { return true }
        return self.entries[number]?.refusal == .tooManyNames
            && !self.entries.values.contains { $0.isRequested }
    }

    /// When the next REGISTER or UNREGISTER can be sent. Nil if that depends on answers from the gateway.
    var nextDeadline: Milliseconds? {
        guard let token = self.bucket.nextToken else { return nil }
        if !self.toGiveBack.isEmpty { return token }
        let first = self.order.compactMap { number in
            (self.entries[number]?.due).map { (time: $0, number: number) }
        }.min { $0.time < $1.time }
        guard let first, self.mayAsk(for: first.number, self.places) else { return nil }
        return max(first.time, token)
    }

    /// The due names. Those that have waited longest come first.
    private func dueNumbers(now: Milliseconds) -> [UInt16] {
        let due = self.order.enumerated().compactMap { index, number in
            (self.entries[number]?.due).map { (time: $0, index: index, number: number) }
        }
        return due.filter { $0.time <= now }.sorted { ($0.time, $0.index) < ($1.time, $1.index) }.map(\.number)
    }
}
