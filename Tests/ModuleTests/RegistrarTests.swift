import Foundation
import Journal
import Logging
import Modules
import Reactor
import Settings
import Testing
import Wire

/// The beginning of the file that a former run wrote for the name `old`.
private let formerFile = "{\n  \"tcp\" : {\n    \"routers\" : {\n      \"diglett-old\" : {}}}}"

@Suite("Registrars", .serialized, .timeLimit(.minutes(1)))
struct RegistrarTests {
    @Test("a map file has one line per name, and one reload covers many changes")
    func mapFile() throws {
        let bench = try Bench()
        defer { bench.close() }
        let program = try bench.program("echo run >>\(bench.directory)/runs")
        let registrar = try bench.mapFileRegistrar("nginx", reload: program)
        defer { registrar.close() }
        var done = 0
        for number in 1...20 {
            _ = registrar.publish(try exposure("app-\(number)", port: UInt16(number), bind: "0.0.0.0")) { _ in done += 1
            }
        }
        #expect(bench.loop.run { done == 20 })
        #expect(bench.text("runs") == "run\n")
        #expect(bench.text("map").split(separator: "\n").contains("app-7.gw.test 127.0.0.1:7;"))
        let seventh = try exposure("app-7", port: 7)
        try bench.wait { registrar.withdraw(seventh, completion: $0) }.get()
        #expect(!bench.text("map").contains("app-7."))
        #expect(bench.text("map").split(separator: "\n").count == 19)
        #expect(try bench.wait { registrar.reset(keeping: [], completion: $0) }.get().isEmpty)
        #expect(bench.text("map") == "")
    }

    @Test("reloads are at least half a second apart, and the changes between them share one reload")
    func mapFilePause() throws {
        let bench = try Bench()
        defer { bench.close() }
        let program = try bench.program("echo run >>\(bench.directory)/runs")
        let registrar = try bench.mapFileRegistrar("nginx", reload: program)
        defer { registrar.close() }
        let one = try exposure("one", port: 1)
        let began = EventLoop.nanoseconds
        try bench.wait { registrar.publish(one, completion: $0) }.get()
        #expect(bench.text("runs") == "run\n")
        var done = 0
        for number in 2...9 {
            let exposure = try exposure("app-\(number)", port: UInt16(number))
            _ = registrar.publish(exposure) { _ in done += 1 }
            // Each publication happens in its own turn.
            var hasRun = false
            let timer = LoopTimer(loop: bench.loop) { hasRun = true }
            timer.start(after: 1)
            #expect(bench.loop.run { hasRun })
            timer.close()
        }
        #expect(bench.loop.run { done == 8 })
        #expect(EventLoop.nanoseconds - began >= 500_000_000)
        #expect(bench.text("runs") == "run\nrun\n")
    }

    @Test("a failed reload and an unwritable file are errors with their reason")
    func mapFileFailures() throws {
        let bench = try Bench()
        defer { bench.close() }
        let program = try bench.program("echo first >&2; echo 'the map is bad' >&2; exit 3")
        let registrar = try bench.mapFileRegistrar("haproxy", reload: program)
        defer { registrar.close() }
        let one = try exposure("one", port: 4711)
        let result = try bench.wait { registrar.publish(one, completion: $0) }
        #expect(throws: RegistrarError(reason: "\(program) exited with code 3: the map is bad")) { try result.get() }
        #expect(bench.text("map") == "one.gw.test 4711\n")
        try FileManager.default.createDirectory(atPath: "\(bench.directory)/map.new", withIntermediateDirectories: true)
        let again = try bench.wait { registrar.publish(one, completion: $0) }
        #expect(throws: RegistrarError.self) { try again.get() }
    }

