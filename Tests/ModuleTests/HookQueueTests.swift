import Modules
import Reactor
import Testing
import Wire

@Suite("HookQueue", .serialized, .timeLimit(.minutes(1)))
struct HookQueueTests {
    /// An authenticator whose hook runs two questions at once.
    private final class Stand {
        let loop: EventLoop
        let hook = SilentHook()
        let authenticator: HookAuthenticator
        var verdicts: [String: LoginVerdict] = [:]
        var names: [String: NameVerdict] = [:]
        private var operations: [String: any Cancellable] = [:]

        init() throws {
            self.loop = try EventLoop()
            self.authenticator = HookAuthenticator(
                loop: self.loop, hook: HookQueue(loop: self.loop, hook: self.hook, maxRunning: 2))
        }

        func login(_ token: String, from host: String) throws {
            let peer = try #require(SocketAddress(host, port: 1))
            let request = LoginRequest(
                peer: peer, isFromLoopback: false, credentials: .version1(token: token), certificatePin: nil)
            self.operations[token] = self.authenticator.authenticate(request) { self.verdicts[token] = $0 }
        }

        func name(_ name: String, of identity: String) throws {
            let peer = try #require(SocketAddress("127.0.0.1", port: 1))
            let request = NameRequest(identity: identity, peer: peer, name: try #require(Name(name)), port: 0)
            self.operations[name] = self.authenticator.authorize(request) { self.names[name] = $0 }
        }

        func cancel(_ key: String) { self.operations.removeValue(forKey: key)?.cancel() }

        /// Answers all questions of the hook, one after the other. Returns them in order.
        func order() -> [String] {
            var result: [String] = []
            while let next = self.hook.open.first {
                result.append(next.request.token ?? next.request.name ?? "")
                self.hook.answer()
            }
            return result
        }

        func close() {
            self.operations = [:]
            self.authenticator.close()
            self.loop.run()
            self.loop.close()
        }
    }

    @Test("sources take turns: the only login of one source is served next, however many another source has")
    func turns() throws {
        let stand = try Stand()
        defer { stand.close() }
        for number in 0..<40 { try stand.login("a\(number)", from: "192.0.2.1") }
        try stand.login("honest", from: "192.0.2.2")
        try stand.login("mapped", from: "::ffff:192.0.2.1")
        try stand.login("other", from: "2001:db8::1")
        try stand.login("same-64", from: "2001:db8::2")
        #expect(stand.hook.open.count == 2)
        let order = stand.order()
        #expect(order.prefix(8) == ["a0", "honest", "a1", "other", "a2", "same-64", "a3", "a4"])
        #expect(order.count == 44 && order.last == "mapped", "it is one of the first source")
        #expect(stand.verdicts.count == 44)
    }

    @Test("a source at its limit loses its oldest login, and takes no slots from others")
    func bound() throws {
        let stand = try Stand()
        defer { stand.close() }
        try stand.login("b0", from: "192.0.2.2")
        try stand.login("b1", from: "192.0.2.2")
        try stand.login("b2", from: "192.0.2.2")
        let atMost = HookQueue.maxLoginsPerSource
        for number in 0..<(atMost + 11) { try stand.login("a\(number)", from: "192.0.2.1") }
        #expect(stand.verdicts.isEmpty, "not from inside the call")
        #expect(stand.loop.run { stand.verdicts.count == 10 })
        for number in 1...10 {
            guard case .refused(.overloaded, let reason) = stand.verdicts["a\(number)"] else {
                return _ = Issue.record("\(stand.verdicts)")
            }
            #expect(reason.contains("too many requests are waiting"))
        }
        #expect(stand.order().prefix(5) == ["b0", "a0", "b1", "a11", "b2"])
    }

