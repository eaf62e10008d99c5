internal import Logging
internal import Modules
internal import Reactor
internal import Wire

// MARK: - Resets

extension RegistrarDriver {
    package func start() { self.reset() }

    /// Puts right what others have undone, where that can happen, and what a former reset could not do.
    package func reconcile() {
        guard self.hasBegun, self.failedResets > 0 || self.registrar.resetPeriod != nil else { return }
        self.reset()
    }

    func reset() {
        guard self.phase == .working, !self.isClosing else { return }
        self.resetTimer?.close()
        self.resetTimer = nil
        self.phase = .resetDue
        self.resetIfIdle()
    }

    func resetIfIdle() {
        guard self.phase == .resetDue, self.runningCount == 0 else { return }
        self.phase = .resetting
        self.leaving.resetBegan()
        let keeping = self.wanted.values.sorted { $0.name.text < $1.name.text }
        let operation = DeadlinedOperation(
            loop: self.loop, milliseconds: GatewayServer.moduleDeadline, late: .failure(Self.late),
            start: { self.registrar.reset(keeping: keeping, completion: $0) },
            completion: { [weak self] result in self?.wasReset(result) })
        if !operation.isOver { self.resetting = operation }
    }

    static let late = RegistrarError(reason: "did not answer in time")

    func wasReset(_ result: Result<[PublicExposure], RegistrarError>) {
        self.resetting = nil
        self.phase = .working
        self.note(
            result.map { _ in () }, .reset, self.hasBegun ? "look after its names" : "clean up after a former run")
        self.hasBegun = true
        let heldNames = self.held.names
        let held = self.held.take()
        switch result {
        // A name that was withdrawn during the reset was still to be kept.
        case .success: self.leaving.resetSucceeded { self.wanted[$0] != nil || heldNames.contains($0) }
        case .failure: self.leaving.resetFailed()
        }
        switch result {
        case .success(let missing):
            self.failedResets = 0
            self.publishAgain(missing, except: heldNames)
            if self.leaving.needReset {
                self.resetLater(Self.firstResetPause)
            } else if let period = self.registrar.resetPeriod {
                self.resetLater(period)
            }
        case .failure:
            self.resetLater(min(Self.firstResetPause << UInt64(min(self.failedResets, 10)), Self.mostPause))
            self.failedResets += 1
        }
        self.resumeJobs()
        for wish in held { self.want(wish) }
    }

    func resetLater(_ pause: UInt64) {
        self.resetTimer?.close()
        let timer = LoopTimer(loop: self.loop) { [weak self] in self?.reset() }
        timer.start(after: pause)
        self.resetTimer = timer
    }

    /// Those that came to their next attempt while a reset was due.
    func resumeJobs() {
        for job in self.jobs.all.values.filter({ $0.operation == nil && $0.timer == nil && $0.waitingSince == nil }) {
            self.attempt(job)
        }
        self.attemptNext()
    }

    func publishAgain(_ missing: [PublicExposure], except held: Set<Name>) {
        let lost = missing.filter {
            self.wanted[$0.name] != nil && self.jobs[$0.name] == nil && !held.contains($0.name)
        }
        guard !lost.isEmpty else { return }
        self.logger.notice(
            "publishing again by the registrar \(self.registrar.label): \(lost.map(\.name.text).joined(separator: ", "))",
            metadata: self.about())
        for exposure in lost { self.begin(.publish(exposure, completion: nil)) }
    }
}