    @Test("Traefik has one file per name, which is removed with the name")
    func traefik() throws {
        let bench = try Bench()
        defer { bench.close() }
        let old = "\(bench.directory)/diglett-old.yml"
        let foreign = "\(bench.directory)/diglett-mine.yml"
        for (path, text) in [(old, formerFile), (foreign, "{}")] {
            try text.write(toFile: path, atomically: true, encoding: .utf8)
        }
        guard
            case .traefik(let settings) = try bench.settings(
                """
                kind = "traefik"
                domain = "gw.test"
                directory = "\(bench.directory)"
                scheme = "tcp"
                entry-points = "tls"
                """)
        else { return _ = Issue.record("no traefik") }
        let registrar = try TraefikRegistrar(
            loop: bench.loop, settings: settings, log: PeerLog(quiet, loop: bench.loop))
        defer { registrar.close() }
        #expect(try bench.wait { registrar.reset(keeping: [], completion: $0) }.get().isEmpty)
        #expect(!FileAccess.exists(old) && FileAccess.exists(foreign))
        let one = try exposure("one", port: 4711)
        try bench.wait { registrar.publish(one, completion: $0) }.get()
        let mine = try exposure("mine", port: 1)
        #expect(throws: RegistrarError.self) { try bench.wait { registrar.publish(mine, completion: $0) }.get() }
        try bench.wait { registrar.withdraw(mine, completion: $0) }.get()
        #expect(bench.text("diglett-mine.yml") == "{}")
        let text = bench.text("diglett-one.yml").filter { !$0.isWhitespace }
        #expect(
            text
                == #"{"tcp":{"routers":{"diglett-one":{"entryPoints":["tls"],"rule":"HostSNI(`one.gw.test`)","#
                + #""service":"diglett-one","tls":{}}},"services":{"diglett-one":{"loadBalancer":"#
                + #"{"servers":[{"address":"127.0.0.1:4711"}]}}}}}"#)
        try bench.wait { registrar.withdraw(one, completion: $0) }.get()
        try bench.wait { registrar.withdraw(one, completion: $0) }.get()
        #expect(bench.text("diglett-one.yml") == "")
    }

    @Test(
        "two registrars cannot have the same target",
        arguments: [
            ("kind = \"caddy\"\ndomain = \"a.test\"", "kind = \"caddy\"\ndomain = \"b.test\"\nserver = \"srv1\"", 6),
            (
                "kind = \"caddy\"\ndomain = \"a.test\"",
                "kind = \"caddy\"\ndomain = \"b.test\"\nadmin = \"http://127.0.0.1:2019\"", 8
            ),
            (
                "kind = \"caddy\"\ndomain = \"a.test\"",
                "kind = \"caddy\"\ndomain = \"b.test\"\nadmin = \"http://LOCALHOST:2019\"", 8
            ),
            (
                "kind = \"nginx\"\ndomain = \"a.test\"\nfile = \"/x/y\"\nreload = [\"/bin/true\"]",
                "kind = \"nginx\"\ndomain = \"b.test\"\nfile = \"/x/../x/y\"\nreload = [\"/bin/true\"]", 10
            ),
            (
                "kind = \"traefik\"\ndomain = \"a.test\"\ndirectory = \"/x/y\"",
                "kind = \"traefik\"\ndomain = \"b.test\"\ndirectory = \"/x//./y/\"", 9
            ),
            (
                "kind = \"nginx\"\ndomain = \"a.test\"\nfile = \"/x\"\nreload = [\"/bin/true\"]",
                "kind = \"haproxy\"\ndomain = \"b.test\"\nfile = \"/x\"\nreload = [\"/bin/true\"]", 10
            ),
        ])
    func targets(first: String, second: String, line: Int) throws {
        let bench = try Bench()
        defer { bench.close() }
        do {
            _ = try bench.settings("\(first)\n\n[[registrar]]\n\(second)")
            Issue.record("accepted")
        } catch let error as SettingsErrors {
            #expect(error.all.count == 1)
            #expect("\(error)".contains("server.toml:\(line): the registrar at "), "\(error)")
        }
        let other = second.replacing("/x", with: "/z").replacing(":2019", with: ":2020")
            .replacing("server = \"srv1\"", with: "admin = \"http://localhost:2020\"")
        _ = try bench.settings("\(first)\n\n[[registrar]]\n\(other)")
    }

