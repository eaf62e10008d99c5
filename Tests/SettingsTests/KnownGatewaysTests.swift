import Foundation
import Settings
import Testing

private let pinA = "sha256/" + String(repeating: "A", count: 43) + "="
private let pinB = "sha256/" + String(repeating: "B", count: 42) + "A="

@Suite("Known gateways")
struct KnownGatewaysTests {
    /// The content of the file after a gateway was remembered.
    private func remembered(_ text: String, _ gateway: String = "b:1") throws -> String {
        try withDirectory { directory in
            let path = "\(directory)/known_gateways"
            try write(text, path)
            let entry = try KnownGateways.remember(gateway, pin: pinB, path: path)
            #expect(entry.pin == pinB)
            #expect(try KnownGateways(path: path).entry(of: gateway) == entry)
            return String(decoding: try FileAccess.read(path, atMost: 1 << 20), as: UTF8.self)
        }
    }

    private func known(_ text: String) throws -> KnownGateways {
        try withDirectory { directory in
            let path = "\(directory)/known_gateways"
            try write(text, path)
            return try KnownGateways(path: path)
        }
    }

    @Test("keep existing lines unchanged")
    func kept() throws {
        #expect(try remembered("") == "b:1 \(pinB)\n")
        #expect(try remembered("# mine\n\ngw:1 \(pinA)\n") == "# mine\n\ngw:1 \(pinA)\nb:1 \(pinB)\n")
        #expect(try remembered("gw:1 \(pinA)") == "gw:1 \(pinA)\nb:1 \(pinB)\n")
        #expect(try remembered("gw:1 \(pinA)\r\n") == "gw:1 \(pinA)\r\nb:1 \(pinB)\r\n")
        #expect(try remembered("\u{FEFF}gw:1 \(pinA)\n") == "\u{FEFF}gw:1 \(pinA)\nb:1 \(pinB)\n")
        // A damaged line of another gateway is left to the operator. A damaged line of the same gateway is replaced.
        #expect(try remembered("gw:1 sha256/A\n") == "gw:1 sha256/A\nb:1 \(pinB)\n")
        #expect(try remembered("b:1 sha256/B\ngw:1 \(pinA)\n") == "gw:1 \(pinA)\nb:1 \(pinB)\n")
    }

    @Test(
        "are found with any line ending and any beginning of the file",
        arguments: ["\n", "\r\n"], ["", "\u{FEFF}", "# mine", "\u{FEFF}# mine"])
    func found(_ end: String, _ start: String) throws {
        let lines = (start.hasSuffix("mine") ? [start, "", "gw:1\t \(pinA)"] : ["\(start)gw:1\t \(pinA)"]) + [""]
        let known = try known(lines.joined(separator: end))
        let entry = try #require(known.entry(of: "gw:1"))
        #expect(entry.pin == pinA && entry.line == lines.count - 1)
        #expect(known.entry(of: "gw:2") == nil && known.entry(of: "gw") == nil)
        #expect(known.damage(near: "gw:1") == nil)
    }

    @Test(
        "a damaged line is ignored, and its place is reported",
        arguments: [
            "gw:1", "gw:1 sha256/", "gw:1 \(pinA.dropLast(3))", "gw:1 \(pinA) more", "gw:1 \(pinA)\rgw:2 \(pinB)",
            "nonsense",
            "gw:1 sha1/x", String(repeating: "\0", count: 64), "gw:1 \(pinA)\0\0", "<<<<<<< HEAD",
        ])
    func damaged(_ line: String) throws {
        let known = try known("# mine\nb:1 \(pinB)\n\(line)\n")
        #expect(known.entry(of: "gw:1") == nil)
        #expect(known.entry(of: "b:1")?.pin == pinB)
        #expect(known.damage(near: "gw:1") == "\(known.path):3")
    }

    @Test("if two lines are damaged, the gateway's own line is reported")
    func nearest() throws {
        let known = try known("nonsense\ngw:1 sha256/A\n")
        #expect(known.damage(near: "gw:1") == "\(known.path):2")
        #expect(known.damage(near: "gw:2") == "\(known.path):1")
    }

    @Test("bytes that are not UTF-8 are kept")
    func bytes() throws {
        try withDirectory { directory in
            let path = "\(directory)/known_gateways"
            let content: [UInt8] = [0xFF, 0xFE, 0x00, 0x0A]
            try FileAccess.replace(path, with: content, durable: false)
            _ = try KnownGateways.remember("b:1", pin: pinB, path: path)
            #expect(try FileAccess.read(path, atMost: 1 << 10) == content + Array("b:1 \(pinB)\n".utf8))
        }
    }

    @Test("the key remembered first stays")
    func first() throws {
        try withDirectory { directory in
            let path = "\(directory)/known_gateways"
            let first = try KnownGateways.remember("gw:1", pin: pinA, path: path)
            let second = try KnownGateways.remember("gw:1", pin: pinB, path: path)
            let known = try KnownGateways(path: path)
            #expect(first.pin == pinA && second == first && known.entry(of: "gw:1") == first && first.line == 1)
        }
    }

    @Test("agents that write at the same time lose nothing")
    func atOnce() async throws {
        let directory = FileManager.default.temporaryDirectory.appendingPathComponent("diglett-\(UUID().uuidString)")
            .path
        try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(atPath: directory) }
        let path = "\(directory)/known_gateways"
        try await withThrowingTaskGroup(of: Void.self) { group in
            for number in 0..<40 {
                group.addTask { _ = try KnownGateways.remember("gw:\(number)", pin: pinA, path: path) }
            }
            try await group.waitForAll()
        }
        let known = try KnownGateways(path: path)
        #expect((0..<40).allSatisfy { known.entry(of: "gw:\($0)") != nil })
    }
}
