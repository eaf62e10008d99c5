internal import GatewayCore
internal import Modules
internal import Reactor
internal import Timing
internal import Tunnel
internal import Wire

/// One connection to the agent port, as the hub knows it: whose it is, and what its login is good for.
final class AgentSession {
    enum State {
        case stranger
        /// The authenticator is at work.
        case authenticating(any Cancellable)
        /// The agent hears why, and the connection ends.
        case refused
        case up(LoginGrant)
        case closed
    }

    /// The connection, as far as the hub knows.
    enum LinkState {
        case open
        /// It ends, or was ordered to end: it takes nothing new.
        case ending
        /// It was ordered to close at once.
        case cut
    }

    let id: LinkID
    let isVersion1: Bool
    let createdAt: Milliseconds
    var label: AgentLabel
    /// The source that limits and penalties count.
    var source: Source
    /// Whether it has the rights of the gateway's own machine.
    var isFromLoopback: Bool
    /// Whether the first message of its handshake has arrived.
    var hasGreeted = false
    var link = LinkState.open
    var certificatePin: String?
    var loginArrivedAt: Milliseconds = 0
    var refusalTimer: LoopTimer?
    var state = State.stranger {
        didSet { self.chargeQuestions() }
    }
    /// To the authenticator, about names.
    var questionCount = 0 {
        didSet { self.chargeQuestions() }
    }
    /// Questions that wait for the authenticator count as the bytes of streams do.
    private var questionShare: BudgetShare
    /// A question with what a module keeps of it, at least: names, addresses and closures; and a login, with its token.
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

    /// What its login is good for; nil before it, and after the end.
    var grant: LoginGrant? {
        if case .up(let grant) = self.state { grant } else { nil }
    }

    var isEnding: Bool { self.link != .open }

    /// Whether an agent has logged in and the link does not end.
    var isOpen: Bool { self.grant != nil && !self.isEnding }

    /// The key under which registrations and withdrawals are counted: the identity, or the source of an agent that can
    /// create identities at will and so evade limits of one identity.
    func payer(of grant: LoginGrant) -> String {
        grant.identityIsFree && self.source.standing == .stranger ? self.source.text : grant.identity
    }
}
