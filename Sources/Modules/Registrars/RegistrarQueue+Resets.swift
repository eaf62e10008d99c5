package import Timing
internal import Wire

// MARK: - Resets

extension RegistrarQueue {
    package func start() { self.reset() }

    /// Restores what other programs have undone, if the registrar supports that, and retries a failed reset.
    package func reconcile() {
        guard self.life == .running, self.failedResets > 0 || self.traits.resetPeriod != nil else { return }
        self.reset()
    }

    func reset() {
        guard case .working = self.phase, self.life == .starting || self.life == .running else { return }
        self.deadlines.remove(.reset)
        self.phase = .resetDue
        self.resetIfIdle()
    }

    func resetIfIdle() {
        guard case .resetDue = self.phase, self.isIdle else { return }
        let id = self.newID()
        // Not names that are still to be published: their old route may lead to a port that another agent has by then.
        let keeping = self.published.compactMap { self.wanted[$0] }.sorted { $0.name.text < $1.name.text }
        self.phase = .resetting(id: id, keeping: Set(keeping.map(\.name)))
        self.leaving.resetBegan()
        self.emit(.begin(.reset(keeping: keeping), id: id))
    }

    /// The registrar has removed all names but those in `keeping` and reports which of these are missing, or it failed.
    package func resetEnded(_ id: UInt64, _ result: Result<[PublicExposure], RegistrarError>, now: Milliseconds) {
        guard case .resetting(id, let keeping) = self.phase else { return }
        self.phase = .working
        let what = self.life == .starting ? "clean up after the previous run" : "check its names"
        if self.life == .starting { self.life = .running }
        let heldNames = self.held.names
        let held = self.held.take()
        switch result {
        case .success(let missing):
            self.note(nil, .reset, what, nil)
            self.leaving.resetSucceeded { keeping.contains($0) }
            self.failedResets = 0
            self.publishAgain(missing, except: heldNames, now)
            if self.leaving.needReset {
                self.deadlines.set(.reset, at: now + Self.firstResetPause)
            } else if let period = self.traits.resetPeriod {
                self.deadlines.set(.reset, at: now + period)
            }
        case .failure(let error):
            self.note(error, .reset, what, nil)
            self.leaving.resetFailed()
            let pause = min(Self.firstResetPause << UInt64(min(self.failedResets, 10)), Self.maxPause)
            self.deadlines.set(.reset, at: now + pause)
            self.failedResets += 1
        }
        self.resume(held, now)
    }

    /// Continues after a reset: first with the attempts that became due during it, then with the held requests.
    func resume(_ held: [RegistrarRequest], _ now: Milliseconds) {
        // A job that a held request replaces is not attempted any more.
        for request in held { if let job = self.jobs[request.name], !job.isUnderWay { self.stopWaiting(job) } }
        let replaced = Set(held.map(\.name))
        for (name, job) in self.jobs.all where !job.isUnderWay && job.waitingSince == nil {
            guard !replaced.contains(name), self.deadlines[.attempt(name)] == nil else { continue }
            self.attempt(job, now)
        }
        self.attemptNext(now)
        for request in held { self.request(request, now) }
    }

    private func publishAgain(_ missing: [PublicExposure], except held: Set<Name>, _ now: Milliseconds) {
        let lost = missing.filter {
            self.wanted[$0.name] != nil && self.jobs[$0.name] == nil && !held.contains($0.name)
        }
        guard !lost.isEmpty else { return }
        let names = lost.map(\.name.text).joined(separator: ", ")
        self.emit(.log(.notice, "registrar \(self.traits.label): publishing again: \(names)", nil))
        for exposure in lost { self.begin(.publish(exposure, ticket: nil), now) }
    }
}
