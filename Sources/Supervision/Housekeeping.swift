package import Logging
package import Reactor

/// A program with a ``Housekeeping``.
package protocol HousekeptProgram: AnyObject {
    /// The status line that the service manager shows.
    var status: String { get }
    /// Whether the program works, so that the service manager's watchdog may be reset. Must be cheap.
    ///
    /// - Parameter onTime: whether ticks run on time.
    func isWell(onTime: Bool) -> Bool
    /// SIGTERM or SIGINT arrived, or the controlling terminal closed. The first call requests an orderly shutdown.
    func stop()
    /// SIGHUP requests a reload.
    func hungUp()
    /// Called once a second.
    ///
    /// - Parameter slept: whether the machine was suspended since the last call. Connections may be dead then.
    func tick(slept: Bool)
}

/// Handles signals, reports to the service manager and drives the once-a-second tick, for both the gateway and the
/// agent.
package final class Housekeeping {
    /// Milliseconds between two ticks.
    package static let period: UInt64 = 1_000
    /// A tick this late, in milliseconds, means that something hangs.
    private static let maxLateness: UInt64 = 10_000
    /// The machine was suspended if the boot clock has advanced this many milliseconds more than the monotonic clock.
    private static let sleepThreshold: Int64 = 2_000

    private let loop: EventLoop
    private let manager: ServiceManager
    private let logger: Logger
    private weak var program: (any HousekeptProgram)?
    private var timer: LoopTimer?
    private var signals: DaemonSignals?
    private var tickedAt: UInt64
    private var suspended = EventLoop.suspendedMilliseconds

    package init(loop: EventLoop, manager: ServiceManager, logger: Logger) {
        self.loop = loop
        self.manager = manager
        self.logger = logger
        self.tickedAt = loop.now
    }

    package func start(_ program: any HousekeptProgram) {
        self.program = program
        do throws(UVError) {
            self.signals = try DaemonSignals(loop: self.loop) { [weak self] in
                self?.program?.stop()
            } reload: { [weak self] in
                self?.program?.hungUp()
            }
        } catch { self.logger.error("cannot handle signals: \(error)") }
        let timer = LoopTimer(loop: self.loop) { [unowned self] in self.tick() }
        timer.start(after: Self.period, repeating: Self.period)
        self.timer = timer
    }

    /// The program is ready. Call it once, when startup is complete.
    package func started() {
        self.manager.started(status: self.program?.status ?? "") { [weak self] in self?.isWell ?? true }
    }

    private var isWell: Bool {
        self.program?.isWell(onTime: self.loop.now - self.tickedAt < Self.maxLateness) ?? true
    }

    private func tick() {
        self.tickedAt = self.loop.now
        self.loop.reapAdopted()
        self.signals?.tick()
        if let status = self.program?.status { self.manager.setStatus(status) }
        self.manager.tick()
        let suspended = EventLoop.suspendedMilliseconds
        let slept = suspended - self.suspended > Self.sleepThreshold
        self.suspended = suspended
        self.program?.tick(slept: slept)
    }

    package func close() {
        self.timer?.close()
        self.timer = nil
        self.signals?.close()
        self.signals = nil
    }
}
