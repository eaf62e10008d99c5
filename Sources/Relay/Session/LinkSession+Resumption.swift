internal import Reactor
internal import Secure
package import Tunnel
package import Wire

// MARK: - Sessions

extension LinkSession {
    /// Nil if the link cannot be resumed.
    package var sessionKey: SessionKey? { self.machine.sessionKey }

    /// Whether the link outlives its connection.
    package var canResume: Bool { self.isOpen && self.machine.canResume }

    /// Memory of the frames that are kept for the next connection, in bytes.
    package var keptBytes: Int { self.machine.keptBytes }

    /// How long the link waits for its next connection, in milliseconds.
    package var resumeWindow: UInt64 { self.machine.resumeWindow }

    /// From now on the link ends with its connection. A link without one ends at once.
    package func forbidResuming() {
        self.machine.forbidResuming()
        if self.detachedSince != nil { self.close(.ended(.dead, "the link is not resumed any more")) }
    }

    // MARK: At the agent

    /// When the connection counts as stuck; nil without a connection, or if the gateway owes nothing.
    package var stuckAt: UInt64? { self.isCarried ? self.machine.stuckAt : nil }

    /// Closes the connection if this machine does not have its address any more. Returns whether it did.
    package func closesWithoutAddress() -> Bool {
        guard self.isCarried, let own = self.transport.localAddress, !own.isOfThisMachine else { return false }
        self.transport.close(.failed(.addressNotAvailable))
        return true
    }

    /// The network of this machine has changed. If the connection's address is gone, the connection is too; otherwise
    /// the agent sends a PING.
    package func networkChanged() {
        guard self.isCarried, self.machine.canResume else { return }
        guard !self.closesWithoutAddress() else { return }
        self.machine.probe(now: self.loop.now)
        self.setNeedsFlush()
    }

    /// Sends LOGIN on a connection whose HELLO was exchanged.
    package func login(_ login: Login) {
        self.machine.login(login)
        self.setNeedsFlush()
    }

    /// Asks the gateway to continue this link on the connection of `greeter`. The former connection is closed first.
    ///
    /// - Returns: false if `greeter` has no exporter; nothing has changed then.
    package func askToResume(on greeter: LinkSession) -> Bool {
        guard let key = self.sessionKey, let exporter = greeter.exporter else { return false }
        if self.isCarried { self.transport.close(.ended(.dead, "no answer")) }
        var resume = self.machine.nextResume()
        resume.proof = key.proof(of: resume, exporter: exporter)
        greeter.machine.request(resume)
        greeter.setNeedsFlush()
        return true
    }

    /// Continues on the connection of `greeter`, whose gateway has agreed. If its answer is invalid, this link ends.
    package func resumed(_ resumed: Resumed, on greeter: LinkSession) {
        do throws(PeerViolation) {
            try self.machine.resume(resumed, now: self.loop.now)
            self.carry(on: greeter)
        } catch {
            greeter.end(error.code, text: error.detail)
            self.close(.violation(error))
        }
    }

    // MARK: At the gateway

    /// Answers RESUME with session-gone. The agent may log in on the same connection.
    package func refuse(_ resume: Resume) {
        self.machine.refuseResume(resume)
        self.setNeedsFlush()
    }

    /// Whether the agent at `greeter` knows this link's secret.
    package func isProven(_ resume: Resume, on greeter: LinkSession) -> Bool {
        guard let key = self.sessionKey, let exporter = greeter.exporter else { return false }
        return SHA256.isEqual(key.proof(of: resume, exporter: exporter), resume.proof)
    }

    /// Continues on the connection of `greeter`, if `resume` is valid. Otherwise ends that connection, and this link
    /// too if its agent has violated the protocol.
    ///
    /// - Precondition: ``isProven(_:on:)``.
    package func resume(_ resume: Resume, on greeter: LinkSession) -> ResumeVerdict {
        let verdict = self.machine.judge(resume, now: self.loop.now)
        switch verdict {
        case .resumed: self.carry(on: greeter)
        case .replaced: greeter.end(.replaced, text: "a later connection has resumed the session")
        case .violation(let violation):
            greeter.end(violation.code, text: violation.detail)
            self.close(.violation(violation))
        }
        return verdict
    }

    private var exporter: [UInt8]? {
        self.transport.exportKey(label: Resume.exporterLabel, count: Resume.exporterSize)
    }
}

extension SessionKey {
    /// - Parameter exporter: of the connection on which RESUME is sent.
    package func proof(of resume: Resume, exporter: [UInt8]) -> [UInt8] {
        SHA256.authenticate(resume.proven(exporter: exporter), key: self.secret)
    }
}
