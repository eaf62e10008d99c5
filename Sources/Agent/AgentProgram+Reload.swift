internal import AgentCore
internal import Journal
internal import Logging
internal import Reactor
internal import Settings
internal import Wire

// MARK: - Reload

extension AgentProgram {
    /// Reads the settings again, and adds, removes or redirects names. All other changes need a restart.
    func reload() {
        guard !self.hasStopped, !self.isDraining, let reread = self.reread else { return }
        let settings: AgentSettings
        do throws(SettingsErrors) { settings = try reread() } catch {
            for problem in error.all { self.logger.error("SIGHUP: nothing was changed: \(problem)") }
            return
        }
        let others = settings.differencesBesideNames(from: self.settings)
        if !others.isEmpty {
            let keys = others.joined(separator: ", ")
            self.logger.warning("SIGHUP: only names are reloaded; restart the agent to apply \(keys)")
        }
        let former = self.settings.exposes
        let wanted = settings.exposes
        guard wanted != former else { return self.logger.info("SIGHUP: the names have not changed") }
        guard !self.settings.version1 || wanted.map(\.name) == former.map(\.name) else {
            return self.logger.warning("SIGHUP: version 1 cannot change its name: restart the agent")
        }
        self.settings = self.settings.with(exposes: wanted)
        let gone = former.map(\.name).filter { name in !wanted.contains { $0.name == name } }
        self.streams.changed(from: former, to: wanted)
        for expose in wanted where !former.contains(expose) {
            let isNew = !former.contains { $0.name == expose.name }
            self.logger.info(
                "SIGHUP: \(isNew ? "added" : "changed") '\(expose.name)', which now forwards to \(expose.backend)")
        }
        for name in gone { self.logger.info("SIGHUP: removed '\(name)'") }
        self.names.changed(to: wanted)
        let wantedNames = wanted.map { WantedName(name: $0.name, port: $0.port) }
        self.perform(self.machine.changed(to: wantedNames, now: self.loop.now))
    }
}
