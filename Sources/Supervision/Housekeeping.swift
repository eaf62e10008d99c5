package import Logging
package import Reactor

/// A program that ``Housekeeping`` works for.
package protocol HousekeptProgram: AnyObject {
    /// For the service manager.
    var status: String { get }
    /// Whether the watchdog of the service manager is reset.
    ///
    /// - Parameter onTime: whether the work of each second is done each second.
    func isWell(onTime: Bool) -> Bool
    /// A signal asks for the end: the first one for one in order.
    func stop()
    /// SIGHUP.
    func hungUp()
    /// The work of each second.
    ///
    /// - Parameter slept: whether the machine was suspended since the last call, so that connections may be dead.
    func tick(slept: Bool)
}

/// What both programs do besides their work: they follow signals and the service manager, and do each second what must be
/// done each second.
package final class Housekeeping {
    package static let period: UInt64 = 1_000
    /// The work of a second is late by so much only when something hangs.
    private static let maxLateness: UInt64 = 10_000
    /// A jump of the boot clock against the monotonic one by more than this was a sleep of the machine.
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

    /// The program does its work from now on.
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
