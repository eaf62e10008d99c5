internal import GatewayCore
internal import Logging
internal import Reactor
internal import Settings
internal import Wire

/// The file of the port ledger. Notes of one turn are saved together, at the turn's end. A save that failed, on a full
/// disk for example, is tried again until one works.
final class PortStore {
    private static let firstRetry: UInt64 = 1_000
    private static let longestRetry: UInt64 = 30_000

    private let loop: EventLoop
    private let file: PortsFile
    private let logger: Logger
    private var current: (() -> PortLedger)?
    private var isDirty = false
    private var savedAt: UInt64?
    /// Since the last save that worked.
    private var failures = 0

    init(loop: EventLoop, path: String, logger: Logger) {
        self.loop = loop
        self.file = PortsFile(path: path)
        self.logger = logger
    }

    /// The ledger that a former run has saved.
    ///
    /// - Parameter namesPerAgent: that one identity can hold at once.
    func load(namesPerAgent: Int) -> PortLedger {
        do throws(SettingsError) {
            return PortLedger(
                namesPerAgent: namesPerAgent,
                try self.file.load().map { .init(name: $0.name, identity: $0.identity, port: $0.port) })
        } catch {
            self.logger.error("cannot read the saved public ports, starting without them: \(error)")
            return PortLedger(namesPerAgent: namesPerAgent)
        }
    }

    /// - Parameter current: returns the ledger as it is when it is saved.
    func start(_ current: @escaping () -> PortLedger) { self.current = current }

    /// Has the ledger saved soon.
    func changed() {
        guard !self.isDirty || self.failures > 0 else { return }
        self.isDirty = true
        self.loop.atTurnEnd(self)
    }

    /// Saves what was not saved yet, when it is time.
    func tick() {
        guard self.loop.now - (self.savedAt ?? 0) >= max(self.pause, self.retryPause) else { return }
        self.saveNow()
    }

    /// Saving encodes the whole ledger: the larger it is, the more new names share one. A full one: every 4 s.
    private var pause: UInt64 { UInt64((self.current?().count ?? 0) / 2) }

    private var retryPause: UInt64 {
        self.failures == 0 ? 0 : min(Self.firstRetry << UInt64(min(self.failures - 1, 10)), Self.longestRetry)
    }

    func saveNow() {
        guard self.isDirty, let ledger = self.current?() else { return }
        self.savedAt = self.loop.now
        do throws(SettingsError) {
            try self.file.save(
                ledger.entries.map { .init(name: $0.name, identity: $0.identity, port: $0.port) })
            if self.failures > 0 { self.logger.notice("saving public ports works again") }
            self.isDirty = false
            self.failures = 0
        } catch {
            // A full disk must not end the service: the ports are kept in memory. The log has the first failure only.
            self.failures += 1
            self.logger.log(
                level: self.failures == 1 ? .error : .debug,
                "cannot save the public ports of names, will retry: \(error)")
        }
    }
}

extension PortStore: TurnEndHandler {
    func turnDidEnd() {
        // What is new is tried at once, also after a failure.
        guard self.loop.now - (self.savedAt ?? 0) >= self.pause || self.savedAt == nil else { return }
        self.saveNow()
    }
}
