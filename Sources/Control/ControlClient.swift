import FoundationEssentials
import Glibc
internal import Reactor

/// Why a control command was not carried out.
package enum ControlError: Error, Equatable, CustomStringConvertible {
    /// No program answers at the path.
    case unreachable(path: String, reason: String)
    /// It answered what this program does not understand.
    case garbled
    /// It said no, and why.
    case refused(String)

    package var description: String {
        switch self {
        case .unreachable(let path, let reason): "\(path): \(reason)"
        case .garbled: "the answer cannot be understood; are both programs of one version?"
        case .refused(let reason): reason
        }
    }
}

/// Asks a running program, and waits.
package struct ControlClient {
    private static let timeoutSeconds = 10

    private let path: String

    package init(path: String) { self.path = path }

    /// The one answer to a request.
    package func ask<Result: Codable>(
        _ request: ControlRequest, _ type: Result.Type
    ) throws(ControlError) -> Result {
        var answer: Result?
        try self.ask(request, type, timeoutSeconds: Self.timeoutSeconds) { result in
            answer = result
            return true
        }
        guard let answer else { throw .garbled }
        return answer
    }

    /// Calls `each` with every answer until the other side ends or it returns false.
    package func watch<Result: Codable>(
        _ request: ControlRequest, _ type: Result.Type, each: (Result) -> Bool
    ) throws(ControlError) {
        try self.ask(request, type, timeoutSeconds: 0, each: each)
    }

    private func ask<Result: Codable>(
        _ request: ControlRequest, _ type: Result.Type, timeoutSeconds: Int, each: (Result) -> Bool
    ) throws(ControlError) {
        let descriptor = Self.connect(self.path)
        guard descriptor >= 0 else {
            throw .unreachable(path: self.path, reason: String(cString: strerror(errno)).lowercased())
        }
        defer { Glibc.close(descriptor) }
        // With 0 it waits for ever (socket(7), SO_RCVTIMEO).
        var timeout = timeval(tv_sec: timeoutSeconds, tv_usec: 0)
        setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &timeout, socklen_t(MemoryLayout<timeval>.size))
        guard let data = try? JSONEncoder().encode(request), Self.send(descriptor, Array(data) + [0x0A]) else {
            throw .unreachable(path: self.path, reason: String(cString: strerror(errno)).lowercased())
        }
        var received: [UInt8] = []
        var hasAnswer = false
        var buffer = [UInt8](repeating: 0, count: 64 * 1024)
        while true {
            let count = read(descriptor, &buffer, buffer.count)
            if count < 0 {
                if errno == EINTR { continue }
                throw .unreachable(
                    path: self.path,
                    reason: errno == EAGAIN
                        ? "no answer within \(timeoutSeconds) s" : String(cString: strerror(errno)).lowercased())
            }
            guard count > 0 else {
                guard !hasAnswer else { return }
                throw .unreachable(path: self.path, reason: "it ended the conversation without an answer; is it busy?")
            }
            received += buffer[..<count]
            while let end = received.firstIndex(of: 0x0A) {
                let line = Data(received[..<end])
                received.removeSubrange(...end)
                hasAnswer = true
                guard try each(Self.decode(line, type)) else { return }
            }
        }
    }

    private static func decode<Result: Codable>(_ line: Data, _ type: Result.Type) throws(ControlError) -> Result {
        if let failure = try? JSONDecoder().decode(ControlFailure.self, from: line), !failure.ok {
            throw .refused(failure.error ?? "it cannot be done")
        }
        guard let reply = try? JSONDecoder().decode(ControlReply<Result>.self, from: line), let result = reply.result
        else { throw .garbled }
        return result
    }

    // MARK: - The socket

    /// Whether a program may listen there.
    package static func isThere(_ path: String) -> Bool { UnixSocketFile.isAlive(path) }

    private static func send(_ descriptor: CInt, _ bytes: [UInt8]) -> Bool {
        var rest = bytes[...]
        while !rest.isEmpty {
            let count = rest.withUnsafeBytes {
                Glibc.send(descriptor, $0.baseAddress, $0.count, CInt(MSG_NOSIGNAL))
            }
            if count > 0 { rest = rest.dropFirst(count) } else if errno != EINTR { return false }
        }
        return true
    }

    /// A connected socket, or -1 with `errno`.
    private static func connect(_ path: String) -> CInt {
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        let bytes = Array(path.utf8)
        guard bytes.count < MemoryLayout.size(ofValue: address.sun_path) else {
            errno = ENAMETOOLONG
            return -1
        }
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: bytes) }
        let descriptor = socket(AF_UNIX, CInt(SOCK_STREAM.rawValue) | CInt(SOCK_CLOEXEC.rawValue), 0)
        guard descriptor >= 0 else { return -1 }
        let size = socklen_t(MemoryLayout<sockaddr_un>.size)
        let code = withUnsafePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { Glibc.connect(descriptor, $0, size) }
        }
        guard code == 0 else {
            let reason = errno
            Glibc.close(descriptor)
            errno = reason
            return -1
        }
        return descriptor
    }
}
