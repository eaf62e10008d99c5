internal import AgentCore
internal import Journal
internal import Logging
internal import Reactor
internal import Settings
internal import Wire

// MARK: - Other settings while the agent runs

extension AgentProgram {
    /// Reads the settings again: names come, go and lead elsewhere. What is not about names needs a new start.
    func reload() {
        guard !self.hasStopped, !self.isDraining, let reread = self.reread else { return }
        let settings: AgentSettings
        do throws(SettingsErrors) { settings = try reread() } catch {
            for problem in error.all { self.logger.error("SIGHUP: everything stays as it is: \(problem)") }
            return
        }
        let others = settings.differencesBesideNames(from: self.settings)
        if !others.isEmpty {
            let keys = others.joined(separator: ", ")
            self.logger.warning("SIGHUP: only names are read again; what else has changed needs a new start: \(keys)")
        }
        let former = self.settings.exposes
        let wanted = settings.exposes
        guard wanted != former else { return self.logger.info("SIGHUP: the names are the same as before") }
        guard !self.settings.version1 || wanted.map(\.name) == former.map(\.name) else {
            return self.logger.warning("SIGHUP: version 1 cannot change its name: that needs a new start")
        }
        self.settings = self.settings.with(exposes: wanted)
        let gone = former.map(\.name).filter { name in !wanted.contains { $0.name == name } }
        self.streams.changed(from: former, to: wanted)
        for expose in wanted where !former.contains(expose) {
            let isNew = !former.contains { $0.name == expose.name }
            self.logger.info(
                "SIGHUP: '\(expose.name)' \(isNew ? "is added and leads" : "now leads") to \(expose.backend)")
        }
        for name in gone { self.logger.info("SIGHUP: '\(name)' is taken away") }
        self.names.changed(to: wanted)
        let wantedNames = wanted.map { WantedName(name: $0.name, port: $0.port) }
        self.perform(self.machine.changed(to: wantedNames, now: self.loop.now))
    }
}
