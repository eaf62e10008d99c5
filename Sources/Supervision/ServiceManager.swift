internal import Glibc
package import Logging
package import Reactor

/// The service manager that started this program, for example systemd. Without one, all methods do nothing.
///
/// The program reports to it when it is ready, reloading or stopping, reports its status, and resets its watchdog. The
/// manager also stores listening sockets from one start of the program to the next.
package final class ServiceManager {
    /// Minimum milliseconds between two STATUS messages.
    private static let statusPause: UInt64 = 1_000
    /// During shutdown the program requests an extension of `extendMilliseconds` every `extendPause` milliseconds. This
    /// leaves at least ten seconds for the work after the last tick.
    private static let extendPause: UInt64 = 5_000
    private static let extendMilliseconds: UInt64 = 15_000

    private let loop: EventLoop
    private let logger: Logger
    private let socket: NotifySocket?
    private let watchdogMicroseconds: UInt64?
    private let storeSize: Int?
    /// The sockets inherited at the start.
    package let sockets: InheritedSockets
    private var watchdog: Watchdog?
    private var isWell = true
    private var wantedStatus: String?
    private var sentStatus: String?
    private var statusSentAt: UInt64?
    private var extendedAt: UInt64?
    /// The number of descriptors stored under each name.
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

    /// A manager that does nothing, for a program that was started without one.
    package static func absent(loop: EventLoop, logger: Logger) -> ServiceManager {
        ServiceManager(loop: loop, environment: ServiceEnvironment(processID: 0), logger: logger)
    }

    /// Call it after the last turn of the loop, before the loop is closed.
    package func close() {
        self.watchdog?.close()
        self.watchdog = nil
        self.socket?.flush()
    }

    /// Whether the program runs under a service manager that accepts messages.
    package var isPresent: Bool { self.socket != nil }

    // MARK: - The program's life

    /// Reports that the program is ready, starts the watchdog pings, and closes the inherited sockets that were not
    /// taken.
    ///
    /// - Parameter isWell: a cheap health check, called before each watchdog ping.
    package func started(status: String, isWell: @escaping () -> Bool) {
        for name in self.sockets.closeRest() {
            self.logger.warning("closed the inherited socket '\(name)', which is not used (check FileDescriptorName=)")
        }
        // On a watchdog timeout systemd sends SIGABRT (systemd.service(5), WatchdogSec=). The Swift runtime's handler
        // prints a backtrace, but lets the program continue if the signal came from another process.
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

    /// Runs `body`, which reloads the settings, and reports the start and end of the reload.
    package func reloading(_ body: () -> Void) {
        self.socket?.send(.reloading(at: Self.monotonicMicroseconds))
        body()
        self.socket?.send(.ready)
    }

    /// Reports that the program is shutting down. From now on each ``tick()`` may request more time.
    package func stopping(status: String) {
        self.send(.stopping + Self.extension, status)
        self.extendedAt = self.loop.now
    }

    private static let `extension` = ServiceMessage.extendTimeout(milliseconds: extendMilliseconds)

    /// Reports what the program is doing. Sends at most one message per second, and only if the text has changed.
    package func setStatus(_ text: String) {
        self.wantedStatus = text
        self.sendStatus()
    }

    /// Sends queued messages, a delayed status and shutdown extensions. Call it about once a second.
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

    /// Asks the manager to store descriptors for the next start (FileDescriptorStoreMax= of systemd.service(5)), all of
    /// them or none. The caller still owns the descriptors.
    ///
    /// - Parameter name: the name under which the next start receives them. Replaces descriptors stored under it.
    /// - Returns: whether the request was sent or queued; false without a manager, for an invalid name, or if the store
    ///   is full.
    package func store(_ descriptors: [Int32], as name: String) -> Bool {
        guard let socket = self.socket, let message = ServiceMessage.store(name) else { return false }
        self.remove(name)
        let count = self.stored.values.reduce(0, +)
        guard count + descriptors.count <= self.storeSize ?? .max else {
            if !self.storeIsFull {
                self.logger.warning(
                    """
                    the service manager keeps \(count) of the sockets: visitors of further names \
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

    /// Counts an inherited descriptor, which is still in the store.
    package func noteStored(_ name: String) { self.stored[name, default: 0] += 1 }

    /// Asks the manager to close the descriptors stored under a name.
    package func remove(_ name: String) {
        guard self.stored.removeValue(forKey: name) != nil, let message = ServiceMessage.removeStored(name) else {
            return
        }
        self.socket?.send(message)
    }
}
