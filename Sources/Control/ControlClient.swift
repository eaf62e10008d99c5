import FoundationEssentials
import Glibc
internal import Reactor

/// Why a control command failed.
package enum ControlError: Error, Equatable, CustomStringConvertible {
    /// The program at the path does not answer.
    case unreachable(path: String, reason: String)
    /// The user may not use the socket at the path.
    case denied(path: String)
    /// Nothing listens at the path: no socket, or that of a program that was killed.
    case dead(path: String)
    /// The answer is not valid for this program.
    case garbled
    /// The program refused the request, for this reason.
    case refused(String)

    package var description: String {
        switch self {
        case .unreachable(let path, let reason): "\(path): \(reason)"
        case .denied(let path): "\(path): permission denied"
        case .dead(let path): "\(path): no program listens on this socket"
        case .garbled: "cannot parse the answer: check that both programs have the same version"
        case .refused(let reason): reason
        }
    }
}

/// Sends requests to a running program. Calls block until the answer has arrived.
package struct ControlClient {
    /// Maximum length of one answer, a line, in bytes.
    private static let maxAnswer = 64 << 20

    private let path: String
    private let timeoutSeconds: Int

    /// - Parameter timeoutSeconds: time limit for the whole answer of `ask`.
    package init(path: String, timeoutSeconds: Int = 10) {
        self.path = path
        self.timeoutSeconds = timeoutSeconds
    }

    /// Sends a request that has exactly one answer.
    package func ask<Result: Codable>(
        _ request: ControlRequest, _ type: Result.Type
    ) throws(ControlError) -> Result {
        var answer: Result?
        try self.ask(request, type, timeoutSeconds: self.timeoutSeconds) { result in
            answer = result
            return true
        }
        guard let answer else { throw .garbled }
        return answer
    }

    /// Sends a request and calls `each` for every answer, until the other end closes or `each` returns false.
    package func watch<Result: Codable>(
        _ request: ControlRequest, _ type: Result.Type, each: (Result) -> Bool
    ) throws(ControlError) {
        try self.ask(request, type, timeoutSeconds: nil, each: each)
    }

    private func ask<Result: Codable>(
        _ request: ControlRequest, _ type: Result.Type, timeoutSeconds: Int?, each: (Result) -> Bool
    ) throws(ControlError) {
        let descriptor = Self.connect(self.path)
        guard descriptor >= 0 else {
            switch errno {
            case ECONNREFUSED, ENOENT: throw .dead(path: self.path)
            case EACCES, EPERM: throw .denied(path: self.path)
            case EAGAIN: throw .unreachable(path: self.path, reason: "the program is too busy to answer")
            default: throw .unreachable(path: self.path, reason: String(cString: strerror(errno)).lowercased())
            }
        }
        defer { Glibc.close(descriptor) }
        guard let data = try? JSONEncoder().encode(request), Self.send(descriptor, Array(data) + [0x0A]) else {
            throw .unreachable(path: self.path, reason: String(cString: strerror(errno)).lowercased())
        }
        let deadline = timeoutSeconds.map { Self.now + $0 * 1_000 }
        var received: [UInt8] = []
        var hasAnswer = false
        var buffer = [UInt8](repeating: 0, count: 64 * 1024)
        while true {
            guard Self.isReadable(descriptor, by: deadline), received.count <= Self.maxAnswer else {
                throw .unreachable(path: self.path, reason: "no answer within \(timeoutSeconds ?? 0) s")
            }
            let count = read(descriptor, &buffer, buffer.count)
            if count < 0 {
                if errno == EINTR || errno == EAGAIN { continue }
                throw .unreachable(path: self.path, reason: String(cString: strerror(errno)).lowercased())
            }
            guard count > 0 else {
                // A watch may end without an answer, because nothing happened until the program stopped.
                guard !hasAnswer, request.watch != true else { return }
                throw .unreachable(
                    path: self.path, reason: "the connection was closed without an answer: the program may be busy")
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
            throw .refused(failure.error ?? "the request failed")
        }
        guard let reply = try? JSONDecoder().decode(ControlReply<Result>.self, from: line), let result = reply.result
        else { throw .garbled }
        return result
    }

    /// Milliseconds of the monotonic clock.
    private static var now: Int {
        var time = timespec()
        clock_gettime(CLOCK_MONOTONIC, &time)
        return time.tv_sec * 1_000 + time.tv_nsec / 1_000_000
    }

    /// Waits for bytes or the end of the stream. Returns false at the deadline.
    private static func isReadable(_ descriptor: CInt, by deadline: Int?) -> Bool {
        while true {
            let left = deadline.map { $0 - self.now }
            if let left, left <= 0 { return false }
            var request = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
            let count = poll(&request, 1, left.map { CInt(clamping: $0) } ?? -1)
            if count > 0 { return true }
            if count < 0, errno != EINTR { return true }
        }
    }

    // MARK: - The socket

    /// Whether a program may be listening at the path.
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

    /// Returns a connected socket, or -1 and `errno`.
    private static func connect(_ path: String) -> CInt {
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        let bytes = Array(path.utf8)
        guard bytes.count < MemoryLayout.size(ofValue: address.sun_path) else {
            errno = ENAMETOOLONG
            return -1
        }
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: bytes) }
        // Non-blocking: with a full backlog this gives EAGAIN instead of waiting.
        let kind = CInt(SOCK_STREAM.rawValue) | CInt(SOCK_CLOEXEC.rawValue) | CInt(SOCK_NONBLOCK.rawValue)
        let descriptor = socket(AF_UNIX, kind, 0)
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
