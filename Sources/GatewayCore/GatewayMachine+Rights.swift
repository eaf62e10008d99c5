package import Wire

// MARK: - Rights that change

extension GatewayMachine {
    /// From now on these limits hold for an agent. What is above them ends, the newest first; streams that run are left.
    package mutating func changed(_ identity: AgentIdentity, maxLinks: Int?, maxNames: Int?) {
        var links = self.linksByAgent[identity, default: []].filter { self.links[$0]?.isPresent ?? false }.sorted()
        for id in links { self.links[id]?.login.maxNames = maxNames }
        if let maxLinks {
            // A program's present link and its former one count as one (`loggedIn`).
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

    /// The agent of a link has lost the right to be here.
    package mutating func revoked(_ id: LinkID) {
        // At once, whether the agent reads its goodbye or not.
        self.dropNames(of: id)
        self.end(id, Refusal(code: .revoked, text: "access revoked: the agent was removed, disabled or has expired"))
    }

    /// The right to a name was judged again.
    ///
    /// - Parameter ports: as in `authorized`.
    package mutating func confirmed(_ id: ExposureID, ports: [ClosedRange<UInt16>]) {
        guard let port = self.exposures[id]?.port, port != 0, !ports.isEmpty,
            !ports.contains(where: { $0.contains(port) })
        else { return }
        self.revoke(id, .portNotAllowed, reason: "its agent may no longer use the port \(port)")
    }

    /// Takes a name and its streams from its agent.
    ///
    /// - Parameters:
    ///   - code: what the agent hears.
    ///   - reason: for the log.
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
