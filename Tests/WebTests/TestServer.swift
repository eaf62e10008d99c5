import Foundation

/// `server.py` beside this file: one for all tests of this process, as it ends with the process.
final class TestServer: Sendable {
    private struct Greeting: Decodable {
        let directory: String
        let ports: [String: UInt16]
    }

    private struct Silent: Error {}

    private static let started = Result { try TestServer() }
    static var shared: TestServer { get throws { try Self.started.get() } }

    private let greeting: Greeting
    /// Its standard input, which ends when this process does.
    private let input: Pipe

    private init() throws {
        let server = Process()
        server.executableURL = URL(filePath: "/usr/bin/python3")
        let script = URL(filePath: #filePath).deletingLastPathComponent().appending(path: "server.py")
        server.arguments = ["-W", "ignore", script.path]
        let output = Pipe()
        self.input = Pipe()
        server.standardInput = self.input
        server.standardOutput = output
        try server.run()
        var line = Data()
        while line.last != 0x0A {
            let more = output.fileHandleForReading.availableData
            if more.isEmpty { throw Silent() }
            line += more
        }
        self.greeting = try JSONDecoder().decode(Greeting.self, from: line)
    }

    /// - Parameter kind: `http`, `https`, `strict` (wants a client certificate) or `old` (TLS 1.1 at best).
    func url(_ path: String, kind: String = "http", host: String = "localhost") -> String {
        "\(kind == "http" ? "http" : "https")://\(host):\(self.greeting.ports[kind] ?? 0)/\(path)"
    }

    func file(_ name: String) -> String { "\(self.greeting.directory)/\(name)" }
}
