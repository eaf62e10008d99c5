import Journal
import Logging
import Reactor
import Synchronization
import Testing

/// Keeps the lines that are logged.
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

@Suite("Lines of the log that peers cause")
struct PeerLogTests {
    private func lines(_ body: (EventLoop, PeerLog) -> Void) throws -> [String] {
        let store = Lines.Store()
        let loop = try EventLoop()
        body(loop, PeerLog(Logger(label: "test") { _ in Lines(store: store) }, loop: loop))
        loop.close()
        return store.lines.withLock { $0 }
    }

    @Test("an agent that floods the log with refusals silences neither its milestones nor other agents")
    func kinds() throws {
        let lines = try self.lines { _, log in
            for _ in 0..<10_000 { log.write(.warning, .detail, of: .agent("bad"), "bad name") }
            log.write(.info, .milestone, of: .agent("bad"), "registered")
            log.write(.warning, .detail, of: .agent("good"), "refused")
        }
        #expect(lines.count(where: { $0 == "bad name" }) == 32)
        #expect(lines.suffix(2) == ["registered", "refused"])
    }

    @Test("a hundred names of one agent are registered, taken over and registered again without a gap")
    func honest() throws {
        let lines = try self.lines { _, log in
            for index in 0..<214 { log.write(.info, .milestone, of: .agent("honest"), "line \(index)") }
        }
        #expect(lines.count == 214)
    }

    @Test("a line whose level is off costs nothing of the rate")
    func levels() throws {
        let lines = try self.lines { _, log in
            for _ in 0..<1_000 { log.write(.debug, .detail, of: .agent("a"), "debug") }
            log.write(.info, .detail, of: .agent("a"), "info")
        }
        #expect(lines == ["info"])
    }

    @Test("the log tells how much was left out, and about whom")
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
                "8 further messages about agent 'a' were left out",
                "1 further message about visitors of 'web' was left out",
            ])
    }
}
