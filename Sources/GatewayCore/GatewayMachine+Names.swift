package import Timing
package import Wire

// MARK: - From REGISTER to publication

extension GatewayMachine {
    /// The agent sent REGISTER.
    package mutating func register(_ id: LinkID, _ register: Register, now: Milliseconds) {
        guard let link = self.links[id], link.isPresent else { return }
        let number = register.exposure
        guard link.questions[number] == nil, link.exposures[number] == nil else {
            // REGISTERED carries only the number, so the agent could not tell which of the two requests it answers.
            let text = "exposure \(number) is registered already"
            return self.end(id, Refusal(code: .protocolViolation, text: text))
        }
        guard self.mayRegister(link.login, now) else {
            let text = "too many registrations in a short time"
            let name = PeerText.escaped(register.name, atMost: 64)
            return self.refuse(id, number, nil, .overloaded, text, log: "name '\(name)' refused: \(text)")
        }
        guard Register.Kind.known.contains(register.kind) else {
            let kind = register.kind.rawValue
            return self.refuse(
                id, number, nil, .kindNotSupported, "the gateway does not support names of kind \(kind)",
                log: "name of unsupported kind \(kind) refused")
        }
        guard let name = Name(register.name) else {
            let text = PeerText.escaped(register.name, atMost: 64)
            return self.refuse(id, number, nil, .nameInvalid, Name.fault(of: register.name), log: "bad name '\(text)'")
        }
        self.links[id]?.questions[number] = Question(name: name, port: register.port)
        self.emit(.ask(id, number: number, name, port: register.port))
    }

    private mutating func mayRegister(_ login: Login, _ now: Milliseconds) -> Bool {
        let limits = login.maxNames.flatMap {
            $0 > self.limits.namesPerAgent ? RegistrationLimits(namesPerAgent: $0) : nil
        }
        var forgotten = 0
        let isAllowed = self.registrations.take(login.payer, limits: limits, now: now) { forgotten = $0 }
        if forgotten > 0 { self.emit(.hit(.registrationTable(forgotten))) }
        if !isAllowed { self.emit(.hit(.registrations)) }
        return isAllowed
    }

    /// The authenticator refused a name, or cannot decide now (`overloaded`).
    ///
    /// - Parameters:
    ///   - reason: for the log only.
    ///   - told: for the agent; nil for a general text.
    package mutating func refused(
        _ id: LinkID, number: UInt16, _ code: ErrorCode, reason: String, told: String? = nil
    ) {
        guard let question = self.takeQuestion(id, number), self.links[id]?.isPresent ?? false else { return }
        let general =
            switch code {
            case .portNotAllowed: "the port is not allowed"
            case .overloaded: "the gateway cannot authorize names now"
            default: "the name is not allowed"
            }
        self.refuse(id, number, question.name, code, told ?? general, log: "name '\(question.name)' refused: \(reason)")
    }

    /// The authenticator granted a name.
    ///
    /// - Parameters:
    ///   - allowed: the public ports that the name may have; empty for all of the gateway's.
    ///   - isFull: whether so many former names of the agent still await withdrawal that it cannot have this one yet.
    package mutating func authorized(
        _ id: LinkID, number: UInt16, ports allowed: [ClosedRange<UInt16>],
        isFull: (_ name: Name, _ payer: String) -> Bool, now: Milliseconds
    ) {
        guard let question = self.takeQuestion(id, number), let link = self.links[id], link.isPresent else { return }
        let (name, port) = (question.name, question.port)
        if port != 0, !allowed.isEmpty, !allowed.contains(where: { $0.contains(port) }) {
            return self.refuse(
                id, number, name, .portNotAllowed, "the port is not allowed",
                log: "name '\(name)' refused: the agent may not use the port \(port)")
        }
        let maxNames = link.login.maxNames ?? self.limits.namesPerAgent
        if self.registry.nameCount(of: link.login.identity, except: name) >= maxNames {
            return self.refuse(
                id, number, name, .tooManyNames, "at most \(maxNames) names are allowed",
                log: "name '\(name)' refused: the agent has \(maxNames) names already")
        }
        if let refusal = self.refusal(of: name, port, link.login, isFull)
            ?? self.claim(id, number, question, allowed, now)
        {
            self.refuse(id, number, name, refusal.code, refusal.text, log: "name '\(name)' refused: \(refusal.text)")
        }
    }

