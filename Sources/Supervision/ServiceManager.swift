internal import Glibc
package import Logging
package import Reactor

/// The service manager that has started this program, systemd for instance; without one, everything here does nothing.
///
/// It is told when the program is ready, reads its settings anew and stops, and what it is doing; it is given signs of
/// life; and it keeps listening sockets from one start to the next.
package final class ServiceManager {
    /// STATUS at most so often, in milliseconds.
    private static let statusPause: UInt64 = 1_000
    /// While the program ends: it asks so often for so much more time, in milliseconds. What it does after its last
    /// tick has ten seconds at least.
    private static let extendPause: UInt64 = 5_000
    private static let extendMilliseconds: UInt64 = 15_000

    private let loop: EventLoop
    private let logger: Logger
    private let socket: NotifySocket?
    private let watchdogMicroseconds: UInt64?
    private let storeSize: Int?
    /// What was handed over at the start.
    package let sockets: InheritedSockets
    private var watchdog: Watchdog?
    private var isWell = true
    private var wantedStatus: String?
    private var sentStatus: String?
    private var statusSentAt: UInt64?
    private var extendedAt: UInt64?
    /// How many descriptors each name has.
    private var stored: [String: Int] = [:]
    private var storeIsFull = false

    package init(
        loop: EventLoop, environment: ServiceEnvironment, sockets: InheritedSockets = InheritedSockets(),
        logger: Logger
    ) {
        self.loop = loop
        self.logger = logger
        self.sockets = sockets
        self.watchdogMicroseconds = environment.watchdogMicroseconds
        self.storeSize = environment.storeSize
        self.socket = environment.notifyAddress.flatMap { address in
            NotifySocket(address: address) { logger.warning("\($0)") }
        }
        for problem in environment.problems + self.sockets.problems { logger.warning("\(problem)") }
    }

    /// None.
    package static func absent(loop: EventLoop, logger: Logger) -> ServiceManager {
        ServiceManager(loop: loop, environment: ServiceEnvironment(processID: 0), logger: logger)
    }

    /// Call it after the last turn of the loop, before the loop is closed.
    package func close() {
        self.watchdog?.close()
        self.watchdog = nil
        self.socket?.flush()
    }

    /// Whether there is somebody to tell.
    package var isPresent: Bool { self.socket != nil }

    // MARK: - The program's life

    /// The program does its work from here on. Inherited sockets that it has not taken are closed.
    ///
    /// - Parameter isWell: a cheap look at whether it does, asked before each sign of life.
    package func started(status: String, isWell: @escaping () -> Bool) {
        for name in self.sockets.closeRest() {
            self.logger.warning("closed the inherited socket '\(name)', which is not used (check FileDescriptorName=)")
        }
        // A program that gives no sign of life is ended by SIGABRT (systemd.service(5), WatchdogSec=). The handler that the
        // Swift runtime has for it, to print a backtrace, lets the program go on when the signal came from outside.
        if self.watchdogMicroseconds != nil { signal(SIGABRT, SIG_DFL) }
        self.send(.ready, status)
        guard let socket = self.socket, let interval = self.watchdogMicroseconds else { return }
        self.watchdog = Watchdog(
            loop: self.loop, microseconds: interval,
            check: { [unowned self] in
                let now = isWell()
                if !now, self.isWell {
                    self.logger.error("the event loop is stuck: not reporting to the service manager's watchdog")
                }
                self.isWell = now
                return now
            },
            ping: { _ = socket.sendAtOnce(.watchdog) })
    }

    /// Runs `body`, which reads the settings anew.
    package func reloading(_ body: () -> Void) {
        self.socket?.send(.reloading(at: Self.monotonicMicroseconds))
        body()
        self.socket?.send(.ready)
    }

    /// The program ends; as long as it ticks it asks for more time.
    package func stopping(status: String) {
        self.send(.stopping + Self.extension, status)
        self.extendedAt = self.loop.now
    }

    private static let `extension` = ServiceMessage.extendTimeout(milliseconds: extendMilliseconds)

    /// Says what the program is doing: at most once a second, and only what is new.
    package func setStatus(_ text: String) {
        self.wantedStatus = text
        self.sendStatus()
    }

    /// Sends what has waited; call it about once a second.
    package func tick() {
        self.socket?.flush()
        self.sendStatus()
        guard let last = self.extendedAt, self.loop.now - last >= Self.extendPause else { return }
        self.extendedAt = self.loop.now
        self.socket?.send(Self.extension)
    }

    private func sendStatus() {
        guard let socket = self.socket, let text = self.wantedStatus, text != self.sentStatus else { return }
        if let last = self.statusSentAt, self.loop.now - last < Self.statusPause { return }
        if socket.sendAtOnce(.status(text)) { self.noteStatus(text) }
    }

    private func send(_ message: ServiceMessage, _ status: String) {
        self.socket?.send(message + .status(status))
        self.wantedStatus = status
        self.noteStatus(status)
    }

    private func noteStatus(_ text: String) {
        self.sentStatus = text
        self.statusSentAt = self.loop.now
    }

    private static var monotonicMicroseconds: UInt64 {
        var time = timespec()
        clock_gettime(CLOCK_MONOTONIC, &time)
        return UInt64(time.tv_sec) * 1_000_000 + UInt64(time.tv_nsec) / 1_000
    }

    // MARK: - The store

    /// Has the manager keep descriptors for the next start (FileDescriptorStoreMax= of systemd.service(5)), all of them or
    /// none.
    ///
    /// - Parameter name: under which they come back; it replaces what was stored so.
    /// - Returns: whether it was asked to.
    package func store(_ descriptors: [Int32], as name: String) -> Bool {
        guard let socket = self.socket, let message = ServiceMessage.store(name) else { return false }
        self.remove(name)
        let count = self.stored.values.reduce(0, +)
        guard count + descriptors.count <= self.storeSize ?? .max else {
            if !self.storeIsFull {
                self.logger.warning(
                    """
                    the service manager keeps at most \(count) sockets: visitors of further names \
                    are refused during a restart; raise FileDescriptorStoreMax
                    """)
            }
            self.storeIsFull = true
            return false
        }
        self.stored[name] = descriptors.count
        for descriptor in descriptors { socket.send(message, with: descriptor) }
        return true
    }

    /// A descriptor that came back is in the store still.
    package func noteStored(_ name: String) { self.stored[name, default: 0] += 1 }

    /// Has the manager close all that it keeps under a name.
    package func remove(_ name: String) {
        guard self.stored.removeValue(forKey: name) != nil, let message = ServiceMessage.removeStored(name) else {
            return
        }
        self.socket?.send(message)
    }
}
