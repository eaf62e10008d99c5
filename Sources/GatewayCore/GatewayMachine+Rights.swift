package import Wire

// MARK: - Changed rights

extension GatewayMachine {
    /// Applies new limits to an agent: ends its newest links and revokes its newest names above them. Remaining links
    /// and names keep their streams.
    ///
    /// - Parameters:
    ///   - maxLinks: nil leaves the agent's links alone.
    ///   - maxNames: over all links of the agent; nil stands for the gateway's own limit and revokes nothing.
    package mutating func changed(_ identity: AgentIdentity, maxLinks: Int?, maxNames: Int?) {
        var links = self.linksByAgent[identity, default: []].filter { self.links[$0]?.isPresent ?? false }.sorted()
        for id in links { self.links[id]?.login.maxNames = maxNames }
        if let maxLinks {
            // The current and the previous link of one run count once, as in `loggedIn`.
            var runs: Set<UInt64> = []
            for id in links where runs.count < maxLinks { if let run = self.links[id]?.login.run { runs.insert(run) } }
            let isKept = { (id: LinkID, links: [LinkID: Link]) in links[id].map { runs.contains($0.login.run) } ?? false
            }
            for id in links where !isKept(id, self.links) {
                let text = "closing the link: its agent may now have at most \(maxLinks)"
                self.emit(.warn(id, Warning(text: text, name: nil, code: .tooManyLinks, isChange: true)))
                self.dropNames(of: id)
                self.end(id, Refusal(code: .tooManyLinks, text: "the agent may now have fewer links"), retryAfter: 5)
            }
            links.removeAll { !isKept($0, self.links) }
        }
        guard let maxNames else { return }
        let names = links.flatMap { self.links[$0].map { Array($0.exposures.values) } ?? [] }.sorted()
        for id in names.dropFirst(maxNames) {
            self.revoke(id, .tooManyNames, reason: "its agent may now have at most \(maxNames) names")
        }
    }

    /// The agent's access was revoked: drops the names of this link and ends it.
    ///
    /// - Parameter reason: for the agent.
    package mutating func revoked(_ id: LinkID, _ reason: String) {
        // Drop the names first: the agent may never read the GOAWAY.
        self.dropNames(of: id)
        self.end(id, Refusal(code: .revoked, text: "access revoked: \(reason)"))
    }

    /// The authenticator confirmed a name after a change of rights. Revokes the name if its port is no longer allowed.
    ///
    /// - Parameter ports: as in `authorized`.
    package mutating func confirmed(_ id: ExposureID, ports: [ClosedRange<UInt16>]) {
        guard let port = self.exposures[id]?.port, port != 0, !ports.isEmpty,
            !ports.contains(where: { $0.contains(port) })
        else { return }
        self.revoke(id, .portNotAllowed, reason: "its agent may no longer use the port \(port)")
    }

    /// Withdraws a name and resets its streams.
    ///
    /// - Parameters:
    ///   - code: sent to the agent.
    ///   - reason: for the log only.
    package mutating func revoke(_ id: ExposureID, _ code: ErrorCode, reason: String) {
        guard let exposure = self.exposures[id] else { return }
        let (link, number) = (exposure.link, exposure.number)
        let text =
            switch code {
            case .portNotAllowed: "the agent may no longer use the port"
            case .tooManyNames: "the agent may now have fewer names"
            default: "the agent may no longer use the name"
            }
        let line = "'\(exposure.name)' was withdrawn: \(reason)"
        self.emit(.warn(link, Warning(text: line, name: exposure.name, code: code, isChange: true)))
        self.emit(.takeBack(link, number: number, Refusal(code: code, text: text)))
        self.withdraw(id)
        self.emit(.cutStreams(link, number: number))
    }
}