    private mutating func takeQuestion(_ id: LinkID, _ number: UInt16) -> Question? {
        self.links[id]?.questions.removeValue(forKey: number)
    }

    /// Why an agent cannot have a name now, regardless of its current holder; nil if it can.
    private mutating func refusal(
        of name: Name, _ port: UInt16, _ login: Login, _ isFull: (_ name: Name, _ payer: String) -> Bool
    ) -> Refusal? {
        guard !self.isDraining else { return Refusal(code: .drain, text: "the gateway is stopping") }
        if let text = self.portRefusal(port, login.identity) { return Refusal(code: .portNotAllowed, text: text) }
        guard self.registry.holder(of: name) == nil else { return nil }
        guard self.registry.nameCount < self.limits.names else {
            return Refusal(code: .overloaded, text: "the gateway has reached its limit of names")
        }
        guard isFull(name, login.payer) else { return nil }
        self.emit(.hit(.withdrawals))
        return Refusal(code: .overloaded, text: "too many of the agent's former names are not withdrawn yet")
    }

    /// Why a requested port is refused; nil if it is allowed or none was requested.
    private func portRefusal(_ port: UInt16, _ identity: AgentIdentity) -> String? {
        guard port != 0 else { return nil }
        if let text = self.limits.ports.refusal(of: port) { return text }
        // Ports stay reserved only for connected agents: an absent one may never come back.
        if let keeper = self.ledger.keeper(of: port), keeper != identity, self.hasLink(of: keeper) {
            return "the port \(port) belongs to another agent"
        }
        return nil
    }

    /// Assigns a name to a link: moves the exposure over from another link of the agent, or creates a new one.
    ///
    /// - Returns: why the name is refused; nil if it was assigned.
    private mutating func claim(
        _ id: LinkID, _ number: UInt16, _ question: Question, _ allowed: [ClosedRange<UInt16>], _ now: Milliseconds
    ) -> Refusal? {
        guard let login = self.links[id]?.login else { return nil }
        let name = question.name
        let holder = Registry.Holder(identity: login.identity, link: id, run: login.run, exposure: number)
        /// Another program of the agent that had the name.
        var rival: LinkID?
        // A program whose connection is gone has probably crashed and was started again.
        let isGone = self.registry.holder(of: name).map { self.links[$0.link]?.detachedSince != nil } ?? false
        switch self.registry.register(name, holder, atMost: login.maxNames, holderIsGone: isGone, now: now) {
        case .refused(let code, let text): return Refusal(code: code, text: text)
        case .takenOver(let former, let code):
            guard let exposure = self.links[former.link]?.exposures.removeValue(forKey: former.exposure) else { break }
            let port = self.exposures[exposure]?.port ?? 0
            let fits = question.port == 0 || question.port == port
            if former.run != login.run, !isGone { rival = former.link }
            if fits {
                if let rival { self.emit(.takenOver(exposure, from: rival)) }
                self.move(exposure, to: id, number)
            }
            self.tellLoser(former, name, code)
            if fits { return nil }
            self.withdraw(exposure)
        case .granted: break
        }
        self.lastExposure += 1
        let exposure = ExposureID(number: self.lastExposure)
        self.links[id]?.exposures[number] = exposure
        self.exposures[exposure] = Exposure(name: name, identity: login.identity, link: id, number: number)
        if let rival { self.emit(.takenOver(exposure, from: rival)) }
        self.emit(
            .open(
                exposure,
                PortRequest(
                    name: name, identity: login.identity, payer: login.payer, wanted: question.port,
                    kept: self.ledger.port(of: name, for: login.identity), allowed: allowed)))
        return nil
    }