    @Test("a late reset keeps the wanted names")
    func lateReset() throws {
        let bench = try Bench()
        defer { bench.close() }
        let program = try bench.program("true")
        guard
            case .traefik(let traefik) = try bench.settings(
                "kind = \"traefik\"\ndomain = \"gw.test\"\ndirectory = \"\(bench.directory)\""),
            case .mapFile(let map) = try bench.settings(
                "kind = \"nginx\"\ndomain = \"gw.test\"\nfile = \"\(bench.directory)/map\"\nreload = [\"\(program)\"]")
        else { return _ = Issue.record("no registrars") }
        let old = "\(bench.directory)/diglett-old.yml"
        try formerFile.write(toFile: old, atomically: true, encoding: .utf8)
        let files = try TraefikRegistrar(loop: bench.loop, settings: traefik, log: PeerLog(quiet, loop: bench.loop))
        let lines = MapFileRegistrar(loop: bench.loop, settings: map)
        let exposures = [try exposure("one", port: 1), try exposure("two", port: 2), try exposure("three", port: 3)]
        for registrar in [files as any Registrar, lines] {
            for exposure in exposures { try bench.wait { registrar.publish(exposure, completion: $0) }.get() }
        }
        try FileAccess.remove("\(bench.directory)/diglett-two.yml")
        let keeping = Array(exposures.dropLast())
        let missing = try bench.wait { files.reset(keeping: keeping, completion: $0) }.get()
        #expect(missing.map(\.name.text) == ["two"])
        #expect(!FileAccess.exists(old) && !FileAccess.exists("\(bench.directory)/diglett-three.yml"))
        #expect(FileAccess.exists("\(bench.directory)/diglett-one.yml"))
        #expect(try bench.wait { lines.reset(keeping: keeping, completion: $0) }.get().isEmpty)
        #expect(bench.text("map") == "one.gw.test 127.0.0.1:1;\ntwo.gw.test 127.0.0.1:2;\n")
        for registrar in [files as any Registrar, lines] { registrar.close() }
    }

    @Test("an error in a registrar's table is reported with its line")
    func settings() throws {
        let bench = try Bench()
        defer { bench.close() }
        func error(_ toml: String) -> String {
            do {
                _ = try bench.settings(toml)
                return ""
            } catch { return "\(error)".replacing("\(bench.directory)/", with: "") }
        }
        #expect(error("kind = \"apache\"").hasPrefix("server.toml:2: 'apache' is not a registrar"))
        #expect(error("kind = \"caddy\"").contains("'domain' is missing"))
        #expect(error("kind = \"caddy\"\ndomain = \"Bad.Test\"").hasPrefix("server.toml:3: 'Bad.Test'"))
        #expect(error("kind = \"caddy\"\ndomain = \"a.test\"\ncolour = 1").hasPrefix("server.toml:4: unknown key"))
        #expect(
            error("kind = \"nginx\"\ndomain = \"a.test\"\nfile = \"/x\"\nreload = [\"nginx\"]").contains(
                "write the program's absolute path"))
        #expect(error("kind = \"exec\"\ncommand = [\"/nonexistent\"]").contains("not an executable file"))
        #expect(error("kind = \"exec\"\ncommand = [\"/bin/true\"]\ntimeout = 60").contains("from 0.1 to 9"))
        #expect(error("kind = \"traefik\"\ndomain = \"a.test\"").contains("needs a 'directory'"))
        #expect(error("kind = \"webhook\"\nurl = \"http://example.com/\"").contains("write https://"))
        #expect(error("kind = \"webhook\"\nurl = \"http://localhost.evil.example/\"").contains("write https://"))
    }
}
