extension AgentSettings {
    /// The hosts of the gateway and of all backends.
    package var hostNames: Set<String> {
        Set(
            self.exposes.compactMap { expose in
                if case .tcp(let place) = expose.backend { place.host } else { nil }
            } + [self.gateway.host])
    }

    /// A copy with other names.
    package func with(exposes: [Expose]) -> AgentSettings {
        var result = self
        result.exposes = exposes
        return result
    }

    /// The keys in the file, except those about names, whose values differ from `former`.
    package func differencesBesideNames(from former: AgentSettings) -> [String] {
        [
            ("gateway", self.gateway == former.gateway), ("token", self.token.isSame(as: former.token)),
            ("pin", self.pins == former.pins), ("output", self.output == former.output),
            ("once", self.once == former.once), ("v1", self.version1 == former.version1),
            ("debug", self.debug == former.debug), ("log-format", self.logFormat == former.logFormat),
            ("log-streams", self.logsStreams == former.logsStreams),
            ("state-dir", self.stateDirectory == former.stateDirectory), ("url-file", self.urlFile == former.urlFile),
            ("exec-on-ready", self.execOnReady == former.execOnReady),
            ("streams-per-link", self.limits.streamsPerLink == former.limits.streamsPerLink),
            ("stall-timeout", self.limits.stallTimeout == former.limits.stallTimeout),
            ("half-close-timeout", self.limits.halfCloseTimeout == former.limits.halfCloseTimeout),
            ("resume-window", self.limits.resumeWindow == former.limits.resumeWindow),
            ("resume-memory", self.limits.resumeMemory == former.limits.resumeMemory),
            ("link-mss", self.linkMSS == former.linkMSS),
        ]
        .filter { !$0.1 }.map(\.0)
    }
}
