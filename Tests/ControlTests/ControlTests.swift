import Control
import Foundation
import Reactor
import Synchronization
import Testing

/// Answers each request with its command and target.
private final class Echo: ControlHandler {
    var requests: [ControlRequest] = []
    var peers: [ControlPeer] = []
    var watched: [ControlConversation] = []

    func asked(_ request: ControlRequest, by peer: ControlPeer, _ conversation: ControlConversation) {
        self.requests.append(request)
        self.peers.append(peer)
        switch request.command {
        case .streams: self.watched.append(conversation)
        case .kick: conversation.fail("no '\(request.target ?? "")'")
        default: conversation.succeed(ControlNotes([request.command.rawValue, request.target ?? "-"]))
        }
    }
}

/// A server, and a thread that talks to it with the blocking client.
private struct Bench {
    let directory = "/tmp/diglett-\(UUID().uuidString)"
    var path: String { "\(self.directory)/control.sock" }
    let loop: EventLoop
    let handler = Echo()

    init() throws {
        self.loop = try EventLoop()
        try FileManager.default.createDirectory(atPath: self.directory, withIntermediateDirectories: false)
    }

    func server() throws -> ControlServer {
        try ControlServer(
            loop: self.loop, path: self.path, access: .init(mode: 0o600, group: nil), handler: self.handler)
    }

    /// Runs the loop until the client thread has finished.
    func client<R: Sendable>(_ body: @escaping @Sendable (ControlClient) -> R) throws -> R {
        let path = self.path
        let box = Box<R>()
        Thread.detachNewThread { box.set(body(ControlClient(path: path))) }
        // The end of the thread does not wake the loop.
        let timer = LoopTimer(loop: self.loop) {}
        timer.start(after: 1, repeating: 1)
        #expect(self.loop.run { box.value != nil })
        timer.close()
        return try #require(box.value)
    }

    /// Sends `bytes`, and returns everything the server answers.
    func raw(_ bytes: [UInt8]) throws -> String {
        var received: [UInt8] = []
        let recorder = Recorder { received += $0 }
        var stream: SocketStream?
        let connector = Connector.connect(loop: self.loop, to: .unix(path: self.path), timeout: 5_000) {
            stream = try? $0.get()
        }
        #expect(self.loop.run { stream != nil })
        _ = connector
        let connection = try #require(stream)
        connection.delegate = recorder
        connection.startReading()
        _ = bytes.withUnsafeBytes { connection.write($0) }
        #expect(self.loop.run { recorder.isOver })
        connection.close()
        return String(decoding: received, as: UTF8.self)
    }

    func close() {
        self.loop.close()
        try? FileManager.default.removeItem(atPath: self.directory)
    }
}

private final class Box<R: Sendable>: Sendable {
    private let stored = Mutex<R?>(nil)
    var value: R? { self.stored.withLock { $0 } }
    func set(_ value: R) { self.stored.withLock { $0 = value } }
}

private final class Recorder: SocketStreamDelegate {
    private let onBytes: ([UInt8]) -> Void
    var isOver = false
    init(_ onBytes: @escaping ([UInt8]) -> Void) { self.onBytes = onBytes }
    func readAllowance(_ stream: SocketStream) -> Int { 4_096 }
    func socketStream(_ stream: SocketStream, didRead bytes: UnsafeRawBufferPointer) { self.onBytes(Array(bytes)) }
    func socketStreamDidReachEnd(_ stream: SocketStream) { self.isOver = true }
    func socketStream(_ stream: SocketStream, didWrite count: Int) {}
    func socketStream(_ stream: SocketStream, didFail error: UVError) { self.isOver = true }
    func socketStreamDidClose(_ stream: SocketStream) { self.isOver = true }
}

@Suite("A control socket", .serialized, .timeLimit(.minutes(1)))
struct ControlTests {
    @Test("answers, identifies the caller and reports failures")
    func answers() throws {
        let bench = try Bench()
        defer { bench.close() }
        let server = try bench.server()
        let notes = try bench.client { client in
            var request = ControlRequest(.ban)
            request.target = "10.0.0.0/8"
            return (try? client.ask(request, ControlNotes.self))?.notes
        }
        #expect(notes == ["ban", "10.0.0.0/8"])
        #expect(bench.handler.peers.map(\.process) == [getpid()] && bench.handler.peers.map(\.user) == [getuid()])
        let refusal = try bench.client { client in
            do throws(ControlError) {
                _ = try client.ask(ControlRequest(.kick), ControlNotes.self)
                return nil as ControlError?
            } catch { return error }
        }
        #expect(refusal == .refused("no ''"))
        server.close()
    }

    @Test("keeps sending updates to watching clients until they disconnect")
    func watching() throws {
        let bench = try Bench()
        defer { bench.close() }
        let server = try bench.server()
        var isOver = false
        let timer = LoopTimer(loop: bench.loop) {
            for watcher in bench.handler.watched {
                watcher.onEnd = { isOver = true }
                watcher.say(ControlNotes(["news"]))
            }
        }
        timer.start(after: 1, repeating: 1)
        let count = try bench.client { client in
            var count = 0
            var request = ControlRequest(.streams)
            request.watch = true
            try? client.watch(request, ControlNotes.self) { _ in
                count += 1
                return count < 3
            }
            return count
        }
        #expect(count == 3)
        #expect(bench.loop.run { isOver })
        timer.close()
        server.close()
    }

    @Test(
        "refuses anything that is not a valid request",
        arguments: [
            ("hello\n", "not valid JSON of this protocol"), ("{}\n", "not valid JSON of this protocol"),
            ("\n", "not valid JSON of this protocol"),
            ("{\"version\":1,\"command\":\"dance\"}\n", "not valid JSON of this protocol"),
            ("{\"version\":2,\"command\":\"status\"}\n", "unknown version 2"),
            ("{\"version\":1,\"command\":\"reload\",\"dryrun\":true}\n", "unknown field in the request: 'dryrun'"),
            (String(repeating: "x", count: 20_000), "too long"), ("\u{0}\u{1}\n", "not valid JSON of this protocol"),
        ])
    func garbage(_ text: String, _ words: String) throws {
        let bench = try Bench()
        defer { bench.close() }
        let server = try bench.server()
        let answer = try bench.raw(Array(text.utf8))
        #expect(
            answer.hasPrefix("{\"error\":") && answer.contains(words) && answer.hasSuffix("\"ok\":false}\n"),
            "\(answer)")
        #expect(bench.handler.requests.isEmpty)
        server.close()
    }

    @Test("replaces a stale socket, but not one in use or another kind of file")
    func places() throws {
        let bench = try Bench()
        defer { bench.close() }
        let first = try bench.server()
        #expect(throws: UVError.addressInUse) { try bench.server() }
        first.close()
        // A killed program leaves a socket file without a listener.
        let left = try SocketListener(loop: bench.loop, path: bench.path, access: .init(mode: 0o600, group: nil))
        let copy = dup(try #require(left.descriptor))
        left.close()
        close(copy)
        let second = try bench.server()
        second.close()
        try "mine".write(toFile: bench.path, atomically: false, encoding: .utf8)
        #expect(throws: UVError.addressInUse) { try bench.server() }
        #expect(try String(contentsOfFile: bench.path, encoding: .utf8) == "mine")
    }

    @Test("without a server is an error that contains the path")
    func nobody() {
        #expect(throws: ControlError.dead(path: "/nonexistent/x")) {
            try ControlClient(path: "/nonexistent/x").ask(ControlRequest(.status), ControlNotes.self)
        }
    }
}
