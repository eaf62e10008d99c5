internal import GatewayCore
internal import Logging
internal import Reactor
internal import Settings
internal import Wire

/// The file with the port ledger. Changes within one turn are saved together at its end. A failed save, for example on
/// a full disk, is retried until it succeeds.
final class PortStore {
    private static let firstRetry: UInt64 = 1_000
    private static let longestRetry: UInt64 = 30_000

    private let loop: EventLoop
    private let file: PortsFile
    private let logger: Logger
    private var current: (() -> PortLedger)?
    private var isDirty = false
    private var savedAt: UInt64?
    /// Consecutive failed saves.
    private var failures = 0

    init(loop: EventLoop, path: String, logger: Logger) {
        self.loop = loop
        self.file = PortsFile(path: path)
        self.logger = logger
    }

    /// Loads the saved ledger. If that fails, logs the error and returns an empty one.
    ///
    /// - Parameter namesPerAgent: the most names that one identity may hold.
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

    /// - Parameter current: returns the ledger to save.
    func start(_ current: @escaping () -> PortLedger) { self.current = current }

    /// Marks the ledger as changed; it is saved at the end of the turn or soon after.
    func changed() {
        guard !self.isDirty || self.failures > 0 else { return }
        self.isDirty = true
        self.loop.atTurnEnd(self)
    }

    /// Saves pending changes if a save or a retry is due. Call about once a second.
    func tick() {
        guard self.loop.now - (self.savedAt ?? 0) >= max(self.pause, self.retryPause) else { return }
        self.saveNow()
    }

    /// The minimum time between saves, in milliseconds. A save encodes the whole ledger, so it grows with the ledger: 4
    /// s when that is full.
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
            // A full disk must not stop the service: the ports stay in memory.
            // Only the first failure is logged as an error.
            self.failures += 1
            self.logger.log(
                level: self.failures == 1 ? .error : .debug,
                "cannot save the public ports of names, will retry: \(error)")
        }
    }
}

extension PortStore: TurnEndHandler {
    func turnDidEnd() {
        // A new change is tried even after a failed save, without waiting for the retry.
        guard self.loop.now - (self.savedAt ?? 0) >= self.pause || self.savedAt == nil else { return }
        self.saveNow()
    }
}
