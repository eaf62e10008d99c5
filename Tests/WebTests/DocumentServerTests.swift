import Foundation
import Reactor
import Testing
import Web

/// A server of one document, which is at `/here` at once and at `/later` a moment later, a client on the same loop, and nothing left of either.
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

@Suite("The server of documents")
struct DocumentServerTests {
    @Test(
        "knows paths and methods",
        arguments: [
            (HTTPRequest.Method.get, "/here", 200, "some text"), (.get, "/here?with=query", 200, "some text"),
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

    @Test("answers one after the other, on a connection each")
    func again() throws {
        try serving { loop, client, url in
            for _ in 0..<100 {
                let response = try ask(HTTPRequest(url: "\(url)/here"), loop, client)
                #expect(response.status == 200)
            }
        }
    }

    @Test("can be closed while it is asked")
    func closing() throws {
        try serving { loop, client, url in
            for _ in 0..<10 { _ = client.send(HTTPRequest(url: "\(url)/here")) { _ in } }
        }
    }
}