    @Test("when all slots are taken, the source with most logins loses one")
    func largest() throws {
        let stand = try Stand()
        defer { stand.close() }
        let atMost = HookQueue.maxLoginsPerSource
        try stand.login("x0", from: "192.0.2.9")
        try stand.login("x1", from: "192.0.2.9")
        for source in 1...3 {
            for number in 0..<atMost { try stand.login("s\(source)-\(number)", from: "192.0.2.\(source)") }
        }
        for number in 0..<(atMost - 1) { try stand.login("s4-\(number)", from: "192.0.2.4") }
        try stand.login("honest", from: "192.0.2.5")
        try stand.login("second", from: "192.0.2.5")
        #expect(stand.loop.run { !stand.verdicts.isEmpty })
        #expect(stand.verdicts.count == 1)
        #expect(["s2-0", "s3-0"].contains(stand.verdicts.keys.first))
        #expect(stand.order().prefix(10).contains("honest"))
    }

    @Test("names take turns with logins, and agents with each other; a cancelled login is not sent")
    func names() throws {
        let stand = try Stand()
        defer { stand.close() }
        try stand.login("a0", from: "192.0.2.1")
        try stand.login("a1", from: "192.0.2.1")
        for number in 0..<300 { try stand.name("n\(number)", of: "greedy") }
        try stand.name("other", of: "modest")
        for number in 2..<5 { try stand.login("a\(number)", from: "192.0.2.1") }
        stand.cancel("a3")
        let order = stand.order()
        #expect(order.prefix(7) == ["a0", "n0", "n1", "a1", "other", "a2", "n2"])
        #expect(stand.names.count == 301 && stand.verdicts["a3"] == nil, "questions about names always wait")
    }

    @Test("a question cancelled while it runs makes room for the next when it is over")
    func cancelled() throws {
        let stand = try Stand()
        defer { stand.close() }
        for number in 0..<3 { try stand.login("a\(number)", from: "192.0.2.1") }
        stand.hook.questions[0].endsAtOnce = false
        stand.cancel("a0")
        #expect(stand.hook.questions[0].isCancelled)
        #expect(stand.hook.open.isEmpty, "it has its place until its program is gone")
        stand.hook.questions[0].whenOver?()
        #expect(stand.hook.open.map(\.request.token) == ["a1"])
    }

    @Test("one source never occupies all running questions")
    func reserve() throws {
        let stand = try Stand()
        defer { stand.close() }
        for number in 0..<10 { try stand.login("a\(number)", from: "192.0.2.1") }
        #expect(stand.hook.open.map(\.request.token) == ["a0"])
        try stand.login("honest", from: "192.0.2.2")
        #expect(stand.hook.open.map(\.request.token) == ["a0", "honest"])
    }
}

/// A hook whose answers are sent by the test.
final class SilentHook: HookTransport {
    final class Question: Cancellable {
        let request: HookRequest
        var completion: ((Result<HookAnswer, HookFailure>) -> Void)?
        var whenOver: (() -> Void)?
        var isCancelled = false
        var isAnswered = false
        /// Whether the question ends as soon as it is cancelled.
        var endsAtOnce = true

        init(
            _ request: HookRequest, _ completion: @escaping (Result<HookAnswer, HookFailure>) -> Void,
            _ whenOver: @escaping () -> Void
        ) {
            self.request = request
            self.completion = completion
            self.whenOver = whenOver
        }

        func cancel() {
            self.isCancelled = true
            if self.endsAtOnce { self.whenOver?() }
        }

        func answer(_ result: Result<HookAnswer, HookFailure>) {
            self.isAnswered = true
            self.completion?(result)
            self.whenOver?()
        }
    }

    var questions: [Question] = []
    var label: String { "silent" }

    func ask(
        _ request: HookRequest, completion: @escaping (Result<HookAnswer, HookFailure>) -> Void,
        whenOver: @escaping () -> Void
    ) -> any Cancellable {
        let question = Question(request, completion, whenOver)
        self.questions.append(question)
        return question
    }

    /// Answers the oldest open question.
    func answer(_ text: String = #"{"ok":true,"identity":"x"}"#) {
        self.open.first?.answer(HookAnswer.parse(Array(text.utf8)))
    }

    var open: [Question] { self.questions.filter { !$0.isAnswered && !$0.isCancelled } }

    /// Breaks the reference cycles between unanswered questions and their callers.
    func close() {
        for question in self.questions {
            question.completion = nil
            question.whenOver = nil
        }
        self.questions = []
    }
}
