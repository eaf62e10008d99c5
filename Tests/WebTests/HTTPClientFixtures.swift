import Reactor
import Testing
import Web

typealias Answer = Result<HTTPResponse, HTTPFailure>

/// Runs `body` with a client on a loop. The loop must have no open handles once the client is closed.
func withClient(_ body: (EventLoop, HTTPClient) throws -> Void) throws {
    let loop = try EventLoop()
    let client = HTTPClient(loop: loop, userAgent: "test/1")
    defer {
        client.close()
        client.close()
        loop.close()
    }
    try body(loop, client)
}

/// Sends one request and waits for its result.
func fetch(_ request: HTTPRequest) throws -> Answer {
    var answer: Answer?
    try withClient { loop, client in answer = fetch(request, loop, client) }
    return try #require(answer)
}

func fetch(_ request: HTTPRequest, _ loop: EventLoop, _ client: HTTPClient) -> Answer {
    var answers: [Answer] = []
    let task = client.send(request) { answers.append($0) }
    #expect(answers.isEmpty)
    // An idle client does not keep the loop alive.
    loop.run()
    #expect(answers.count == 1)
    task.cancel()
    return answers.first ?? .failure(.other("never answered"))
}

/// Runs the loop until `condition` holds. The timer is necessary because a completion that runs at the end of a turn
/// does not wake a waiting loop.
func wait(_ loop: EventLoop, until condition: () -> Bool) -> Bool {
    let ticker = LoopTimer(loop: loop) {}
    defer { ticker.close() }
    ticker.start(after: 1, repeating: 1)
    return loop.run(until: condition)
}

func text(_ answer: Answer) throws -> String { String(decoding: try answer.get().body, as: UTF8.self) }

extension Answer {
    var isAnswer: Bool { if case .success(let response) = self { response.status < 300 } else { false } }
}

func failure(_ answer: Answer) -> HTTPFailure? {
    if case .failure(let failure) = answer { failure } else { nil }
}

func isCannotConnect(_ failure: HTTPFailure?) -> Bool {
    if case .cannotConnect = failure { true } else { false }
}

func isTLS(_ failure: HTTPFailure?) -> Bool { if case .tls = failure { true } else { false } }

func isOther(_ failure: HTTPFailure?) -> Bool { if case .other = failure { true } else { false } }

/// The request as `/echo` of the server received it.
struct Seen: Decodable {
    let method: String
    let fields: [[String]]
    let length: Int
    let sum: Int

    func values(_ name: String) -> [String] { self.fields.filter { $0[0].lowercased() == name }.map { $0[1] } }
}

final class Counter: SocketListenerDelegate {
    var accepted: [SocketStream] = []
    func listener(_ listener: SocketListener, didAccept stream: SocketStream) { self.accepted.append(stream) }
    func listener(_ listener: SocketListener, didFail error: UVError) {}
}
