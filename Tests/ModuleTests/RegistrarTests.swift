import Foundation
import Logging
import Modules
import Reactor
import Settings
import Testing
import Wire

/// A directory and a loop for one registrar.
private final class Bench {
    let loop: EventLoop
    let directory: String

    init() throws {
        self.loop = try EventLoop()
        self.directory = FileManager.default.temporaryDirectory.appendingPathComponent(UUID().uuidString).path
        try FileManager.default.createDirectory(atPath: self.directory, withIntermediateDirectories: true)
    }

    /// The registrar that a configuration file would make.
    func settings(_ toml: String) throws -> RegistrarSettings {
        let path = "\(self.directory)/server.toml"
        try "[[registrar]]\n\(toml)\n".write(toFile: path, atomically: true, encoding: .utf8)
        var options = GatewayOptions()
        options.configuration = path
        options.stateDirectory = self.directory
        return try #require(try GatewaySettings(options).registrars.first)
    }

    func program(_ text: String) throws -> String {
        let path = "\(self.directory)/program-\(UUID().uuidString)"
        try "#!/bin/sh\n\(text)\n".write(toFile: path, atomically: true, encoding: .utf8)
        try FileManager.default.setAttributes([.posixPermissions: 0o755], ofItemAtPath: path)
        return path
    }

    /// Empty when there is no such file.
    func text(_ name: String) -> String {
        String(decoding: (try? FileAccess.read("\(self.directory)/\(name)", most: 1 << 20)) ?? [], as: UTF8.self)
    }

    /// Runs an action to its end.
    func wait(
        _ start: (@escaping (Result<Void, RegistrarError>) -> Void) -> (any Cancellable)?
    ) throws -> Result<Void, RegistrarError> {
        var result: Result<Void, RegistrarError>?
        let operation = start { result = $0 }
        #expect(self.loop.run { result != nil })
        _ = operation
        return try #require(result)
    }

    func close() {
        self.loop.close()
        try? FileManager.default.removeItem(atPath: self.directory)
    }
}

