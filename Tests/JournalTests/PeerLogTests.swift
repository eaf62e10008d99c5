import Journal
import Logging
import Reactor
import Synchronization
import Testing

/// Keeps the log lines in memory.
private struct Lines: LogHandler {
    final class Store: Sendable {
        let lines = Mutex<[String]>([])
    }

    let store: Store
    var logLevel = Logger.Level.info
    var metadata: Logger.Metadata = [:]

    subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { self.metadata[key] }
        set { self.metadata[key] = newValue }
    }

    func log(event: LogEvent) {
        self.store.lines.withLock { $0.append("\(event.message)") }
    }
}

@Suite("Log lines caused by peers")
struct PeerLogTests {
    private func lines(_ body: (EventLoop, PeerLog) -> Void) throws -> [String] {
        let store = Lines.Store()
        let loop = try EventLoop()
        body(loop, PeerLog(Logger(label: "test") { _ in Lines(store: store) }, loop: loop))
        loop.close()
        return store.lines.withLock { $0 }
    }

    @Test("an agent that floods the log with refusals suppresses neither its own milestones nor other agents' lines")
    func kinds() throws {
        let lines = try self.lines { _, log in
            for _ in 0..<10_000 { log.write(.warning, .detail, of: .agent("bad"), "bad name") }
            log.write(.info, .milestone, of: .agent("bad"), "registered")
            log.write(.warning, .detail, of: .agent("good"), "refused")
        }
        #expect(lines.count(where: { $0 == "bad name" }) == 32)
        #expect(lines.suffix(2) == ["registered", "refused"])
    }

    @Test("an agent with a hundred names logs every registration and takeover")
    func honest() throws {
        let lines = try self.lines { _, log in
            for index in 0..<214 { log.write(.info, .milestone, of: .agent("honest"), "line \(index)") }
        }
        #expect(lines.count == 214)
    }

    @Test("a line whose level is off does not use up the rate")
    func levels() throws {
        let lines = try self.lines { _, log in
            for _ in 0..<1_000 { log.write(.debug, .detail, of: .agent("a"), "debug") }
            log.write(.info, .detail, of: .agent("a"), "info")
        }
        #expect(lines == ["info"])
    }

    @Test("the log reports how many lines were suppressed, and their subject")
    func leftOut() throws {
        let lines = try self.lines { loop, log in
            for _ in 0..<40 { log.write(.info, .detail, of: .agent("a"), "line") }
            for _ in 0..<33 { log.write(.info, .visitors, of: .visitors(of: "web"), "line") }
            var isOver = false
            let timer = LoopTimer(loop: loop) {
                log.tick()
                isOver = true
            }
            timer.start(after: 2_100)
            _ = loop.run { isOver }
            timer.close()
        }
        #expect(
            lines.suffix(2) == [
                "8 further messages about agent 'a' were suppressed",
                "1 further message about visitors of 'web' was suppressed",
            ])
    }
}