    /// Moves an exposure to another link of its agent. Its listeners stay open, so no visitor is refused.
    private mutating func move(_ id: ExposureID, to link: LinkID, _ number: UInt16) {
        self.exposures[id]?.link = link
        self.exposures[id]?.number = number
        self.links[link]?.exposures[number] = id
        switch self.exposures[id]?.phase {
        case .opening, nil: break
        case .probing:
            self.emit(.attach(id, link, number: number))
            self.probe(id)
        case .publishing: self.emit(.attach(id, link, number: number))
        case .published:
            self.emit(.attach(id, link, number: number))
            self.emit(.grant(id, link, number: number))
        }
    }

    /// Tells the link that lost a name to a newer one; ends the link if that was its last name.
    private mutating func tellLoser(_ former: Registry.Holder, _ name: Name, _ code: ErrorCode) {
        guard let link = self.links[former.link], link.isPresent else { return }
        self.emit(.lost(former.link, name, code))
        // A draining link finishes its streams and ends then.
        guard link.state == .open else { return }
        if link.exposures.isEmpty {
            let text =
                code == .conflict
                ? "two programs with the same instance key take the name from each other"
                : "a newer program of the same agent took over"
            self.end(former.link, Refusal(code: code, text: text))
        } else {
            let text = "a newer link of the same agent has the name now"
            self.emit(.takeBack(former.link, number: former.exposure, Refusal(code: code, text: text)))
        }
    }

    /// The listeners of an exposure are open.
    ///
    /// - Parameter port: the public port; 0 if it has none.
    package mutating func opened(_ id: ExposureID, port: UInt16) {
        guard let exposure = self.exposures[id] else {
            // The name was withdrawn before its listeners opened.
            return self.emit(.withdraw(id))
        }
        guard case .opening = exposure.phase else { return }
        self.exposures[id]?.port = port
        if port != 0, self.ledger.note(port, for: exposure.name, exposure.identity) { self.emit(.savePorts) }
        self.emit(.attach(id, exposure.link, number: exposure.number))
        self.probe(id)
    }

    /// The listeners of an exposure could not be opened.
    package mutating func notOpened(_ id: ExposureID, _ refusal: Refusal) {
        guard let exposure = self.exposures[id], case .opening = exposure.phase else { return }
        self.withdraw(id)
        self.refuse(
            exposure.link, exposure.number, exposure.name, refusal.code, refusal.text,
            log: "name '\(exposure.name)' refused: \(refusal.text)")
    }

    /// Probes the backend if that is configured and the link supports it; otherwise publishes at once.
    private mutating func probe(_ id: ExposureID) {
        guard let exposure = self.exposures[id] else { return }
        guard self.limits.probesBackends, self.links[exposure.link]?.login.canProbe ?? false else {
            self.exposures[id]?.phase = .publishing
            return self.emit(.publish(id))
        }
        self.exposures[id]?.phase = .probing
        self.emit(.probe(id, exposure.link))
    }

    /// The backend of an exposure accepted a connection over this link.
    package mutating func probed(_ id: ExposureID, over link: LinkID) {
        guard let exposure = self.exposures[id], case .probing = exposure.phase, exposure.link == link else { return }
        self.exposures[id]?.phase = .publishing
        self.emit(.publish(id))
    }

    /// All registrars have reported on an exposure.
    ///
    /// - Parameter failure: sent to the agent; nil if the name is published.
    package mutating func published(_ id: ExposureID, failure: String?) {
        guard let exposure = self.exposures[id], case .publishing = exposure.phase else { return }
        if let failure {
            let refusal = Refusal(code: .registrarFailed, text: failure)
            self.emit(.refuse(exposure.link, number: exposure.number, refusal))
            return self.withdraw(id)
        }
        self.exposures[id]?.phase = .published
        self.emit(.grant(id, exposure.link, number: exposure.number))
    }

    /// The agent sent UNREGISTER, for a name that it has or for a pending request.
    package mutating func unregister(_ id: LinkID, number: UInt16) {
        if self.takeQuestion(id, number) != nil { self.emit(.cancelQuestion(id, number: number)) }
        if let exposure = self.links[id]?.exposures[number] { self.withdraw(exposure) }
    }
}
