import Foundation
import Glibc
import Reactor
import Testing

/// Records accepted connections, and closes them all with `close`.
private final class AcceptRecorder: SocketListenerDelegate {
    var accepted: [SocketStream] = []
    /// The number of connections accepted in each turn of the loop.
    var perTurn: [UInt64: Int] = [:]
    var onAccept: (() -> Void)?

    func listener(_ listener: SocketListener, didAccept stream: SocketStream) {
        self.accepted.append(stream)
        self.perTurn[listener.loop.turn, default: 0] += 1
        self.onAccept?()
    }

    func listener(_ listener: SocketListener, didFail error: UVError) {}

    func close() {
        // The closure may retain this recorder.
        self.onAccept = nil
        for stream in self.accepted { stream.close() }
    }
}

private final class AtTurnEnd: TurnEndHandler {
    private let action: () -> Void
    init(_ action: @escaping () -> Void) { self.action = action }
    func turnDidEnd() { self.action() }
}

/// Runs `body` with a socket path in a new directory.
private func withPath(_ body: (EventLoop, String) throws -> Void) throws {
    let directory = "/tmp/diglett-\(UUID().uuidString)"
    try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: false)
    defer { try? FileManager.default.removeItem(atPath: directory) }
    try withLoop { try body($0, "\(directory)/socket") }
}

private func connects(_ loop: EventLoop, _ endpoint: Endpoint, _ recorder: AcceptRecorder) throws {
    var here: SocketStream?
    let connector = Connector.connect(loop: loop, to: endpoint, timeout: 5_000) { here = try? $0.get() }
    #expect(loop.run { here != nil && !recorder.accepted.isEmpty })
    _ = connector
    try #require(here).close()
    recorder.close()
}

@Suite("Listeners", .serialized, .timeLimit(.minutes(1)))
struct SocketListenerTests {
    @Test("accept a bounded number of connections per turn, even when paused and resumed within a turn")
    func crowd() throws {
        try withLoop { loop in
            let listener = try SocketListener(loop: loop, address: .loopback4(port: 0))
            let recorder = AcceptRecorder()
            listener.delegate = recorder
            let count = 100
            let visitors = try (0..<count).map { _ in try connected(to: listener.port) }
            defer { for visitor in visitors { Glibc.close(visitor) } }
            recorder.onAccept = {
                if recorder.accepted.count == SocketListener.maxPerTurn / 2 { listener.pause() }
            }
            #expect(loop.run { recorder.accepted.count == SocketListener.maxPerTurn / 2 })
            listener.resume()
            #expect(loop.run { recorder.accepted.count == count })
            #expect(recorder.perTurn.values.max() == SocketListener.maxPerTurn)

            // A listener resumed after it used up its turn accepts only the connection that it already holds.
            let more = try (0..<count).map { _ in try connected(to: listener.port) }
            defer { for visitor in more { Glibc.close(visitor) } }
            recorder.perTurn = [:]
            recorder.onAccept = {
                guard recorder.perTurn[loop.turn] == SocketListener.maxPerTurn else { return }
                listener.pause()
                listener.resume()
            }
            #expect(loop.run { recorder.accepted.count == 2 * count })
            #expect(recorder.perTurn.values.max() ?? 0 <= SocketListener.maxPerTurn + 1)
            recorder.close()
            listener.close()
        }
    }

    @Test("reset connections that still wait for the next turn when they are closed")
    func closedCrowd() throws {
        try withLoop { loop in
            let listener = try SocketListener(loop: loop, address: .loopback4(port: 0))
            let recorder = AcceptRecorder()
            listener.delegate = recorder
            let visitors = try (0...SocketListener.maxPerTurn).map { _ in try connected(to: listener.port) }
            defer { for visitor in visitors { Glibc.close(visitor) } }
            let closing = AtTurnEnd { listener.close() }
            recorder.onAccept = {
                if recorder.accepted.count == 1 { loop.atTurnEnd(closing) }
            }
            #expect(loop.run { !recorder.accepted.isEmpty })
            loop.run()
            #expect(recorder.accepted.count == SocketListener.maxPerTurn)
            var byte: UInt8 = 0
            #expect(recv(visitors[SocketListener.maxPerTurn], &byte, 1, 0) == -1 && errno == ECONNRESET)
            recorder.close()
        }
    }

