internal import Journal
internal import Logging
internal import Modules
internal import Reactor
internal import Registry
internal import Relay
internal import Settings
internal import Tunnel
internal import Wire

// MARK: - Names: from REGISTER to the registrars and back

extension AgentSession {
    func registerArrived(_ register: Register) {
        guard case .up(let grant, let run) = self.state, let payer = self.payer else { return }
        let identity = AgentIdentity(id: grant.identity)
        guard self.questions[register.exposure] == nil,
            !self.exposures.contains(where: { $0.number == register.exposure })
        else {
            // REGISTERED has the number only, so the agent could not tell which of the two it answers.
            return self.connection.end(.protocolViolation, text: "exposure \(register.exposure) is registered already")
        }
        guard self.gateway.mayRegister(payer, names: self.limits.names) else { return self.refuseHaste(of: register) }
        guard Register.Kind.known.contains(register.kind) else { return self.refuseKind(of: register) }
        guard let name = Name(register.name) else {
            self.log(
                .warning, .detail, "\(self.label): bad name '\(PeerText.escaped(register.name, most: 64))'",
                self.about([.code: ErrorCode.nameInvalid]))
            return self.refuseName(register.exposure, .nameInvalid, text: Name.rule)
        }
        let request = NameRequest(identity: identity.id, peer: self.peer, name: name, port: register.port)
        let question = self.gateway.authorize(request) { [weak self] verdict in
            self?.questions[register.exposure] = nil
            self?.authorized(verdict, name, register, identity, run)
        }
        if !question.isOver { self.questions[register.exposure] = question }
    }

    private func authorized(
        _ verdict: NameVerdict, _ name: Name, _ register: Register, _ identity: AgentIdentity, _ run: UInt64
    ) {
        guard self.connection.isOpen else { return }
        let ports: [ClosedRange<UInt16>]
        switch verdict {
        case .granted(let granted): ports = granted
        case .refused(let code, let reason):
            self.warn(.detail, "name '\(name)' refused: \(reason)", name, code)
            let text =
                switch code {
                case .portNotAllowed: "the port is not allowed"
                case .overloaded: "the name cannot be judged now"
                default: "the name is not allowed"
                }
            return self.refuseName(register.exposure, code, text: text)
        }
        if register.port != 0, !ports.isEmpty, !ports.contains(where: { $0.contains(register.port) }) {
            self.warn(
                .detail, "name '\(name)' refused: it may not have the port \(register.port)", name, .portNotAllowed)
            return self.refuseName(register.exposure, .portNotAllowed, text: "the port is not allowed")
        }
        let most = self.limits.names ?? self.gateway.settings.limits.namesPerAgent
        if self.gateway.exposures.nameCount(of: identity, except: name) >= most {
            self.warn(.detail, "name '\(name)' refused: it has \(most) names already", name, .tooManyNames)
            return self.refuseName(register.exposure, .tooManyNames, text: "at most \(most) names are allowed")
        }
        let holder = Registry.Holder(identity: identity, link: self.id, run: run, exposure: register.exposure)
        switch self.gateway.exposures.claim(
            name, holder, port: register.port, allowed: ports, session: self, gateway: self.gateway)
        {
        case .success(let exposure):
            self.exposures.append(exposure)
            if self.gateway.probesBackends, !exposure.isPublished, self.connection.canProbe {
                self.probes.begin(exposure)
            } else {
                self.gateway.exposures.publish(exposure)
            }
        case .failure(let refusal):
            self.warn(.detail, "name '\(name)' refused: \(refusal.text)", name, refusal.code)
            self.refuseName(register.exposure, refusal.code, text: refusal.text)
        }
    }

    /// The registrars have published the exposure, or failed to.
    func published(_ exposure: Exposure, failure: String?) {
        guard self.exposures.contains(where: { $0 === exposure }) else { return }
        if let failure {
            self.refuseName(exposure.number, .registrarFailed, text: failure)
            return self.drop(exposure)
        }
        self.answer(
            exposure.number, .none, port: exposure.address?.port ?? 0, text: self.gateway.exposures.shown(exposure))
        exposure.published()
        self.gateway.metrics.nameRegistered()
    }

    /// Refuses a name as its agent has registered too many in a short time, by whatever links. It may ask again.
    private func refuseHaste(of register: Register) {
        self.log(
            .warning, .detail,
            "\(self.label): name '\(PeerText.escaped(register.name, most: 64))' refused: too many registrations in a "
                + "short time",
            self.about([.code: ErrorCode.overloaded]))
        self.refuseName(register.exposure, .overloaded, text: "too many registrations in a short time")
    }

    /// Refuses a name of a kind that this gateway does not know; a newer agent may send one.
    private func refuseKind(of register: Register) {
        let kind = register.kind.rawValue
        self.log(
            .warning, .detail, "\(self.label): a name of kind \(kind) refused: the kind is not supported",
            self.about([.code: ErrorCode.kindNotSupported]))
        self.refuseName(
            register.exposure, .kindNotSupported, text: "the gateway does not support names of kind \(kind)")
    }

    private func refuseName(_ exposure: UInt16, _ code: ErrorCode, text: String) {
        self.gateway.metrics.nameRefused(code)
        self.answer(exposure, code, text: text)
    }

    func answer(_ exposure: UInt16, _ code: ErrorCode, port: UInt16 = 0, text: String) {
        self.connection.link.answerRegister(Registered(exposure: exposure, code: code, port: port, text: text))
        self.connection.setNeedsFlush()
    }

    /// Another link of the same agent has taken the exposure over.
    func lost(_ exposure: Exposure, _ code: ErrorCode) {
        self.exposures.removeAll { $0 === exposure }
        self.probes.forget(exposure)
        guard self.connection.isOpen else { return }
        self.log(
            .info, .milestone, "\(self.label): '\(exposure.name)' went to a newer link of the same agent",
            self.about([.name: exposure.name, .code: code]))
        if self.connection.link.phase != .up {
            // The streams of this link finish, and then it is ended.
            return
        }
        if self.exposures.isEmpty {
            self.connection.end(
                code,
                text: code == .conflict
                    ? "two programs with one instance key take the name from each other"
                    : "a newer program of the same agent took over")
        } else {
            self.answer(exposure.number, code, text: "a newer link of the same agent has the name now")
        }
    }

    func drop(_ exposure: Exposure) {
        self.exposures.removeAll { $0 === exposure }
        self.probes.forget(exposure)
        self.gateway.exposures.withdraw(exposure, from: self)
    }
}
