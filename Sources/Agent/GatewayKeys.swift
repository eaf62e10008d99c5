internal import AgentCore
internal import Journal
internal import Logging
internal import Settings

/// Whether the gateway's key is the right one: by the pins, by what is known, or by asking.
final class GatewayKeys {
    private let settings: AgentSettings
    private let state: StateDirectory
    private let logger: Logger
    /// How to ask about an unknown key; nil without a terminal.
    private let ask: Question?
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
    /// - Parameter isLoopback: whether the gateway is on this machine.
    func refusal(of pin: String, isTrustedBySystem: Bool, isLoopback: Bool) -> String? {
        let gateway = self.settings.gateway.description
        // The file is looked at only if it matters: a broken one is no reason to refuse a pinned key.
        let isSettled = !self.settings.pins.isEmpty || isTrustedBySystem || self.confirmedPin == pin
        do throws(SettingsError) {
            let path = self.state.file("known_gateways")
            var known: KnownGateways?
            if !isSettled { known = try KnownGateways(path: path) }
            let entry = known?.pin(of: gateway)
            let verdict = GatewayTrust.judge(
                gateway: gateway, pins: self.settings.pins, shown: pin, isTrustedBySystem: isTrustedBySystem,
                known: entry?.pin ?? self.confirmedPin, knownAt: "\(path):\(entry?.line ?? 0)",
                isLoopback: isLoopback, hasTerminal: self.ask != nil)
            switch verdict {
            case .accept: return nil
            case .refuse(let text): return text
            case .ask:
                let text =
                    "The key of \(gateway) is not known yet. It is\n  \(pin)\n"
                    + "Is that the pin that the gateway prints at its start?"
                guard self.ask?(text) ?? false else { return "the key \(pin) of \(gateway) was not confirmed" }
                // The gateway may have lost patience meanwhile; the next link will not ask.
                self.confirmedPin = pin
            case .acceptAndRemember: break
            }
            do throws(SettingsError) { try known?.remember(gateway, pin: pin) } catch {
                self.logger.warning(
                    "the key of \(gateway) cannot be remembered: \(error)", metadata: .about([.gateway: gateway]))
            }
            return nil
        } catch {
            return error.description
        }
    }
}