    @Test("create a unix socket with the given permissions, and remove it when closed")
    func unix() throws {
        try withPath { loop, path in
            let recorder = AcceptRecorder()
            let access = SocketListener.Access(mode: 0o660, group: getgid())
            let listener = try SocketListener(loop: loop, path: path, access: access)
            listener.delegate = recorder
            var status = stat()
            #expect(lstat(path, &status) == 0)
            #expect(status.st_mode == S_IFSOCK | 0o660)
            #expect(listener.place == .unix(path: path))
            #expect(listener.address == nil && listener.port == 0)
            try connects(loop, .unix(path: path), recorder)
            // A second listener at the same path fails, and does not remove the first one's socket.
            #expect(throws: UVError.addressInUse) { try SocketListener(loop: loop, path: path, access: access) }
            #expect(lstat(path, &status) == 0)
            listener.close()
            #expect(lstat(path, &status) != 0)
        }
    }

    @Test("refuse a path that is too long or in a missing directory")
    func refusals() throws {
        try withPath { loop, path in
            let access = SocketListener.Access(mode: 0o600, group: nil)
            let long = path + String(repeating: "x", count: 107)
            #expect(throws: UVError.nameTooLong) { try SocketListener(loop: loop, path: long, access: access) }
            #expect(throws: UVError.noSuchFile) {
                try SocketListener(loop: loop, path: "\(path)/no/such", access: access)
            }
        }
    }

    @Test("take over an inherited socket with the connections in its backlog")
    func adoption() throws {
        try withLoop { loop in
            let first = try SocketListener(loop: loop, address: .loopback4(port: 0))
            let place = first.place
            let copy = dup(try #require(first.descriptor))
            first.close()
            let inherited = try #require(ListenerSocket(inherited: copy))
            #expect(inherited.place == place)
            var here: SocketStream?
            guard case .tcp(let address) = place else { return _ = Issue.record("not TCP") }
            let connector = Connector.connect(
                loop: loop, to: .host("127.0.0.1", port: address.port), timeout: 5_000
            ) { here = try? $0.get() }
            // The connection is in the backlog and not yet accepted.
            #expect(loop.run { here != nil })
            _ = connector
            let recorder = AcceptRecorder()
            let second = try SocketListener(loop: loop, adopting: inherited)
            second.delegate = recorder
            #expect(second.place == place)
            #expect(loop.run { !recorder.accepted.isEmpty })
            try #require(here).close()
            recorder.close()
            second.close()
        }
    }

    @Test("take over an inherited unix socket")
    func unixAdoption() throws {
        try withPath { loop, path in
            let first = try SocketListener(loop: loop, path: path, access: .init(mode: 0o600, group: nil))
            let copy = dup(try #require(first.descriptor))
            let recorder = AcceptRecorder()
            let second = try SocketListener(loop: loop, adopting: try #require(ListenerSocket(inherited: copy)))
            second.delegate = recorder
            #expect(second.place == .unix(path: path))
            // Either listener may accept the connection.
            first.delegate = recorder
            try connects(loop, .unix(path: path), recorder)
            first.close()
            second.close()
        }
    }

    @Test("leave a socket to another process, with the connections in its backlog")
    func leaving() throws {
        try withPath { loop, path in
            let tcp = try SocketListener(loop: loop, address: .loopback4(port: 0))
            let unix = try SocketListener(loop: loop, path: path, access: .init(mode: 0o600, group: nil))
            for (first, endpoint) in [(tcp, Endpoint.host("127.0.0.1", port: tcp.port)), (unix, .unix(path: path))] {
                let copy = dup(try #require(first.descriptor))
                first.leave()
                #expect(!first.isListening)
                var here: SocketStream?
                let connector = Connector.connect(loop: loop, to: endpoint, timeout: 5_000) { here = try? $0.get() }
                #expect(loop.run { here != nil })
                _ = connector
                let recorder = AcceptRecorder()
                let inherited = try #require(ListenerSocket(inherited: copy))
                let second = try SocketListener(loop: loop, adopting: inherited, ownsFile: true)
                second.delegate = recorder
                #expect(second.isListening)
                #expect(loop.run { !recorder.accepted.isEmpty })
                try #require(here).close()
                recorder.close()
                second.close()
            }
            var status = stat()
            #expect(lstat(path, &status) != 0)
        }
    }

    @Test("are shut down for every holder of the socket, and free the address at once")
    func shutDown() throws {
        try withPath { loop, path in
            let tcp = try ListenerSocket(address: .loopback4(port: 0))
            let unix = try ListenerSocket(path: path, access: .init(mode: 0o600, group: nil))
            let port = try #require(tcp.address).port
            let recorder = AcceptRecorder()
            // This listener could belong to another thread. It notices the shutdown at its next accept.
            let listener = try SocketListener(loop: loop, adopting: tcp)
            listener.delegate = recorder
            for socket in [tcp, unix] { socket.shutDown() }
            defer {
                listener.leave()
                unix.close()
            }
            for endpoint in [Endpoint.host("127.0.0.1", port: port), .unix(path: path)] {
                var result: Result<SocketStream, UVError>?
                let connector = Connector.connect(loop: loop, to: endpoint, timeout: 5_000) { result = $0 }
                #expect(loop.run { result != nil })
                _ = connector
                #expect(throws: UVError.self) { try result?.get() }
            }
            // Both addresses can be bound again, although copies of the sockets are still open.
            try SocketListener(loop: loop, address: .loopback4(port: port)).close()
            try SocketListener(loop: loop, path: path, access: .init(mode: 0o600, group: nil)).close()
        }
    }

    @Test("adopt only stream sockets")
    func others() throws {
        for descriptor in [open("/dev/null", O_RDONLY), socket(AF_INET, Int32(SOCK_DGRAM.rawValue), 0), -1] {
            #expect(ListenerSocket(inherited: descriptor) == nil)
            // The caller still owns the descriptor.
            if descriptor >= 0 {
                #expect(fcntl(descriptor, F_GETFD) != -1)
                Glibc.close(descriptor)
            }
        }
    }

    /// Runs `body` with both ends of a connection: the client's and the accepted one.
    private func withAccepted(_ body: (EventLoop, _ client: SocketStream, _ accepted: SocketStream) throws -> Void)
        throws
    {
        try withLoop { loop in
            let recorder = AcceptRecorder()
            let listener = try SocketListener(loop: loop, address: .loopback4(port: 0))
            listener.delegate = recorder
            var client: SocketStream?
            let connector = Connector.connect(loop: loop, to: .host("127.0.0.1", port: listener.port), timeout: 5_000) {
                client = try? $0.get()
            }
            #expect(loop.run { client != nil && !recorder.accepted.isEmpty })
            _ = connector
            listener.close()
            try body(loop, try #require(client), recorder.accepted[0])
        }
    }

    @Test("accept connections that can be handed to another loop, once")
    func handingOver() throws {
        try self.withAccepted { _, client, accepted in
            let peer = accepted.peerAddress
            let socket = try accepted.giveAway()
            #expect(!accepted.isOpen)
            let other = try EventLoop()
            let taken = try SocketStream.take(socket, on: other)
            #expect(taken.peerAddress == peer)
            #expect(throws: UVError.self) { try SocketStream.take(socket, on: other) }
            // Bytes written on one loop arrive on the other.
            let echo = Recorder(taken)
            taken.startReading()
            _ = write(client, [UInt8]("hello".utf8))
            #expect(other.run { echo.received == [UInt8]("hello".utf8) })
            taken.close()
            other.close()
            client.close()
        }
    }

    @Test("close a connection that was given away but not taken")
    func notTaken() throws {
        try self.withAccepted { loop, client, accepted in
            _ = try accepted.giveAway()
            let end = Recorder(client)
            client.startReading()
            #expect(loop.run { end.hasEnded })
            client.close()
        }
    }
}