private func exposure(_ name: String, port: UInt16, bind: String = "127.0.0.1") throws -> PublicExposure {
    PublicExposure(
        name: try #require(Name(name)), identity: "one", address: SocketAddress(bind, port: port))
}

private let quiet = Logger(label: "test", factory: { _ in SwiftLogNoOpLogHandler() })

@Suite("Registrars", .serialized, .timeLimit(.minutes(1)))
struct RegistrarTests {
    @Test("a map file has a line for each name, and one command serves many changes")
    func mapFile() throws {
        let bench = try Bench()
        defer { bench.close() }
        let program = try bench.program("echo run >>\(bench.directory)/runs")
        guard
            case .mapFile(let settings) = try bench.settings(
                "kind = \"nginx\"\ndomain = \"gw.test\"\nfile = \"\(bench.directory)/map\"\nreload = [\"\(program)\"]")
        else { return _ = Issue.record("no map file") }
        let registrar = MapFileRegistrar(loop: bench.loop, settings: settings)
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
        try bench.wait { registrar.reset(completion: $0) }.get()
        #expect(bench.text("map") == "")
    }

    @Test("a proxy that does not reload and a file that cannot be written are errors with their reason")
    func mapFileFailures() throws {
        let bench = try Bench()
        defer { bench.close() }
        let program = try bench.program("echo first >&2; echo 'the map is bad' >&2; exit 3")
        guard
            case .mapFile(let settings) = try bench.settings(
                "kind = \"haproxy\"\ndomain = \"gw.test\"\nfile = \"\(bench.directory)/map\"\nreload = [\"\(program)\"]"
            )
        else { return _ = Issue.record("no map file") }
        let registrar = MapFileRegistrar(loop: bench.loop, settings: settings)
        defer { registrar.close() }
        let one = try exposure("one", port: 4711)
        let result = try bench.wait { registrar.publish(one, completion: $0) }
        #expect(throws: RegistrarError(reason: "\(program) ended with code 3: the map is bad")) { try result.get() }
        #expect(bench.text("map") == "one.gw.test 4711\n")
        try FileManager.default.createDirectory(atPath: "\(bench.directory)/map.new", withIntermediateDirectories: true)
        let again = try bench.wait { registrar.publish(one, completion: $0) }
        #expect(throws: RegistrarError.self) { try again.get() }
    }

    @Test("Traefik has a file for each name, which goes with it")
    func traefik() throws {
        let bench = try Bench()
        defer { bench.close() }
        let old = "\(bench.directory)/diglett-old.yml"
        let foreign = "\(bench.directory)/mine.yml"
        for path in [old, foreign] { try "{}".write(toFile: path, atomically: true, encoding: .utf8) }
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
        let registrar = try TraefikRegistrar(loop: bench.loop, settings: settings, logger: quiet)
        defer { registrar.close() }
        try bench.wait { registrar.reset(completion: $0) }.get()
        #expect(!FileAccess.exists(old) && FileAccess.exists(foreign))
        let one = try exposure("one", port: 4711)
        try bench.wait { registrar.publish(one, completion: $0) }.get()
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

    @Test("what is wrong with a registrar's table is named with its line")
    func settings() throws {
        let bench = try Bench()
        defer { bench.close() }
        func error(_ toml: String) -> String {
            do {
                _ = try bench.settings(toml)
                return ""
            } catch { return "\(error)".replacing("\(bench.directory)/", with: "") }
        }
        #expect(error("kind = \"apache\"").hasPrefix("server.toml:2: 'apache' is no registrar"))
        #expect(error("kind = \"caddy\"").contains("'domain' is missing"))
        #expect(error("kind = \"caddy\"\ndomain = \"Bad.Test\"").hasPrefix("server.toml:3: 'Bad.Test'"))
        #expect(error("kind = \"caddy\"\ndomain = \"a.test\"\ncolour = 1").hasPrefix("server.toml:4: unknown key"))
        #expect(
            error("kind = \"nginx\"\ndomain = \"a.test\"\nfile = \"/x\"\nreload = [\"nginx\"]").contains("whole path"))
        #expect(error("kind = \"exec\"\ncommand = [\"/nonexistent\"]").contains("no program that can be started"))
        #expect(error("kind = \"exec\"\ncommand = [\"/bin/true\"]\ntimeout = 60").contains("from 0.1 to 9"))
        #expect(error("kind = \"traefik\"\ndomain = \"a.test\"").contains("needs a 'directory'"))
        #expect(error("kind = \"webhook\"\nurl = \"http://example.com/\"").contains("write https://"))
        #expect(error("kind = \"webhook\"\nurl = \"http://localhost.evil.example/\"").contains("write https://"))
    }
}

@Suite("Hooks", .serialized, .timeLimit(.minutes(1)))
struct HookTests {
    private func ask(_ script: String, timeout: String = "5", count: Int = 1) throws -> [Result<
        HookAnswer, HookFailure
    >] {
        let bench = try Bench()
        defer { bench.close() }
        let program = try bench.program(script.replacing("$DIR", with: bench.directory))
        guard
            case .hook(.exec(let settings)) = try bench.settings(
                "kind = \"exec\"\ncommand = [\"\(program)\"]\ntimeout = \(timeout)")
        else { return [] }
        let hook = ExecHook(loop: bench.loop, settings: settings)
        var answers: [Result<HookAnswer, HookFailure>] = []
        let questions = (0..<count).map { _ in hook.ask(.reset) { answers.append($0) } }
        #expect(bench.loop.run { answers.count == count })
        _ = questions
        hook.close()
        return answers
    }

    @Test("answer in JSON, and with nothing else")
    func answers() throws {
        let good = try ask("cat >/dev/null; echo '{\"ok\":true,\"identity\":\"x\",\"more\":1}'")
        #expect(try good.first?.get().ok == true && good.first?.get().identity == "x")
        for (script, words) in [
            ("echo yes", "did not answer in its JSON: 'yes"), ("true", "answered nothing"),
            ("echo '{\"ok\":true,\"version\":2}'", "in version 2"), ("echo '{\"ok\":true}{}'", "JSON"),
            ("echo sorry >&2; exit 4", "ended with code 4: sorry"), ("kill -9 $$", "was ended by signal 9"),
            ("head -c 100000 /dev/zero", "wrote more than it may"),
        ] {
            #expect(throws: (HookFailure).self) { try ask(script).first?.get() }
            let failure = try ask(script).first
            guard case .failure(let error) = failure else { continue }
            #expect(error.description.contains(words), "\(script): \(error)")
        }
        guard case .failure(let late) = try ask("sleep 60 & sleep 60", timeout: "0.2").first else {
            return _ = Issue.record("no timeout")
        }
        #expect(late.description.contains("in time"))
    }

    @Test("run four at once")
    func crowd() throws {
        // Each counts those that run beside it.
        let script =
            "mkdir -p $DIR/r; touch $DIR/r/$$; sleep 0.05; n=$(ls $DIR/r | wc -l); rm $DIR/r/$$; "
            + "echo \"{\\\"ok\\\":true,\\\"identity\\\":\\\"$n\\\"}\""
        let answers = try ask(script, count: 24)
        let most = try answers.compactMap { try $0.get().identity.flatMap { Int($0) } }
        #expect(most.count == 24)
        #expect(most.allSatisfy { (1...4).contains($0) })
    }
}
