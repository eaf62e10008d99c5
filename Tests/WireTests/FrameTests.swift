import Bytes
import Foundation
import Testing
import Wire

private func bytes(_ body: (inout ByteQueue) -> Void) -> [UInt8] {
    var queue = ByteQueue()
    body(&queue)
    return queue.withReadable { Array($0) }
}

/// A frame's header and decoded payload.
private func parse(_ frame: [UInt8]) throws(WireError) -> (FrameHeader, ControlFrame) {
    let span = frame.span.bytes
    guard let header = FrameHeader(span, at: 0), let type = FrameType(rawValue: header.typeByte) else {
        throw .truncated(.code)
    }
    return (header, try ControlFrame(type, payload: span.extracting(8..<(8 + header.length))))
}

private let key = [UInt8](repeating: 7, count: 32)

private struct Sample: Sendable, CustomStringConvertible {
    let description: String
    let frame: ControlFrame
    let encode: @Sendable (inout ByteQueue) -> Void
}

private let samples: [Sample] = {
    let hello = Hello(streamWindow: 65_536, maximumStreams: 1_024, software: "test/1")
    let login = Login(method: .token, instanceKey: key, run: 42, token: "dgl_a_b")
    let notes = Login(method: .token, instanceKey: key, run: 42, token: "dgl_a_b", takesNotes: true)
    let welcome = Welcome(linkID: 9, maximumNames: 16)
    let register = Register(exposure: 3, port: 30_001, name: "example")
    let registered = Registered(exposure: 3, code: .none, port: 30_001, text: "127.0.0.1:30001")
    let open = Open(
        exposure: 3, limit: 1 << 40, visitor: WireAddress(family: 4, bytes: (0xC000_0201 << 32, 0), port: 80),
        local: WireAddress(family: 6, bytes: (0x2001_0DB8 << 32, 1), port: 443))
    let goAway = GoAway(code: .drain, retryAfterSeconds: 3, text: "bye")
    return [
        Sample(description: "HELLO", frame: .hello(hello)) { hello.encode(into: &$0) },
        Sample(description: "LOGIN", frame: .login(login)) { login.encode(into: &$0) },
        Sample(description: "LOGIN with notes", frame: .login(notes)) { notes.encode(into: &$0) },
        Sample(description: "WELCOME", frame: .welcome(welcome)) { welcome.encode(into: &$0) },
        Sample(description: "REGISTER", frame: .register(register)) { register.encode(into: &$0) },
        Sample(description: "REGISTERED", frame: .registered(registered)) { registered.encode(into: &$0) },
        Sample(description: "UNREGISTER", frame: .unregister(exposure: 3)) {
            NumberFrame.encode(.unregister, UInt16(3), into: &$0)
        },
        Sample(description: "OPEN", frame: .open(open)) { open.encode(id: 5, into: &$0) },
        Sample(description: "ACCEPT", frame: .accept(limit: .max)) {
            NumberFrame.encode(.accept, id: 5, UInt64.max, into: &$0)
        },
        Sample(description: "WINDOW", frame: .window(limit: 1)) {
            NumberFrame.encode(.window, id: 5, UInt64(1), into: &$0)
        },
        Sample(description: "RESET", frame: .reset(.refused)) {
            NumberFrame.encode(.reset, id: 5, ErrorCode.refused.rawValue, into: &$0)
        },
        Sample(description: "PING", frame: .ping(opaque: 8)) { NumberFrame.encode(.ping, UInt64(8), into: &$0) },
        Sample(description: "PONG", frame: .pong(opaque: 8)) { NumberFrame.encode(.pong, UInt64(8), into: &$0) },
        Sample(description: "GOAWAY", frame: .goAway(goAway)) { goAway.encode(into: &$0) },
    ]
}()

@Suite("Frames")
struct FrameTests {
    @Test("decode to what was encoded", arguments: samples)
    private func roundTrip(_ sample: Sample) throws {
        let frame = bytes(sample.encode)
        let (header, decoded) = try parse(frame)
        #expect(decoded == sample.frame)
        #expect(header.length == frame.count - 8)
    }

