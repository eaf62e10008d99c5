internal import GatewayCore
internal import Journal
internal import Logging
internal import Reactor
internal import Relay
internal import Tunnel
internal import Wire

// MARK: - Names: what ``GatewayNames`` has a session do

extension AgentSession {
    func answer(_ exposure: UInt16, _ code: ErrorCode, port: UInt16 = 0, text: String) {
        guard self.link.isOpen else { return }
        self.link.answer(Registered(exposure: exposure, code: code, port: port, text: text))
    }

    /// The exposure's visitors go to this link.
    func attach(_ exposure: Exposure, number: UInt16) {
        exposure.attach(to: self, number: number)
        self.exposures.append(exposure)
    }

    /// The exposure is gone or goes to another link.
    func detach(_ exposure: Exposure) {
        self.exposures.removeAll { $0 === exposure }
        self.probes.forget(exposure)
    }

    func log(_ warning: GatewayMachine.Warning) {
        self.log(
            .warning, warning.isChange ? .complete : .detail, "\(self.label): \(warning.text)",
            self.about([.name: warning.name, .code: warning.code]))
    }

    func log(_ level: Logger.Level, _ text: String, of name: Name, _ metadata: Logger.Metadata) {
        self.log(
            level, .detail, "\(self.label): \(text)",
            self.about([.name: name]).merging(metadata) { _, new in new })
    }

    func log(lost name: Name, _ code: ErrorCode) {
        self.log(
            .info, .milestone, "\(self.label): '\(name)' went to a newer link of the same agent",
            self.about([.name: name, .code: code]))
    }
}
