internal import AgentCore
internal import Journal
internal import Logging
internal import Secure
internal import Settings

/// Whether the gateway's key is the right one: by the pins, by what is known, or by asking.
final class KeyCheck {
    /// Why a key is not taken, and how the program ends; without a reason it tries again.
    struct Refusal {
        let reason: ExitReason?
        let text: String
    }

    private let settings: AgentSettings
    private let state: StateDirectory
    private let logger: Logger
    /// How to ask about an unknown key; nil without a terminal.
    private let ask: Question?
    static let file = "known_gateways"
    private var path: String { self.state.file(Self.file) }
    /// Damaged lines that the log has.
    private var reportedDamage: Set<String> = []
    /// A key that the person at the terminal has just confirmed.
    private var confirmedPin: String?

    init(settings: AgentSettings, state: StateDirectory, logger: Logger, ask: Question?) {
        self.settings = settings
        self.state = state
        self.logger = logger
        self.ask = ask
    }

    /// Why the key is not taken, if so.
    ///
    /// - Parameters:
    ///   - verdict: what the system's authorities make of the certificate.
    ///   - isLoopback: whether the gateway is on this machine.
    func refusal(of pin: String, _ verdict: ChannelPeer.SystemVerdict, isLoopback: Bool) -> Refusal? {
        let isTrustedBySystem = verdict == .trusted
        let gateway = self.settings.gateway.description
        if case .untrusted(let reason) = verdict, self.settings.pins.isEmpty {
            self.logger.debug("the system's certificate authorities do not trust \(gateway): \(reason)")
        }
        // The file is looked at only if it matters: a broken one is no reason to refuse a pinned key.
        let isSettled = !self.settings.pins.isEmpty || isTrustedBySystem || self.confirmedPin == pin
        var known: KnownGateways?
        do throws(SettingsError) { if !isSettled { known = try KnownGateways(path: self.path) } } catch {
            return Refusal(reason: .configuration, text: error.description)
        }
        let damage = known?.damage(near: gateway)
        if let damage { self.report(damage) }
        func judge(_ entry: KnownGateways.Entry?) -> GatewayTrust.Verdict {
            GatewayTrust.judge(
                gateway: gateway, pins: self.settings.pins, shown: pin, isTrustedBySystem: isTrustedBySystem,
                dateFault: Self.dateFault(verdict), known: entry?.pin ?? self.confirmedPin,
                knownAt: "\(self.path):\(entry?.line ?? 0)", damagedAt: damage, isLoopback: isLoopback,
                hasTerminal: self.ask != nil)
        }
        switch judge(known?.entry(of: gateway)) {
        case .accept: return nil
        case .refuse(let text): return Refusal(reason: .wrongGatewayKey, text: text)
        case .wait(let text): return Refusal(reason: nil, text: text)
        case .acceptWithWarning(let text):
            self.logger.warning("\(text)", metadata: .about([.gateway: gateway]))
            return nil
        case .ask:
            let text =
                "The key of \(gateway) is new:\n  \(pin)\n"
                + "Does the gateway print the same pin when it starts?"
            guard self.ask?(text) ?? false else {
                return Refusal(reason: .wrongGatewayKey, text: "the key \(pin) of \(gateway) was not accepted")
            }
            // The gateway may have closed the link by now; the next link will not ask.
            self.confirmedPin = pin
        case .acceptAndRemember: break
        }
        do throws(SettingsError) {
            let entry = try KnownGateways.remember(gateway, pin: pin, path: self.path)
            // Another agent may have met another key at the same moment.
            if case .refuse(let text) = judge(entry) { return Refusal(reason: .wrongGatewayKey, text: text) }
        } catch {
            self.logger.warning(
                "cannot remember the key of \(gateway): \(error)", metadata: .about([.gateway: gateway]))
        }
        return nil
    }

    /// What is wrong with the dates, if nothing else is wrong with the certificate.
    private static func dateFault(_ verdict: ChannelPeer.SystemVerdict) -> String? {
        // A machine without a battery for its clock begins in 1970.
        let clock = "check this machine's clock, which shows \(Timestamp.text(Timestamp.now))"
        switch verdict {
        case .trusted, .untrusted: return nil
        case .expired(let time?): return "expired on \(Timestamp.text(time)): renew it at the gateway, or \(clock)"
        case .expired(nil):
            return "has an expired authority in its chain: renew the chain at the gateway, or \(clock)"
        case .notYetValid(let time?): return "is not valid before \(Timestamp.text(time)): \(clock)"
        case .notYetValid(nil): return "has an authority in its chain that is not valid yet: \(clock)"
        }
    }

    /// Once for each place, and not with each link.
    private func report(_ damage: String) {
        guard self.reportedDamage.insert(damage).inserted else { return }
        self.logger.warning(
            "\(damage): the line is damaged: delete it, or write HOST:PORT sha256/PIN")
    }
}
