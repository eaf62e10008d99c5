import Foundation
import Glibc
import Logging
import Modules
import Reactor
import Settings
import Testing
import Wire

/// A directory and a loop for one registrar.
final class Bench {
    let loop: EventLoop
    let directory: String

    init() throws {
        self.loop = try EventLoop()
        self.directory = FileManager.default.temporaryDirectory.appendingPathComponent(UUID().uuidString).path
        try FileManager.default.createDirectory(atPath: self.directory, withIntermediateDirectories: true)
    }

    /// The settings of the registrar that a configuration file with this table configures.
    func settings(_ toml: String) throws -> RegistrarSettings {
        let path = "\(self.directory)/server.toml"
        try "[[registrar]]\n\(toml)\n".write(toFile: path, atomically: true, encoding: .utf8)
        var options = CommandOptions()
        options.configuration = path
        options["state-dir"] = [self.directory]
        return try #require(try GatewaySettings(options).registrars.first)
    }

    /// - Parameters:
    ///   - kind: `nginx` or `haproxy`, which read the file `map` of the directory.
    ///   - reload: the path of the reload program.
    func mapFileRegistrar(_ kind: String, reload: String) throws -> MapFileRegistrar {
        let settings = try self.settings(
            "kind = \"\(kind)\"\ndomain = \"gw.test\"\nfile = \"\(self.directory)/map\"\nreload = [\"\(reload)\"]")
        guard case .mapFile(let settings) = settings else { throw CancellationError() }
        return MapFileRegistrar(loop: self.loop, settings: settings)
    }

    func program(_ text: String) throws -> String {
        let path = "\(self.directory)/program-\(UUID().uuidString)"
        try "#!/bin/sh\n\(text)\n".write(toFile: path, atomically: true, encoding: .utf8)
        try FileManager.default.setAttributes([.posixPermissions: 0o755], ofItemAtPath: path)
        try Self.awaitNoWriter(of: path)
        return path
    }

    /// Waits until no process has the file open for writing. A process that another test forks has our descriptors
    /// until its execve(2), and until then the file cannot be executed (ETXTBSY).
    private static func awaitNoWriter(of path: String) throws {
        // fcntl(2): a read lease is granted only on a file without a writer.
        let setLease: CInt = 1_024
        let descriptor = open(path, O_RDONLY | O_CLOEXEC)
        try #require(descriptor >= 0)
        defer { Glibc.close(descriptor) }
        for _ in 0..<10_000 {
            if fcntl(descriptor, setLease, CInt(F_RDLCK)) == 0 || errno != EAGAIN {
                _ = fcntl(descriptor, setLease, CInt(F_UNLCK))
                return
            }
            usleep(1_000)
        }
        Issue.record("\(path) is still open for writing")
    }

    /// The content of a file in the directory. Empty if the file does not exist.
    func text(_ name: String) -> String {
        String(decoding: (try? FileAccess.read("\(self.directory)/\(name)", atMost: 1 << 20)) ?? [], as: UTF8.self)
    }

    /// Runs an operation to its end.
    func wait<Answer>(
        _ start: (@escaping (Result<Answer, RegistrarError>) -> Void) -> (any Cancellable)?
    ) throws -> Result<Answer, RegistrarError> {
        var result: Result<Answer, RegistrarError>?
        let operation = start { result = $0 }
        #expect(self.loop.run { result != nil })
        _ = operation
        return try #require(result)
    }

    func close() {
        self.loop.close()
        try? FileManager.default.removeItem(atPath: self.directory)
    }
}

func exposure(_ name: String, port: UInt16, bind: String = "127.0.0.1") throws -> PublicExposure {
    PublicExposure(
        name: try #require(Name(name)), identity: "one", address: SocketAddress(bind, port: port))
}

let quiet = Logger(label: "test", factory: { _ in SwiftLogNoOpLogHandler() })
