import GatewayCore
import Testing
import Wire

/// A machine, and its effects since they were last read.
final class Stand {
    var machine: GatewayMachine
    var isFull = false
    private var nextPort: UInt16 = 40_000

    init(_ change: (inout GatewayMachine.Limits) -> Void = { _ in }) {
        var limits = GatewayMachine.Limits()
        change(&limits)
        self.machine = GatewayMachine(limits, ledger: PortLedger(namesPerAgent: limits.namesPerAgent))
    }

    func effects() -> [GatewayMachine.Effect] {
        var effects: [GatewayMachine.Effect] = []
        while let effect = self.machine.popEffect() { effects.append(effect) }
        return effects
    }

    /// The effects without log lines.
    func acts() -> [GatewayMachine.Effect] {
        self.effects().filter { if case .warn = $0 { false } else { true } }
    }

    func login(
        _ link: LinkID, _ identity: AgentIdentity, run: UInt64 = 1, maxNames: Int? = nil, maxLinks: Int = 4
    ) {
        let login = GatewayMachine.Login(
            identity: identity, payer: identity.id, run: run, maxNames: maxNames, canProbe: true)
        #expect(self.refusal(link, login, maxLinks: maxLinks) == nil)
    }

    func refusal(_ link: LinkID, _ login: GatewayMachine.Login, maxLinks: Int) -> ErrorCode? {
        self.machine.loggedIn(link, login, maxLinks: maxLinks)?.code
    }

    func register(
        _ link: LinkID, _ number: UInt16, _ name: String, port: UInt16 = 0, kind: Register.Kind = .tcp
    ) {
        self.machine.register(link, Register(exposure: number, kind: kind, port: port, name: name), now: 0)
    }

    func authorize(_ link: LinkID, _ number: UInt16, ports: [ClosedRange<UInt16>] = []) {
        let isFull = self.isFull
        self.machine.authorized(link, number: number, ports: ports, isFull: { _, _ in isFull }, now: 0)
    }

    /// Registers a name, from REGISTER to its publication.
    ///
    /// - Returns: the exposure; nil if the name was refused or moved.
    func have(_ link: LinkID, _ number: UInt16, _ name: String, port: UInt16 = 0) -> ExposureID? {
        self.register(link, number, name, port: port)
        self.authorize(link, number)
        for effect in self.effects() {
            guard case .open(let id, let request) = effect else { continue }
            self.nextPort += 1
            let port = request.wanted != 0 ? request.wanted : request.kept ?? self.nextPort
            self.machine.opened(id, port: port)
            self.machine.published(id, failure: nil)
            _ = self.effects()
            return id
        }
        return nil
    }
}
