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
        "responses have status, body and requested fields", arguments: [200, 201, 204, 400, 401, 403, 404, 500, 503])
    func statuses(_ status: Int) throws {
        let response = try fetch(self.get("status/\(status)")).get()
        #expect(response.status == status)
        #expect(response.body == (status == 204 ? [] : Array("status \(status)".utf8)))
        #expect(response.fields == ["content-type": "text/plain"])
        #expect(response["Content-Type"] == "text/plain")
    }

    @Test("a redirect is returned, not followed")
    func redirect() throws {
        var request = self.get("redirect")
        request.wantedFields = ["Location", "X-Missing"]
        let response = try fetch(request).get()
        #expect(
            response == HTTPResponse(status: 302, body: Array("elsewhere".utf8), fields: ["location": "/status/200"]))
    }

    @Test("a chunked body is decoded")
    func chunked() throws { #expect(try text(fetch(self.get("chunked"))) == "chunked") }

    @Test("a response to HEAD has no body")
    func head() throws {
        var request = self.get("big/1000000")
        request.method = .head
        #expect(try fetch(request).get() == HTTPResponse(status: 200, body: []))
    }

    @Test("a body of the maximum size arrives; one byte more is an error")
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
        "the server receives the method and body, and no fields that the caller did not set",
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

    @Test("a content type set by the caller is sent")
    func contentType() throws {
        var request = self.get("echo")
        request.method = .post
        request.body = Array("{}".utf8)
        request.fields = [.init("content-type", "application/json")]
        let seen = try JSONDecoder().decode(Seen.self, from: Data(fetch(request).get().body))
        #expect(seen.values("content-type") == ["application/json"])
    }

    @Test(
        "a field that would allow request smuggling is refused before anything is sent",
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
        "only valid http and https URLs are accepted",
        arguments: [
            "ftp://localhost/", "file:///etc/passwd", "localhost/", "gopher://localhost/", "", "http:/x", "https//x",
            "http://localhost/a b", "http://localhost/\r\nX: y", "http://localhost/\0", "http://", "http://[::1",
        ])
    func schemes(_ url: String) throws { #expect(isOther(failure(try fetch(HTTPRequest(url: url))))) }

    @Test("proxy variables in the environment are ignored, and cookies are neither kept nor sent")
    func environment() throws {
        for name in ["http_proxy", "all_proxy", "ALL_PROXY"] { setenv(name, "http://127.0.0.1:1", 1) }
        defer { for name in ["http_proxy", "all_proxy", "ALL_PROXY"] { unsetenv(name) } }
        try withClient { loop, client in
            let seen = try (0..<2).map { _ in try text(fetch(self.get("cookie"), loop, client)) }
            #expect(seen == ["None", "None"])
        }
    }

    // MARK: - TLS

    @Test("a server certified by the given authority is trusted", arguments: ["localhost", "127.0.0.1"])
    func tls(_ host: String) throws {
        #expect(try fetch(self.get("status/200", kind: "https", host: host)).isAnswer)
    }

    @Test("a server with another name, an unknown authority or only old TLS is refused")
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

    @Test("connections with different authorities are not shared")
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

    @Test("a client certificate is sent to a server that requires one; without it the handshake fails")
    func clientCertificate() throws {
        var request = self.get("status/200", kind: "strict")
        #expect(isTLS(failure(try fetch(request))))
        request.certificateFile = self.server.file("client.pem")
        request.keyFile = self.server.file("client.key")
        #expect(try fetch(request).isAnswer)
        // An encrypted key is an error: the client never prompts for a passphrase.
        for file in ["encrypted.key", "missing.key", "server.key"] {
            request.keyFile = self.server.file(file)
            #expect(isTLS(failure(try fetch(request))))
        }
    }

    // MARK: - Failures

    @Test("an unknown host, a closed port and a missing socket are reported as cannotConnect")
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

    @Test("a malformed response is an error", arguments: ["short/", "nothing/", "garbage/", "control/"])
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

    @Test("a server that accepts the connection but never answers the TLS handshake is a timeout")
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

    @Test("a request over a unix socket ignores the host of the URL")
    func unixSocket() throws {
        var request = HTTPRequest(url: "http://admin.example/status/201", timeout: 20_000)
        request.unixSocket = self.server.file("socket")
        #expect(try fetch(request).isAnswer)
    }

    @Test("a connection is reused until the server closes it")
    func reuse() throws {
        try withClient { loop, client in
            let ports = try (0..<5).map { _ in try text(fetch(self.get("port"), loop, client)) }
            #expect(Set(ports).count == 1)
            for _ in 0..<5 { #expect(fetch(self.get("close"), loop, client).isAnswer) }
            let another = try text(fetch(self.get("port"), loop, client))
            #expect(!ports.contains(another))
        }
    }

    @Test("one server gets at most eight connections; queued requests wait, and their timeout runs")
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

    @Test("a request can be cancelled at every stage, and after its end")
    func cancel() throws {
        try withClient { loop, client in
            func mustNotEnd(_ answer: Answer) { Issue.record("told: \(answer)") }
            let refused = client.send(HTTPRequest(url: "nothing"), completion: mustNotEnd)
            refused.cancel()
            client.send(self.get("status/200"), completion: mustNotEnd).cancel()
            // The lookup may fail before the request is cancelled.
            let unresolved = client.send(HTTPRequest(url: "http://nonexistent.invalid/")) { #expect(!$0.isAnswer) }
            let tasks = [
                self.get("hang/"), self.get("drip/"),
                self.get("hang/", kind: "https"),
            ].map { client.send($0, completion: mustNotEnd) }
            // Ten other requests complete while these are at different stages.
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

    @Test("closing the client aborts everything in progress", arguments: [0, 1, 3, 10])
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

    @Test("at most 1024 requests can be pending")
    func tooMany() throws {
        try withClient { loop, client in
            for _ in 0..<1_024 { _ = client.send(self.get("hang/")) { Issue.record("told: \($0)") } }
            var answer: Answer?
            _ = client.send(self.get("status/200")) { answer = $0 }
            #expect(wait(loop) { answer != nil })
            #expect(answer.flatMap(failure) == .other("1024 requests wait already"))
        }
    }

    @Test("a client that is deallocated without close() traps")
    func dropped() async {
        await #expect(processExitsWith: .failure) {
            let loop = try EventLoop()
            _ = HTTPClient(loop: loop, userAgent: "test/1")
        }
    }
}
