import Foundation
import Reactor
import TestSupport
import Testing
import Web

/// Runs `body` with a client and a server of one document on the same loop, and checks that no handle is left open.
/// The server answers `/here` at once and `/later` after a timer.
private func serving(_ body: (EventLoop, HTTPClient, _ url: String) throws -> Void) throws {
    let loop = try EventLoop()
    let listener = try SocketListener(loop: loop, address: .loopback4(port: 0))
    var timers: [LoopTimer] = []
    let server = DocumentServer(
        listener: listener,
        document: { path, completion in
            let document = Document(contentType: "text/x", body: Array("some text".utf8))
            guard path == "/later" else { return completion(path == "/here" ? document : nil) }
            let timer = LoopTimer(loop: loop) {
                completion(document)
                timers.forEach { $0.close() }
                timers = []
            }
            timers.append(timer)
            timer.start(after: 1)
        },
        onFailure: { Issue.record("\($0)") })
    let client = HTTPClient(loop: loop, userAgent: "test/1")
    defer {
        client.close()
        server.close()
        loop.close()
    }
    try body(loop, client, "http://\(server.place)")
}

private func ask(_ request: HTTPRequest, _ loop: EventLoop, _ client: HTTPClient) throws -> HTTPResponse {
    var answer: Result<HTTPResponse, HTTPFailure>?
    let task = client.send(request) { answer = $0 }
    let isAnswered = loop.run { answer != nil }
    #expect(isAnswered)
    task.cancel()
    return try #require(answer).get()
}

@Suite("Document server")
struct DocumentServerTests {
    @Test(
        "answers by path and method",
        arguments: [
            (HTTPRequest.Method.get, "/here", 200, "some text"), (.get, "/later", 200, "some text"),
            (.head, "/later", 200, ""), (.get, "/here?with=query", 200, "some text"),
            (.get, "/", 404, ""), (.get, "/here/", 404, ""), (.get, "/Here", 404, ""), (.head, "/here", 200, ""),
            (.post, "/here", 405, ""), (.delete, "/there", 405, ""),
        ])
    func answers(_ method: HTTPRequest.Method, _ path: String, _ status: Int, _ text: String) throws {
        try serving { loop, client, url in
            let response = try ask(HTTPRequest(method: method, url: url + path), loop, client)
            #expect(response.status == status)
            #expect(String(decoding: response.body, as: UTF8.self) == text)
        }
    }

    @Test("answers one request after another, each on its own connection")
    func again() throws {
        try serving { loop, client, url in
            for _ in 0..<100 {
                let response = try ask(HTTPRequest(url: "\(url)/here"), loop, client)
                #expect(response.status == 200)
            }
        }
    }

    @Test("closes a connection that ends without a request in order, as port checks do")
    func portCheck() throws {
        try serving { loop, _, url in
            let port = try #require(UInt16(url.split(separator: ":").last ?? ""))
            var visitor: Connection?
            let began = loop.now
            let connector = Connector.connect(loop: loop, to: .host("127.0.0.1", port: port), timeout: 5_000) {
                visitor = (try? $0.get()).map { Connection($0) }
                visitor?.stream.shutdownWriting()
            }
            #expect(loop.run { visitor?.hasEnded ?? false })
            #expect(visitor?.error == nil && loop.now - began < 4_000)
            _ = connector
            visitor?.stream.close()
        }
    }

    @Test("can be closed while requests are pending")
    func closing() throws {
        try serving { loop, client, url in
            for _ in 0..<10 { _ = client.send(HTTPRequest(url: "\(url)/here")) { _ in } }
        }
    }
}
