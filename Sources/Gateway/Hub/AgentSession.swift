internal import GatewayCore
internal import Modules
internal import Reactor
internal import Timing
internal import Tunnel
internal import Wire

/// A connection to the agent port, as the hub sees it: who it belongs to, and what its login grants.
final class AgentSession {
    enum State {
        /// Not logged in yet.
        case stranger
        /// The login is with the authenticator.
        case authenticating(any Cancellable)
        /// The login was refused; the agent gets the reason, and the connection ends.
        case refused
        /// Logged in.
        case up(LoginGrant)
        case closed
    }

    /// The state of the connection, as known to the hub.
    enum LinkState {
        case open
        /// It is ending or was ordered to end, and accepts nothing new.
        case ending
        /// It was ordered to close at once.
        case cut
    }

    let id: LinkID
    let isVersion1: Bool
    let createdAt: Milliseconds
    var label: AgentLabel
    /// The address that limits and penalties count.
    var source: Source
    /// Whether it has the rights of an agent on this machine.
    var isFromLoopback: Bool
    /// Whether the first message of its handshake has arrived.
    var hasGreeted = false
    var link = LinkState.open
    /// Since when it waits for its next connection, which probably comes from the same source; nil while it has one.
    var detachedSince: Milliseconds?
    var certificatePin: String?
    /// Whether the agent accepts notes in REGISTERED.
    var takesNotes = false
    var loginArrivedAt: Milliseconds = 0
    var refusalTimer: LoopTimer?
    var state = State.stranger {
        didSet { self.chargeQuestions() }
    }
    /// Requests about names that are with the authenticator.
    var questionCount = 0 {
        didSet { self.chargeQuestions() }
    }
    /// The charge for pending requests in the process's byte budget, which also counts the bytes of streams.
    private var questionShare: BudgetShare
    /// Minimum memory of a pending request, including what a module keeps: names, addresses and closures. A login also
    /// has its token.
    private static let questionBytes = 1_024
    private static let loginBytes = 4_096

    init(id: LinkID, peer: SocketAddress, source: Source, isVersion1: Bool, now: Milliseconds, budget: ByteBudget) {
        self.id = id
        self.isVersion1 = isVersion1
        self.createdAt = now
        self.label = AgentLabel(peer: peer)
        self.source = source
        self.isFromLoopback = peer.isLoopback
        self.questionShare = BudgetShare(budget)
    }

    private func chargeQuestions() {
        var count = self.questionCount * Self.questionBytes
        if case .authenticating = self.state { count += Self.loginBytes }
        self.questionShare.set(count)
    }

    /// The result of the login; nil before it and after the end.
    var grant: LoginGrant? {
        if case .up(let grant) = self.state { grant } else { nil }
    }

    var isEnding: Bool { self.link != .open }

    /// Whether the agent has logged in and the link is not ending.
    var isOpen: Bool { self.grant != nil && !self.isEnding }

    /// The key for rate limits on registrations and withdrawals: the identity, or the source of an agent that could
    /// evade limits per identity by creating new ones.
    func payer(of grant: LoginGrant) -> String {
        grant.identityIsFree && self.source.standing == .stranger ? self.source.text : grant.identity
    }
}
