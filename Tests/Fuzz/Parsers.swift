import Bytes
import Control
import Modules
import ProxyProtocol
import Settings
import Web
import Wire

// Parsers of external input. Each must return, and accepted input must satisfy its rules.

/// Control frames. Each accepted frame must survive encoding and decoding unchanged.
@Sendable func fuzzFrames(_ bytes: [UInt8]) -> Int {
    var offset = 0
    var count = 0
    while let header = FrameHeader(bytes.span.bytes, at: offset) {
        offset += WireConstant.headerSize
        let end = min(bytes.count, offset + header.length)
        defer { offset = end }
        guard let type = FrameType(rawValue: header.typeByte), type != .data else { continue }
        let payload = bytes.span.bytes.extracting(offset..<end)
        guard let frame = try? ControlFrame(type, payload: payload) else { continue }
        let again = encoded(frame)
        guard let header = FrameHeader(again.span.bytes, at: 0) else { fatalError("\(frame) has no header") }
        check(header.length == again.count - WireConstant.headerSize, "\(frame): the length is wrong")
        let decoded = try? ControlFrame(type, payload: again.span.bytes.extracting(WireConstant.headerSize...))
        check(decoded == frame, "\(frame) became \(String(describing: decoded))")
        count += 1
    }
    return count
}

/// Encodes a frame with its header.
func encoded(_ frame: ControlFrame) -> [UInt8] {
    var out = ByteQueue()
    switch frame {
    case .hello(let hello): hello.encode(into: &out)
    case .login(let login): login.encode(into: &out)
    case .welcome(let welcome): welcome.encode(into: &out)
    case .register(let register): register.encode(into: &out)
    case .registered(let registered): registered.encode(into: &out)
    case .unregister(let exposure): NumberFrame.encode(.unregister, exposure, into: &out)
    case .open(let open): open.encode(id: 1, into: &out)
    case .accept(let limit): NumberFrame.encode(.accept, id: 1, limit, into: &out)
    case .window(let limit): NumberFrame.encode(.window, id: 1, limit, into: &out)
    case .reset(let code): NumberFrame.encode(.reset, id: 1, code.rawValue, into: &out)
    case .ping(let opaque): NumberFrame.encode(.ping, opaque, into: &out)
    case .pong(let opaque): NumberFrame.encode(.pong, opaque, into: &out)
    case .goAway(let goAway): goAway.encode(into: &out)
    case .resume(let resume): resume.encode(into: &out)
    case .resumed(let resumed): resumed.encode(into: &out)
    case .ack(let handled): NumberFrame.encode(.ack, handled, into: &out)
    }
    return out.withReadable { Array($0) }
}

/// A PROXY header, split into pieces of the size in the first byte. Splitting must not change the outcome.
@Sendable func fuzzProxyHeader(_ bytes: [UInt8]) -> Int {
    let size = max(1, Int(bytes.first ?? 1))
    let text = Array(bytes.dropFirst())
    var whole = ProxyHeaderDecoder()
    let outcome = whole.received(text.span.bytes)
    var inPieces = ProxyHeaderDecoder()
    var used = 0
    var last = ProxyHeaderDecoder.Progress.needMore
    for start in stride(from: 0, to: text.count, by: size) {
        last = inPieces.received(text[start..<min(start + size, text.count)].span.bytes)
        guard case .header(_, let count) = last else {
            if case .invalid = last { break }
            used = start + size
            continue
        }
        used = start + count
        break
    }
    switch (outcome, last) {
    case (.needMore, .needMore): return 0
    case (.invalid(let one), .invalid(let other)) where one == other: return 1
    case (.header(let one, let count), .header(let other, _)) where one == other && count == used: return count
    default: fatalError("\(outcome) as a whole, \(last) in pieces of \(size) bytes")
    }
}

/// One line of the control socket. A fault must have a description of one line.
@Sendable func fuzzControl(_ bytes: [UInt8]) -> Int {
    switch ControlRequest.parse(bytes) {
    case .success(let request): return request.command.rawValue.count + (request.target?.count ?? 0)
    case .failure(let fault):
        check(isOneLine(fault.description), "a fault of several lines: \(fault)")
        return 1
    }
}

