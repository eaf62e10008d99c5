import Foundation
import Reactor
import Testing
import Web

@Suite("HTTP client", .serialized, .timeLimit(.minutes(1)))
struct HTTPClientTests {
    private let server: TestServer

    init() throws { self.server = try TestServer.shared }

    private func get(_ path: String, kind: String = "http", host: String = "localhost") -> HTTPRequest {
        var request = HTTPRequest(url: self.server.url(path, kind: kind, host: host), timeout: 20_000)
        if kind != "http" { request.authorityFile = self.server.file("authority.pem") }
        return request
    }

    // MARK: - Answers

    @Test(
        "the status, the body and the wanted fields arrive", arguments: [200, 201, 204, 400, 401, 403, 404, 500, 503])
    func statuses(_ status: Int) throws {
        let response = try fetch(self.get("status/\(status)")).get()
        #expect(response.status == status)
        #expect(response.body == (status == 204 ? [] : Array("status \(status)".utf8)))
        #expect(response.fields == ["content-type": "text/plain"])
        #expect(response["Content-Type"] == "text/plain")
    }

    @Test("a redirect is an answer")
    func redirect() throws {
        var request = self.get("redirect")
        request.wantedFields = ["Location", "X-Missing"]
        let response = try fetch(request).get()
        #expect(
            response == HTTPResponse(status: 302, body: Array("elsewhere".utf8), fields: ["location": "/status/200"]))
    }

    @Test("a body in chunks")
    func chunked() throws { #expect(try text(fetch(self.get("chunked"))) == "chunked") }

    @Test("HEAD brings no body")
    func head() throws {
        var request = self.get("big/1000000")
        request.method = .head
        #expect(try fetch(request).get() == HTTPResponse(status: 200, body: []))
    }

    @Test("ten megabytes arrive when they may, and one byte too many is too large")
    func large() throws {
        var request = self.get("big/10000000")
        request.maxResponse = 10_000_000
        #expect(try fetch(request).get().body.count == 10_000_000)
        request.maxResponse -= 1
        #expect(failure(try fetch(request)) == .tooLarge)
        request = self.get("endless")
        #expect(failure(try fetch(request)) == .tooLarge)
    }

    // MARK: - Requests

    @Test(
        "methods and bodies arrive, and nothing that was not asked for",
        arguments: [HTTPRequest.Method.get, .post, .put, .patch, .delete], [0, 5, 2_000_000])
    func methods(_ method: HTTPRequest.Method, _ count: Int) throws {
        var request = self.get("echo")
        request.method = method
        request.body = [UInt8](repeating: 1, count: count)
        request.fields = [.init("Authorization", "Bearer s3cret"), .init("X-Empty", ""), .init("X-Odd", "a: \"ü\"\tb")]
        let seen = try JSONDecoder().decode(Seen.self, from: Data(fetch(request).get().body))
        let isSent = method != .get
        #expect(seen.method == method.rawValue)
        #expect(seen.length == (isSent ? count : 0))
        #expect(seen.sum == (isSent ? count : 0))
        let needsLength = isSent && (method != .delete || count > 0)
        #expect(seen.values("content-length") == (needsLength ? ["\(count)"] : []))
        #expect(seen.values("authorization") == ["Bearer s3cret"])
        #expect(seen.values("x-empty") == [""])
        #expect(seen.values("user-agent") == ["test/1"])
        #expect(seen.values("expect").isEmpty)
        #expect(seen.values("content-type").isEmpty)
        let expected: Set = ["host", "user-agent", "accept", "authorization", "x-empty", "x-odd", "content-length"]
        #expect(Set(seen.fields.map { $0[0].lowercased() }).isSubset(of: expected))
    }

    @Test("a content type that was given is sent")
    func contentType() throws {
        var request = self.get("echo")
        request.method = .post
        request.body = Array("{}".utf8)
        request.fields = [.init("content-type", "application/json")]
        let seen = try JSONDecoder().decode(Seen.self, from: Data(fetch(request).get().body))
        #expect(seen.values("content-type") == ["application/json"])
    }

    @Test(
        "what would smuggle something is refused before anything is sent",
        arguments: [
            HTTPRequest.Field("X-A", "a\r\nX-B: b"), .init("X-A", "a\nb"), .init("X-A", "a\rb"), .init("X-A", "a\0b"),
            .init("X-A\r\nX-B", "b"), .init("X A", "b"), .init("", "b"), .init("X:", "b"), .init("X\0", "b"),
            .init("Content-Length", "5"), .init("transfer-encoding", "chunked"),
        ])
    func smuggling(_ field: HTTPRequest.Field) throws {
        try withClient { loop, client in
            let counter = Counter()
            let listener = try SocketListener(loop: loop, address: .loopback4(port: 0))
            listener.delegate = counter
            var answer: Answer?
            var request = HTTPRequest(url: "http://127.0.0.1:\(listener.port)/")
            request.fields = [field]
            _ = client.send(request) { answer = $0 }
            #expect(answer == nil)
            #expect(wait(loop) { answer != nil })
            let refusal = answer.flatMap(failure)
            #expect(isOther(refusal))
            #expect(!(refusal?.description.contains("b: b") ?? true))
            #expect(counter.accepted.isEmpty)
            listener.close()
            loop.run()
        }
    }

    @Test(
        "only http and https",
        arguments: [
            "ftp://localhost/", "file:///etc/passwd", "localhost/", "gopher://localhost/", "", "http:/x", "https//x",
            "http://localhost/a b", "http://localhost/\r\nX: y", "http://localhost/\0", "http://", "http://[::1",
        ])
    func schemes(_ url: String) throws { #expect(isOther(failure(try fetch(HTTPRequest(url: url))))) }

    @Test("the environment names no proxy, and cookies are neither kept nor sent")
    func environment() throws {
        for name in ["http_proxy", "all_proxy", "ALL_PROXY"] { setenv(name, "http://127.0.0.1:1", 1) }
        defer { for name in ["http_proxy", "all_proxy", "ALL_PROXY"] { unsetenv(name) } }
        try withClient { loop, client in
            let seen = try (0..<2).map { _ in try text(fetch(self.get("cookie"), loop, client)) }
            #expect(seen == ["None", "None"])
        }
    }

    // MARK: - TLS

    @Test("a server that its authority certifies", arguments: ["localhost", "127.0.0.1"])
    func tls(_ host: String) throws {
        #expect(try fetch(self.get("status/200", kind: "https", host: host)).isAnswer)
    }

    @Test("a server of another name, of an authority that is not ours, or with old TLS only")
    func untrusted() throws {
        #expect(isTLS(failure(try fetch(self.get("status/200", kind: "https", host: "other.localhost")))))
        #expect(isTLS(failure(try fetch(self.get("status/200", kind: "old")))))
        var request = self.get("status/200", kind: "https")
        for file in ["stranger.pem", "missing.pem", "server.key"] {
            request.authorityFile = self.server.file(file)
            #expect(isTLS(failure(try fetch(request))))
        }
        request.authorityFile = nil
        #expect(isTLS(failure(try fetch(request))))
    }

    @Test("one client keeps the connections of different authorities apart")
    func authoritiesApart() throws {
        try withClient { loop, client in
            var request = self.get("status/200", kind: "https")
            #expect(fetch(request, loop, client).isAnswer)
            request.authorityFile = self.server.file("stranger.pem")
            #expect(isTLS(failure(fetch(request, loop, client))))
            request.authorityFile = self.server.file("authority.pem")
            #expect(fetch(request, loop, client).isAnswer)
        }
    }

    @Test("a server that wants a certificate of ours gets it, and without it TLS fails")
    func clientCertificate() throws {
        var request = self.get("status/200", kind: "strict")
        #expect(isTLS(failure(try fetch(request))))
        request.certificateFile = self.server.file("client.pem")
        request.keyFile = self.server.file("client.key")
        #expect(try fetch(request).isAnswer)
        // Nobody is asked for a passphrase.
        for file in ["encrypted.key", "missing.key", "server.key"] {
            request.keyFile = self.server.file(file)
            #expect(isTLS(failure(try fetch(request))))
        }
    }

    // MARK: - Failures

    @Test("a name that does not exist, a port and a socket where nobody listens")
    func cannotConnect() throws {
        #expect(isCannotConnect(failure(try fetch(HTTPRequest(url: "http://nonexistent.invalid/", timeout: 20_000)))))
        let loop = try EventLoop()
        let listener = try SocketListener(loop: loop, address: .loopback4(port: 0))
        let port = listener.port
        listener.close()
        loop.close()
        #expect(isCannotConnect(failure(try fetch(HTTPRequest(url: "http://127.0.0.1:\(port)/", timeout: 20_000)))))
        var request = self.get("status/200")
        request.unixSocket = "/nonexistent/socket"
        #expect(isCannotConnect(failure(try fetch(request))))
    }

    @Test("an answer that is none", arguments: ["short/", "nothing/", "garbage/", "control/"])
    func broken(_ path: String) throws {
        let broken = try #require(failure(fetch(self.get(path))))
        #expect(isOther(broken))
        #expect(broken.description.unicodeScalars.allSatisfy { $0.value >= 0x20 })
    }

    @Test("timed out, or one that does not end in time", arguments: ["hang/", "drip/"])
    func timeout(_ path: String) throws {
        var request = self.get(path)
        request.timeout = 100
        #expect(failure(try fetch(request)) == .timedOut)
    }

    @Test("a server that takes the connection and is silent in TLS")
    func silentTLS() throws {
        try withClient { loop, client in
            let counter = Counter()
            let listener = try SocketListener(loop: loop, address: .loopback4(port: 0))
            listener.delegate = counter
            var request = HTTPRequest(url: "https://127.0.0.1:\(listener.port)/", timeout: 20_000)
            request.connectTimeout = 50
            var answer: Answer?
            _ = client.send(request) { answer = $0 }
            #expect(wait(loop) { answer != nil })
            #expect(answer.flatMap(failure) == .timedOut)
            for stream in counter.accepted { stream.close() }
            listener.close()
            loop.run()
        }
    }

    // MARK: - Connections

    @Test("a unix socket, whatever the URL's host is")
    func unixSocket() throws {
        var request = HTTPRequest(url: "http://admin.example/status/201", timeout: 20_000)
        request.unixSocket = self.server.file("socket")
        #expect(try fetch(request).isAnswer)
    }

    @Test("a connection is used again, and a new one made when the server has ended it")
    func reuse() throws {
        try withClient { loop, client in
            let ports = try (0..<5).map { _ in try text(fetch(self.get("port"), loop, client)) }
            #expect(Set(ports).count == 1)
            for _ in 0..<5 { #expect(fetch(self.get("close"), loop, client).isAnswer) }
            let another = try text(fetch(self.get("port"), loop, client))
            #expect(!ports.contains(another))
        }
    }

    @Test("eight connections to one server at most; the others wait, and their time runs")
    func bound() throws {
        try withClient { loop, client in
            var atMost = 0
            var answered = 0
            for _ in 0..<32 {
                _ = client.send(self.get("gate")) { answer in
                    answered += 1
                    atMost = max(atMost, (try? text(answer)).flatMap { Int($0) } ?? .max)
                }
            }
            loop.run()
            #expect(answered == 32)
            #expect(atMost == 8)
            let hanging = (0..<8).map { _ in client.send(self.get("hang/")) { Issue.record("told: \($0)") } }
            var waiting = self.get("status/200")
            waiting.timeout = 50
            var answer: Answer?
            _ = client.send(waiting) { answer = $0 }
            #expect(wait(loop) { answer != nil })
            #expect(answer.flatMap(failure) == .timedOut)
            for task in hanging { task.cancel() }
            #expect(fetch(self.get("status/200"), loop, client).isAnswer)
        }
    }

    // MARK: - The end

    @Test("cancelled at once, while its name is resolved, while it waits and while it receives; and too late")
    func cancel() throws {
        try withClient { loop, client in
            func mustNotEnd(_ answer: Answer) { Issue.record("told: \(answer)") }
            let refused = client.send(HTTPRequest(url: "nothing"), completion: mustNotEnd)
            refused.cancel()
            client.send(self.get("status/200"), completion: mustNotEnd).cancel()
            // It may be told while it is resolved, before it is cancelled.
            let unresolved = client.send(HTTPRequest(url: "http://nonexistent.invalid/")) { #expect(!$0.isAnswer) }
            let tasks = [
                self.get("hang/"), self.get("drip/"),
                self.get("hang/", kind: "https"),
            ].map { client.send($0, completion: mustNotEnd) }
            // While these are at different stages another one comes and goes, ten times.
            for _ in 0..<10 {
                var answer: Answer?
                _ = client.send(self.get("status/200")) { answer = $0 }
                #expect(wait(loop) { answer != nil })
                #expect(answer.flatMap(failure) == nil)
                unresolved.cancel()
            }
            for task in tasks { task.cancel() }
            for task in tasks { task.cancel() }
            loop.run()

            var answers = 0
            var task: HTTPTask?
            task = client.send(self.get("status/200")) { _ in
                answers += 1
                task?.cancel()
            }
            loop.run()
            task?.cancel()
            #expect(answers == 1)
        }
    }

    @Test("a completion may send, cancel others and close the client")
    func reentrancy() throws {
        try withClient { loop, client in
            var order: [Int] = []
            let victim = client.send(self.get("hang/")) { Issue.record("told: \($0)") }
            _ = client.send(self.get("status/200")) { _ in
                order.append(1)
                victim.cancel()
                _ = client.send(self.get("hang/")) { Issue.record("told: \($0)") }
                _ = client.send(HTTPRequest(url: "nothing")) { _ in order.append(2) }
                _ = client.send(self.get("status/201")) { _ in
                    order.append(3)
                    _ = client.send(HTTPRequest(url: "nothing")) { Issue.record("told: \($0)") }
                    client.close()
                }
            }
            loop.run()
            #expect(order == [1, 2, 3])
            var answer: Answer?
            _ = client.send(self.get("status/200")) { answer = $0 }
            #expect(answer == nil)
            loop.run()
            #expect(answer.flatMap(failure) == .other("the client is closed"))
        }
    }

    @Test("closing breaks off everything that is under way", arguments: [0, 1, 3, 10])
    func closing(_ turns: Int) throws {
        let loop = try EventLoop()
        let client = HTTPClient(loop: loop, userAgent: "test/1")
        for path in ["hang/", "drip/", "big/1000000"] {
            for kind in ["http", "https"] {
                var request = self.get(path, kind: kind)
                request.maxResponse = 1_000_000
                _ = client.send(request) { answer in
                    if path != "big/1000000" { Issue.record("told: \(answer)") }
                }
            }
        }
        _ = client.send(HTTPRequest(url: "http://nonexistent.invalid/")) { _ in }
        var count = 0
        let ticker = LoopTimer(loop: loop) { count += 1 }
        ticker.start(after: 0, repeating: 1)
        #expect(loop.run { count >= turns })
        client.close()
        ticker.close()
        loop.run()
        #expect(loop.census().isEmpty)
        loop.close()
    }

    @Test("a thousand requests wait, and no more")
    func tooMany() throws {
        try withClient { loop, client in
            for _ in 0..<1_024 { _ = client.send(self.get("hang/")) { Issue.record("told: \($0)") } }
            var answer: Answer?
            _ = client.send(self.get("status/200")) { answer = $0 }
            #expect(wait(loop) { answer != nil })
            #expect(answer.flatMap(failure) == .other("1024 requests wait already"))
        }
    }

    @Test("a client that is dropped without close() traps")
    func dropped() async {
        await #expect(processExitsWith: .failure) {
            let loop = try EventLoop()
            _ = HTTPClient(loop: loop, userAgent: "test/1")
        }
    }
}