    @Test("throw when truncated at any byte, and never trap", arguments: samples)
    private func truncated(_ sample: Sample) throws {
        let frame = bytes(sample.encode)
        let type = try #require(FrameType(rawValue: frame[4]))
        for length in 0..<(frame.count - 8) {
            let payload = Array(frame[8..<(8 + length)])
            // A truncated text is still a valid text. Truncation anywhere else must be detected.
            if let short = try? ControlFrame(type, payload: payload.span.bytes) { #expect(short != sample.frame) }
        }
    }

    @Test("never trap on random payloads", arguments: FrameType.allCases.filter { $0 != .data })
    func garbage(_ type: FrameType) {
        var generator = SystemRandomNumberGenerator()
        for _ in 0..<2_000 {
            let payload = (0..<Int.random(in: 0..<120, using: &generator)).map { _ in
                UInt8.random(in: 0...255, using: &generator)
            }
            _ = try? ControlFrame(type, payload: payload.span.bytes)
        }
    }

    @Test("HELLO skips unknown extensions")
    func extensions() throws {
        var frame = bytes { Hello(streamWindow: 1, maximumStreams: 2, software: "").encode(into: &$0) }
        frame += [0x7F, 0xFF, 0, 2, 1, 2]
        frame[7] += 6
        guard case .hello(let hello) = try parse(frame).1 else {
            Issue.record("no HELLO")
            return
        }
        #expect(hello.maximumStreams == 2)
    }

    @Test("HELLO with another magic, swapped versions or a broken extension is refused")
    func badHello() {
        let good = Array(bytes { Hello(streamWindow: 1, maximumStreams: 2, software: "x").encode(into: &$0) }[8...])
        func error(_ change: (inout [UInt8]) -> Void) -> WireError? {
            var payload = good
            change(&payload)
            do throws(WireError) {
                _ = try Hello(payload: payload.span.bytes)
                return nil
            } catch { return error }
        }
        #expect(error { $0[0] = 0 } == .badMagic)
        #expect(error { $0[4] = 9 } == .badValue(.versions))
        #expect(error { $0.removeLast() } == .truncated(.extensionField))
        #expect(error { $0[$0.count - 1] = 0xFF } == .badText(.extensionField))
    }

    @Test("a long text is cut between characters, never inside a character")
    func longText() throws {
        let text = String(repeating: "ä", count: 100)
        let (_, frame) = try parse(bytes { GoAway(code: .none, text: text).encode(into: &$0) })
        guard case .goAway(let goAway) = frame else {
            Issue.record("no GOAWAY")
            return
        }
        #expect(goAway.text == String(repeating: "ä", count: 64))
    }

    @Test("every error code has a unique name")
    func slugs() {
        #expect(Set(ErrorCode.all.map(\.description)).count == ErrorCode.all.count)
        #expect(Set(ErrorCode.all.map(\.rawValue)).count == ErrorCode.all.count)
        #expect(ErrorCode(rawValue: 999).description == "code-999")
    }

    @Test("the table of codes in docs/protocol.md lists exactly the error codes")
    func documentedCodes() throws {
        let file = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .deletingLastPathComponent().appendingPathComponent("docs/protocol.md")
        let text = try String(contentsOf: file, encoding: .utf8)
        let section = try #require(text.range(of: "\n## Codes\n"))
        let rows = text[section.upperBound...].split(separator: "\n").prefix { !$0.hasPrefix("## ") }
            .compactMap { line -> String? in
                let cells = line.split(separator: "|").map { $0.trimmingCharacters(in: .whitespaces) }
                return cells.count == 3 && Int(cells[0]) != nil ? "\(cells[0]) \(cells[1])" : nil
            }
        #expect(rows == ErrorCode.all.map { "\($0.rawValue) \($0)" })
    }

    @Test(
        "addresses print in the usual notation",
        arguments: zip(
            [
                WireAddress(family: 4, bytes: (0xC000_0201 << 32, 0), port: 80),
                WireAddress(family: 6, bytes: (0, 1), port: 9),
                WireAddress(family: 6, bytes: (0x2001_0DB8 << 32, 0x1), port: 443),
                WireAddress(family: 6, bytes: (0x2001_0DB8_0001_0000, 0x0002_0000_0000_0003), port: 1),
                WireAddress(family: 6, bytes: (0, 0), port: 1),
                WireAddress(family: 6, bytes: (0x0001_0002_0003_0004, 0x0005_0006_0007_0008), port: 1),
                .none,
            ],
            [
                "192.0.2.1:80", "[::1]:9", "[2001:db8::1]:443", "[2001:db8:1:0:2::3]:1", "[::]:1",
                "[1:2:3:4:5:6:7:8]:1", "-",
            ]))
    func addresses(_ address: WireAddress, _ text: String) {
        #expect(address.description == text)
    }
}

@Suite("The text of REGISTERED")
struct RegisteredTextTests {
    @Test("is an address, and after a line feed a note")
    func note() {
        let text = Registered.text(address: "h:1", note: "taken over")
        let answer = Registered(exposure: 0, code: .none, port: 1, text: text)
        #expect(answer.place.address == "h:1")
        #expect(answer.place.note == "taken over")
        let plain = Registered(exposure: 0, code: .none, port: 1, text: Registered.text(address: "h:1", note: nil))
        #expect(plain.text == "h:1")
        #expect(plain.place.note == nil)
    }

    @Test("leaves out a note that has no room")
    func longAddress() {
        let address = String(repeating: "a", count: Registered.maximumText - 2)
        #expect(Registered.text(address: address, note: "n") == address + "\nn")
        #expect(Registered.text(address: address + "a", note: "n") == address + "a")
    }
}
