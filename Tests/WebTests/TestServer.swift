import Foundation

/// Runs `server.py` from this directory. All tests of the process share one server, which ends with the process.
final class TestServer: Sendable {
    private struct Greeting: Decodable {
        let directory: String
        let ports: [String: UInt16]
    }

    private struct Silent: Error {}

    private static let started = Result { try TestServer() }
    static var shared: TestServer { get throws { try Self.started.get() } }

    private let greeting: Greeting
    /// Our end of the socket that is the server's standard input and output. The server ends when this process does.
    private let connection: CInt

    private init() throws {
        // Foundation's Process is unsuitable: when two threads use it at once, each child can inherit the other's
        // descriptors, and another test would then wait for the server to end. No other program inherits these
        // descriptors.
        var ends: [CInt] = [0, 0]
        let kind = CInt(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue)
        guard socketpair(AF_UNIX, kind, 0, &ends) == 0 else { throw POSIXError(.init(rawValue: errno) ?? .EIO) }
        self.connection = ends[0]
        defer { Glibc.close(ends[1]) }
        let script = URL(filePath: #filePath).deletingLastPathComponent().appending(path: "server.py").path
        try Self.start(["/usr/bin/python3", "-W", "ignore", script], talkingTo: ends[1])
        var line = Data()
        while line.last != 0x0A {
            var buffer = [UInt8](repeating: 0, count: 4_096)
            // The server generates keys first, which takes seconds on a busy machine.
            var readiness = pollfd(fd: self.connection, events: Int16(POLLIN), revents: 0)
            guard poll(&readiness, 1, 60_000) == 1 else { throw Silent() }
            let count = read(self.connection, &buffer, buffer.count)
            guard count > 0 else { throw Silent() }
            line += buffer[..<count]
        }
        self.greeting = try JSONDecoder().decode(Greeting.self, from: line)
    }

    private static func start(_ arguments: [String], talkingTo connection: CInt) throws {
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        posix_spawn_file_actions_adddup2(&actions, connection, STDIN_FILENO)
        posix_spawn_file_actions_adddup2(&actions, connection, STDOUT_FILENO)
        var words = arguments.map { strdup($0) } + [nil]
        defer { for word in words { free(word) } }
        var process: pid_t = 0
        let code = posix_spawn(&process, arguments[0], &actions, nil, &words, environ)
        guard code == 0 else { throw POSIXError(.init(rawValue: code) ?? .EIO) }
    }

    /// - Parameter kind: `http`, `https`, `strict` (requires a client certificate) or `old` (TLS 1.1 at most).
    func url(_ path: String, kind: String = "http", host: String = "localhost") -> String {
        "\(kind == "http" ? "http" : "https")://\(host):\(self.greeting.ports[kind] ?? 0)/\(path)"
    }

    func file(_ name: String) -> String { "\(self.greeting.directory)/\(name)" }
}
