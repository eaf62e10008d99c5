internal import Logging
internal import Reactor
internal import Registry
internal import Settings
internal import Wire

/// The port ledger with its file. Notes of one turn are saved together, at the turn's end.
final class PortStore {
    private let loop: EventLoop
    private let file: PortsFile
    private let logger: Logger
    private var ledger: PortLedger
    private var isDirty = false
    private var savedAt: UInt64?

    init(loop: EventLoop, path: String, logger: Logger) {
        self.loop = loop
        self.file = PortsFile(path: path)
        self.logger = logger
        do throws(SettingsError) {
            self.ledger = PortLedger(
                try self.file.load().map { .init(name: $0.name, identity: $0.identity, port: $0.port) })
        } catch {
            logger.error("the public ports of names are forgotten: \(error)")
            self.ledger = PortLedger()
        }
    }

    func port(of name: Name, for identity: AgentIdentity) -> UInt16? { self.ledger.port(of: name, for: identity) }

    func keeper(of port: UInt16) -> AgentIdentity? { self.ledger.keeper(of: port) }

    func isKept(_ port: UInt16) -> Bool { self.ledger.isKept(port) }

    func note(_ port: UInt16, for name: Name, _ identity: AgentIdentity) {
        guard self.ledger.note(port, for: name, identity), !self.isDirty else { return }
        self.isDirty = true
        self.loop.atTurnEnd(self)
    }

    /// Call it about once a second.
    func tick() {
        // Saving encodes the whole ledger: the larger it is, the more new names share one. A full one: every 2 s.
        let pause = UInt64(self.ledger.entries.count / 2)
        guard self.isDirty, self.loop.now - (self.savedAt ?? 0) >= pause else { return }
        self.saveNow()
    }

    func saveNow() {
        guard self.isDirty else { return }
        self.isDirty = false
        self.savedAt = self.loop.now
        do throws(SettingsError) {
            try self.file.save(
                self.ledger.entries.map { .init(name: $0.name, identity: $0.identity, port: $0.port) })
        } catch {
            // A full disk must not end the service; the ports are kept in memory.
            self.logger.error("the public ports of names cannot be saved: \(error)")
        }
    }
}

extension PortStore: TurnEndHandler {
    func turnDidEnd() {
        if self.savedAt == nil { self.saveNow() } else { self.tick() }
    }
}
