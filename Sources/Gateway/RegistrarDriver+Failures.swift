internal import Control
internal import Journal
internal import Logging
internal import Metrics
internal import Modules
internal import Wire

// MARK: - What fails, and what is reported

extension RegistrarDriver {
    /// Says when it begins to fail and when it works again.
    func note(
        _ result: Result<Void, RegistrarError>, _ action: RegistrarFailures.Action, _ what: String,
        _ exposure: PublicExposure? = nil
    ) {
        let isWanted = { self.wanted[$0] != nil }
        switch result {
        case .success:
            if self.failures.succeeded(action, isWanted: isWanted) {
                self.say(.notice, "the registrar \(self.registrar.label) works again", exposure)
            }
        case .failure(let error):
            self.figures.failures.add()
            let text = "the registrar \(self.registrar.label) cannot \(what): \(error.reason)"
            // What fails again and again in the same way is said once.
            let level = self.failures.failed(action, text, isWanted: isWanted) ? Logger.Level.error : .debug
            self.say(level, text, exposure)
        }
    }

    /// An agent can make a name fail and succeed as often as it registers it.
    func say(_ level: Logger.Level, _ text: String, _ exposure: PublicExposure?) {
        guard let exposure else { return self.logger.log(level: level, "\(text)", metadata: self.about()) }
        self.log.write(level, .detail, of: .agent(exposure.identity), text, self.about(exposure))
    }

    /// Of wishes.
    package var pendingCount: Int { self.jobs.all.count + self.held.count }

    var report: GatewayReport.Registrar {
        GatewayReport.Registrar(name: self.registrar.label, failure: self.failure, pending: self.pendingCount)
    }
}
