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

    func isKept(_ port: UInt16) -> Bool { self.ledger.isKept(port) }

    func note(_ port: UInt16, for name: Name, _ identity: AgentIdentity) {
        guard self.ledger.note(port, for: name, identity), !self.isDirty else { return }
        self.isDirty = true
        self.loop.atTurnEnd(self)
    }
}

extension PortStore: TurnEndHandler {
    func turnDidEnd() {
        self.isDirty = false
        do throws(SettingsError) {
            try self.file.save(
                self.ledger.entries.map { .init(name: $0.name, identity: $0.identity, port: $0.port) })
        } catch {
            // A full disk must not end the service; the ports are kept in memory.
            self.logger.error("the public ports of names cannot be saved: \(error)")
        }
    }
}