/// The head of a request, split into pieces of the size in the first byte.
@Sendable func fuzzHTTP(_ bytes: [UInt8]) -> Int {
    let size = max(1, Int(bytes.first ?? 1))
    let text = Array(bytes.dropFirst())
    var head = RequestHead()
    for start in stride(from: 0, to: text.count, by: size) {
        let progress = text[start..<min(start + size, text.count)].withUnsafeBytes { head.received($0) }
        switch progress {
        case .needMore: check(start < RequestHead.maximum, "\(start) bytes and no verdict")
        case .invalid: return 1
        case .request(let line):
            check(line.path.hasPrefix("/") && !line.path.contains("?"), "the path \(line.path)")
            check(!line.method.isEmpty, "a request without a method")
            return line.method.count + line.path.count
        }
    }
    return 0
}

@Sendable func fuzzTOML(_ bytes: [UInt8]) -> Int {
    let text = String(decoding: bytes, as: UTF8.self)
    do throws(SettingsError) {
        let root = try TOMLFile(path: "file", text: text).root
        for key in ["a", "key", "name"] { _ = try? root.string(key) }
        for section in (try? root.sections("agent")) ?? [] { _ = try? section.strings("names") }
        return 2
    } catch {
        check(isOneLine(error.description), "an error of several lines: \(error)")
        return 1
    }
}

/// No two agents of an accepted file may share a name.
@Sendable func fuzzAgentsFile(_ bytes: [UInt8]) -> Int {
    do throws(SettingsErrors) {
        let file = try AgentsFile(path: "agents.toml", text: String(decoding: bytes, as: UTF8.self))
        for (index, agent) in file.agents.enumerated() {
            check(AgentEntry.isValid(name: agent.name), "the agent '\(agent.name)'")
            for other in file.agents[(index + 1)...] {
                check(agent.name != other.name, "two agents '\(agent.name)'")
                for pattern in agent.names {
                    check(!other.names.contains { $0.overlaps(pattern) }, "\(pattern) belongs to two agents")
                }
            }
        }
        return file.agents.count
    } catch {
        for one in error.all { check(isOneLine(one.description), "an error of several lines: \(one)") }
        return error.all.count
    }
}

@Sendable func fuzzHookAnswer(_ bytes: [UInt8]) -> Int {
    switch HookAnswer.parse(bytes) {
    case .success(let answer): return answer.ok ? 2 : answer.identity?.count ?? 1
    case .failure(let failure):
        check(isOneLine("\(failure)"), "a failure of several lines: \(failure)")
        return 0
    }
}

/// The first line is a name, the second a pattern. An accepted name must be one DNS label.
@Sendable func fuzzNames(_ bytes: [UInt8]) -> Int {
    let lines = bytes.split(separator: 0x0A, maxSplits: 1, omittingEmptySubsequences: false)
    let texts = lines.map { String(decoding: $0, as: UTF8.self) }
    let pattern = texts.count > 1 ? NamePattern(texts[1]) : nil
    guard let name = Name(texts[0]) else { return pattern?.text.count ?? 0 }
    let label = Array(name.text.utf8)
    check((1...63).contains(label.count), "the name '\(name)' has \(label.count) bytes")
    check(label.allSatisfy { (0x61...0x7A).contains($0) || (0x30...0x39).contains($0) || $0 == 0x2D }, "'\(name)'")
    check(label.first != 0x2D && label.last != 0x2D, "'\(name)' begins or ends with a hyphen")
    check(Name(name.text) == name, "'\(name)' is not accepted again")
    guard let pattern else { return 1 }
    if pattern.matches(name), let own = NamePattern(name.text) {
        check(pattern.overlaps(own) && own.overlaps(pattern), "\(pattern) matches \(name) and does not overlap it")
        return 3
    }
    return 2
}

/// Whether a text stays on one line of a log and does not move the cursor.
private func isOneLine(_ text: String) -> Bool {
    text.unicodeScalars.allSatisfy { $0.value >= 0x20 && $0.value != 0x7F }
}
