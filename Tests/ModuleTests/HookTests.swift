import Foundation
import Logging
import Modules
import Reactor
import Settings
import Testing
import Wire

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
        let hook = HookQueue(
            loop: bench.loop, hook: ExecHook(loop: bench.loop, settings: settings), maxRunning: ExecHook.maxRunning)
        var answers: [Result<HookAnswer, HookFailure>] = []
        let questions = (0..<count).map { _ in hook.ask(.reset) { answers.append($0) } }
        #expect(bench.loop.run { answers.count == count })
        _ = questions
        hook.close()
        return answers
    }

    @Test("must answer in JSON and with nothing else")
    func answers() throws {
        let good = try ask("cat >/dev/null; echo '{\"ok\":true,\"identity\":\"x\"}'")
        #expect(try good.first?.get().ok == true && good.first?.get().identity == "x")
        for (script, words) in [
            ("echo yes", "sent an answer that is not valid JSON: 'yes"), ("true", "sent an empty answer"),
            ("echo '{\"ok\":true,\"version\":2,\"more\":1}'", "schema version 2 instead of 1"),
            ("echo '{\"ok\":true}{}'", "JSON"),
            ("echo sorry >&2; exit 4", "exited with code 4: sorry"), ("kill -9 $$", "was killed by signal 9"),
            ("head -c 100000 /dev/zero", "wrote too much output and was killed"),
        ] {
            #expect(throws: (HookFailure).self) { try ask(script).first?.get() }
            let failure = try ask(script).first
            guard case .failure(let error) = failure else { continue }
            #expect(error.description.contains(words), "\(script): \(error)")
        }
        guard case .failure(let late) = try ask("sleep 60 & sleep 60", timeout: "0.2").first else {
            return _ = Issue.record("no timeout")
        }
        #expect(late.description.contains("timed out and was killed"))
    }

    @Test(
        "an answer with an unknown field or an invalid limit is refused",
        arguments: zip(
            [
                #"{"ok":true,"limit":{"names":1}}"#, #"{"ok":true,"limits":{"name":1}}"#, #"{"ok":true,"a\u001b":1}"#,
                #"{"ok":true,"limits":{"names":0}}"#, #"{"ok":true,"limits":{"links":65536}}"#,
                #"{"ok":true,"ports":["abc"]}"#, #"{"ok":true,"ports":["2-1"]}"#,
                #"{"ok":true,"limits":{"streams":-1}}"#, #"{"ok":true,"limits":{"streams":"1"}}"#, #"{"ok":1}"#, "{}",
                "[]",
            ],
            [
                "an unknown field: 'limit'", "'limits.name'", #"'a\u{1B}'"#, "'limits.names'",
                "'limits.links'",
                "'abc' in 'ports'", "'2-1' in 'ports'", "'limits.streams'", "JSON", "JSON", "JSON", "JSON",
            ]))
    func strictness(_ text: String, _ words: String) throws {
        guard case .failure(let failure) = HookAnswer.parse(Array(text.utf8)) else {
            return _ = Issue.record("\(text) is an answer")
        }
        #expect(failure.description.contains(words), "\(failure)")
    }

    @Test("the examples in docs/hooks.schema.json are valid answers")
    func examples() throws {
        struct Schema: Decodable {
            struct Definition: Decodable { let examples: [HookAnswer]? }
            struct Definitions: Decodable { let answer: Definition }
            let definitions: Definitions
            private enum CodingKeys: String, CodingKey { case definitions = "$defs" }
        }
        let file = URL(filePath: #filePath).deletingLastPathComponent()
            .appending(path: "../../docs/hooks.schema.json")
        let schema = try JSONDecoder().decode(Schema.self, from: Data(contentsOf: file))
        let answers = try #require(schema.definitions.answer.examples)
        #expect(answers.contains { $0.ok && $0.identity != nil } && answers.contains { !$0.ok && $0.reason != nil })
    }

    @Test("run at most four at once")
    func crowd() throws {
        // Each counts the hooks running at the same time, itself included.
        let script =
            "mkdir -p $DIR/r; touch $DIR/r/$$; sleep 0.05; n=$(ls $DIR/r | wc -l); rm $DIR/r/$$; "
            + "echo \"{\\\"ok\\\":true,\\\"identity\\\":\\\"$n\\\"}\""
        let answers = try ask(script, count: 24)
        let atMost = try answers.compactMap { try $0.get().identity.flatMap { Int($0) } }
        #expect(atMost.count == 24)
        #expect(atMost.allSatisfy { (1...4).contains($0) })
    }

    @Test("a question is cancelled when its last caller cancels, and can then be asked again")
    func leaving() throws {
        let bench = try Bench()
        defer { bench.close() }
        let hook = SilentHook()
        let authenticator = HookAuthenticator(loop: bench.loop, hook: hook)
        defer { authenticator.close() }
        let peer = try #require(SocketAddress("127.0.0.1", port: 1))
        let request = NameRequest(identity: "x", peer: peer, name: try #require(Name("first")), port: 0)
        var verdicts: [NameVerdict] = []
        func ask() throws -> any Cancellable {
            try #require(authenticator.authorize(request) { verdicts.append($0) })
        }
        let (first, second) = (try ask(), try ask())
        #expect(hook.questions.count == 1)
        first.cancel()
        first.cancel()
        #expect(!hook.questions[0].isCancelled)
        second.cancel()
        #expect(hook.questions[0].isCancelled)
        let third = try ask()
        #expect(hook.questions.count == 2)
        hook.questions[1].answer(.failure(HookFailure("is gone")))
        #expect(verdicts.count == 1)
        third.cancel()
        #expect(!hook.questions[1].isCancelled)
    }

    @Test("a login is the same from every port of a host, but not from another host")
    func sameLogin() throws {
        let bench = try Bench()
        defer { bench.close() }
        let hook = SilentHook()
        let authenticator = HookAuthenticator(loop: bench.loop, hook: hook)
        defer { authenticator.close() }
        var verdicts: [LoginVerdict] = []
        var operations: [any Cancellable] = []
        func login(_ host: String, _ port: UInt16) throws {
            let peer = try #require(SocketAddress(host, port: port))
            let request = LoginRequest(
                peer: peer, isFromLoopback: false, credentials: .version1(token: "t"), certificatePin: nil)
            if let operation = authenticator.authenticate(request, completion: { verdicts.append($0) }) {
                operations.append(operation)
            }
        }
        for port in 1...3 as ClosedRange<UInt16> { try login("192.0.2.1", port) }
        try login("192.0.2.2", 1)
        #expect(hook.questions.count == 2)
        hook.questions[0].answer(HookAnswer.parse(Array(#"{"ok":false,"reason":"not from there"}"#.utf8)))
        #expect(verdicts.count == 3)
        hook.questions[1].answer(HookAnswer.parse(Array(#"{"ok":true,"identity":"x"}"#.utf8)))
        guard case .granted = verdicts.last else { return _ = Issue.record("\(verdicts)") }
        // The refusal is remembered for that host.
        try login("192.0.2.1", 4)
        guard case .refused(_, let reason) = verdicts.last else { return _ = Issue.record("\(verdicts)") }
        #expect(reason.contains("remembered"))
        try login("192.0.2.2", 4)
        #expect(hook.questions.count == 3 && verdicts.count == 5)
    }
}
