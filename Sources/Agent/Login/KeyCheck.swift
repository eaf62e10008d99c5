internal import AgentCore
internal import Journal
internal import Logging
internal import Secure
internal import Settings

/// Checks whether to trust the gateway's key: by pins, by the system's authorities, by known keys, or by asking the
/// user.
final class KeyCheck {
    /// Why a key is refused, and the program's exit reason. Without a reason the program tries again.
    struct Refusal {
        let reason: ExitReason?
        let text: String
    }

    private let settings: AgentSettings
    private let state: StateDirectory
    private let logger: Logger
    /// Asks about an unknown key; nil without a terminal.
    private let ask: Question?
    static let file = "known_gateways"
    private var path: String { self.state.file(Self.file) }
    /// Damaged lines that are already logged.
    private var reportedDamage: Set<String> = []
    /// A key that the user at the terminal has just confirmed.
    private var confirmedPin: String?

    init(settings: AgentSettings, state: StateDirectory, logger: Logger, ask: Question?) {
        self.settings = settings
        self.state = state
        self.logger = logger
        self.ask = ask
    }

    /// Why the key is refused, or nil if it is accepted.
    ///
    /// - Parameters:
    ///   - verdict: the verdict of the system's authorities on the certificate.
    ///   - isLoopback: whether the gateway is on this machine.
    func refusal(of pin: String, _ verdict: ChannelPeer.SystemVerdict, isLoopback: Bool) -> Refusal? {
        let isTrustedBySystem = verdict == .trusted
        let gateway = self.settings.gateway.description
        if case .untrusted(let reason) = verdict, self.settings.pins.isEmpty {
            self.logger.debug("the system's certificate authorities do not trust \(gateway): \(reason)")
        }
        // Read the file only if it matters: a damaged file is not a reason to refuse a pinned key.
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
            // The gateway may have closed the link by now. The next link will not ask again.
            self.confirmedPin = pin
        case .acceptAndRemember: break
        }
        do throws(SettingsError) {
            let entry = try KnownGateways.remember(gateway, pin: pin, path: self.path)
            // Another agent may have stored a different key at the same moment.
            if case .refuse(let text) = judge(entry) { return Refusal(reason: .wrongGatewayKey, text: text) }
        } catch {
            self.logger.warning(
                "cannot remember the key of \(gateway): \(error)", metadata: .about([.gateway: gateway]))
        }
        return nil
    }

    /// The fault in the certificate's dates, if the certificate has no other fault.
    private static func dateFault(_ verdict: ChannelPeer.SystemVerdict) -> String? {
        // A machine whose clock has no battery starts in 1970.
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

    /// Logs each damaged line once, not with each link.
    private func report(_ damage: String) {
        guard self.reportedDamage.insert(damage).inserted else { return }
        self.logger.warning(
            "\(damage): the line is damaged: delete it, or write HOST:PORT sha256/PIN")
    }
}
