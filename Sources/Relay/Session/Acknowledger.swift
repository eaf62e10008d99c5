internal import Reactor
internal import Tunnel

/// Sends the acknowledgements that waited for more bytes: one timer for all links of a loop.
final class Acknowledger {
    /// Runs while a link waits.
    private var timer: LoopTimer?
    private var waiting: [LinkSession] = []

    /// The link's next acknowledgement is sent after ``LinkLimits/acknowledgementDelay`` at the latest.
    func add(_ link: LinkSession) {
        self.waiting.append(link)
        guard self.timer == nil else { return }
        let timer = LoopTimer(loop: link.loop) { [unowned self] in self.fire() }
        timer.start(after: LinkLimits.acknowledgementDelay)
        self.timer = timer
    }

    /// The link has no carrier.
    func remove(_ link: LinkSession) {
        self.waiting.removeAll { $0 === link }
        if self.waiting.isEmpty { self.stop() }
    }

    private func fire() {
        let links = self.waiting
        self.waiting = []
        self.stop()
        for link in links { link.acknowledge() }
    }

    private func stop() {
        self.timer?.close()
        self.timer = nil
    }
}
