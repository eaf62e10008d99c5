import Testing

@testable import Agent

@Suite("What a terminal shows")
struct TerminalViewTests {
    /// Without colours.
    private func plain(_ lines: [String]) -> [String] {
        lines.map { line in
            var line = line
            while let start = line.firstRange(of: "\u{1B}[") {
                let end = line[start.upperBound...].firstIndex(of: "m") ?? line.endIndex
                line.removeSubrange(start.lowerBound...end)
            }
            return line
        }
    }

    private func registered(_ name: String, _ address: String?, problem: String? = nil) -> AgentEvent {
        .registered(name: name, address: address, port: 1, backend: "localhost:9", problem: problem)
    }

    private let connected = AgentEvent.connected(gateway: "gw:20000", pin: nil)

    @Test("is the gateway, then each name as its answer comes, then how to stop")
    func block() {
        let view = TerminalView(names: [("web", "localhost:9"), ("database", "unix:/run/db")])
        let first = view.lines(for: self.connected)
        #expect(self.plain(first) == ["● connected to gw:20000", ""])
        #expect(first[0].hasPrefix("\u{1B}[32m"), "a connection is green")
        #expect(
            self.plain(view.lines(for: self.registered("web", "gw:1"))) == ["  web       gw:1  →  localhost:9  online"])
        #expect(
            self.plain(view.lines(for: .missing(name: "database", code: "name-taken", message: "it is taken"))) == [
                "  database  →  unix:/run/db  not reachable, see the warning", "",
                "Press Ctrl-C to stop; use -d to log every visitor.",
            ])
    }

    @Test("has a caution for a name without a public address")
    func problem() {
        let view = TerminalView(names: [("web", "localhost:9")])
        _ = view.lines(for: self.connected)
        let lines = view.lines(for: self.registered("web", nil, problem: "reachable there only"))
        #expect(self.plain(lines)[0] == "  web  →  localhost:9  not public, see the warning")
        #expect(lines[0].contains("\u{1B}[33m"))
    }

    @Test("after the block, only changes and the first visitor of each name get a line")
    func changes() {
        let view = TerminalView(names: [("web", "localhost:9")])
        _ = view.lines(for: self.connected)
        _ = view.lines(for: self.registered("web", "gw:1"))
        #expect(view.awaitsVisitor(of: "web"))
        #expect(!view.awaitsVisitor(of: "other"))
        #expect(
            self.plain(view.lines(for: .stream(name: "web", visitor: "192.0.2.1:5"))) == [
                "first visitor of web: 192.0.2.1:5"
            ])
        #expect(!view.awaitsVisitor(of: "web"))
        #expect(view.lines(for: .stream(name: "web", visitor: "192.0.2.2:5")) == [])
        // The log warns about the rest.
        for event in [AgentEvent.lost(reason: "x"), .retrying(seconds: 1), .omitted(count: 3)] {
            #expect(view.lines(for: event) == [])
        }
        #expect(self.plain(view.lines(for: self.connected)) == ["● connected to gw:20000 again"])
        #expect(view.lines(for: self.registered("web", "gw:1")) == [], "nothing has changed")
        #expect(
            self.plain(view.lines(for: self.registered("web", "gw:2"))) == ["  web  gw:2  →  localhost:9  online"])
        #expect(view.lines(for: .missing(name: "web", code: "revoked", message: "m")) == [])
        #expect(
            self.plain(view.lines(for: self.registered("web", "gw:2"))) == ["  web  gw:2  →  localhost:9  online"])
    }

    @Test("a reload shows what was added, changed and removed")
    func reload() {
        let view = TerminalView(names: [("web", "localhost:9")])
        _ = view.lines(for: self.connected)
        _ = view.lines(for: self.registered("web", "gw:1"))
        #expect(view.change(to: [("web", "localhost:9"), ("new", "localhost:8")]) == [])
        #expect(view.lines(for: self.registered("web", "gw:1")) == [])
        #expect(self.plain(view.lines(for: self.registered("new", "gw:3"))) == ["  new  gw:3  →  localhost:8  online"])
        #expect(
            self.plain(view.change(to: [("web", "localhost:7"), ("new", "localhost:8")])) == [
                "  web  gw:1  →  localhost:7  online"
            ])
        #expect(self.plain(view.change(to: [("new", "localhost:8")])) == ["  web  removed"])
        #expect(view.lines(for: self.registered("web", "gw:4")) == [])
    }

    @Test("the last name without an answer may be removed")
    func removedWhilePending() {
        let view = TerminalView(names: [("web", "localhost:9"), ("down", "localhost:1")])
        _ = view.lines(for: self.connected)
        _ = view.lines(for: self.registered("web", "gw:1"))
        #expect(
            self.plain(view.change(to: [("web", "localhost:9")])) == [
                "  down  removed", "", "Press Ctrl-C to stop; use -d to log every visitor.",
            ])
    }
}
