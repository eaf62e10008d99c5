import Foundation
import Journal
import Logging
import Testing

@Suite("A JSON log line")
struct JSONLineTests {
    /// The object in `line`, parsed by another parser than ours.
    private func parsed(_ line: String) throws -> [String: Any] {
        #expect(!line.contains { $0.isNewline }, "\(line)")
        let value = try JSONSerialization.jsonObject(with: Data(line.utf8))
        return try #require(value as? [String: Any])
    }

    private func line(_ message: String, _ metadata: Logger.Metadata = [:], lost: Int = 0, atMost: Int = 4_095)
        -> String
    {
        JSONLine.text(
            time: "2026-11-23T09:41:07.310Z", level: .info, message: message, metadata: metadata, lost: lost,
            atMost: atMost
        )
    }

    private static let nasty = [
        "", " ", "plain", "\"", "\\", "\\\"", "\\u0041", "a\nb\r\nc\td", "\0", "\u{1}\u{8}\u{C}\u{1F}",
        "\u{7F}\u{80}\u{9F}",
        "\u{1B}[31mred\u{1B}[0m", "\u{2028}\u{2029}", "\u{202E}txt.exe", "ä ö ü ß", "日本語", "\u{1F600}", "e\u{301}",
        "\u{FEFF}",
        "\u{FFFD}", "\u{FFFF}", "\u{10FFFF}", "\u{0}\u{0}\u{0}", "</script>", "{\"a\":1}", "}", "]", "'", "…", "/",
        "a\u{85}b",
    ]

    @Test("preserves every text", arguments: Self.nasty)
    func texts(_ text: String) throws {
        let object = try self.parsed(self.line(text, ["name": "\(text)", "agent": .stringConvertible(text)]))
        #expect((object["message"] as? String)?.unicodeScalars.elementsEqual(text.unicodeScalars) == true)
        #expect((object["name"] as? String)?.unicodeScalars.elementsEqual(text.unicodeScalars) == true)
        #expect((object["agent"] as? String)?.unicodeScalars.elementsEqual(text.unicodeScalars) == true)
    }

    @Test("contains no character that moves the cursor or ends a line")
    func harmless() {
        for value in UInt32(0)...0x3000 {
            guard let scalar = Unicode.Scalar(value) else { continue }
            let isControl = value < 0x20 || (0x7F...0x9F).contains(value) || value == 0x2028 || value == 0x2029
            let has = self.line("a\(scalar)b").unicodeScalars.contains(scalar)
            #expect(!isControl || !has, "U+\(String(value, radix: 16))")
        }
    }

    @Test("has time, level and message first, then the fields sorted by name, with numbers as numbers")
    func form() {
        let metadata = Logger.Metadata.about([
            .port: UInt16(33_605), .name: "example", .visitor: nil, .duration: 12.5, .exit: Int32(-1),
            .code: "name-taken",
        ])
        let start = #"{"time":"2026-11-23T09:41:07.310Z","level":"info","message":"m""#
        #expect(
            self.line("m", metadata)
                == start + #","code":"name-taken","duration-ms":12.5,"exit":-1,"name":"example","port":33605}"#)
        #expect(self.line("m", lost: 7) == start + #","lost":7}"#)
        #expect(self.line("m", ["nan": .stringConvertible(Double.nan)]) == start + #","nan":"nan"}"#)
        #expect(self.line("m", ["all": ["a", "b"]]) == start + #","all":"[\"a\", \"b\"]"}"#)
    }

    @Test("has the documented level names")
    func levels() throws {
        let wanted: [(Logger.Level, String)] = [
            (.trace, "trace"), (.debug, "debug"), (.info, "info"), (.notice, "info"), (.warning, "warning"),
            (.error, "error"), (.critical, "error"),
        ]
        for (level, name) in wanted {
            let line = JSONLine.text(time: "", level: level, message: "", metadata: [:], atMost: 4_095)
            #expect(try self.parsed(line)["level"] as? String == name)
        }
    }

    @Test("ignores fields named time, level or message")
    func reserved() throws {
        let object = try self.parsed(self.line("m", ["message": "forged", "level": "x", "time": "y", "lost": "z"]))
        #expect(object["message"] as? String == "m")
        #expect(object.count == 3)
    }

    @Test(
        "is cut inside the quotes if it is too long",
        arguments: ["a", "\"", "\n", "\u{1}", "ä", "日", "\u{1F600}", "a\u{1}ä\u{1F600}\""])
    func long(_ piece: String) throws {
        for atMost in [1_024, 1_025, 1_026, 1_027, 4_095] {
            for shift in 0..<8 {
                let message = String(repeating: "x", count: shift) + String(repeating: piece, count: 5_000)
                let text = self.line(message, ["name": "\(message)", "port": .stringConvertible(1)], atMost: atMost)
                #expect(text.utf8.count <= atMost)
                // The cut leaves no room unused: an escape has up to 6 bytes and the ellipsis 3.
                #expect(text.utf8.count > atMost - 12)
                let object = try self.parsed(text)
                #expect(object["port"] as? Int == 1)
                for key in ["message", "name"] {
                    let kept = try #require(object[key] as? String)
                    #expect(kept.hasSuffix("…"))
                    #expect(message.unicodeScalars.starts(with: kept.unicodeScalars.dropLast()))
                }
            }
        }
    }

    @Test("keeps a text that just fits, and the message when there are too many fields")
    func bounds() throws {
        let empty = self.line("").utf8.count
        let fits = String(repeating: "x", count: 4_095 - empty)
        #expect(try self.parsed(self.line(fits))["message"] as? String == fits)
        #expect(self.line(fits + "x").utf8.count == 4_095)
        #expect(self.line(fits + "x").hasSuffix("x…\"}"))
        var metadata: Logger.Metadata = [:]
        for number in 0..<100 { metadata["key\(number)"] = "\(String(repeating: "y", count: 100))" }
        let message = String(repeating: "z", count: 500)
        let crowded = self.line(message, metadata)
        #expect(crowded.utf8.count <= 4_095)
        #expect(try self.parsed(crowded)["message"] as? String == message)
        #expect(try self.parsed(crowded).count > 20)
    }

    @Test("random texts are preserved, whole or truncated")
    func random() throws {
        var generator = SystemRandomNumberGenerator()
        for _ in 0..<300 {
            let scalars = (0..<Int.random(in: 0...3_000, using: &generator)).compactMap { _ in
                Unicode.Scalar(UInt32.random(in: 0...(Bool.random() ? 0x7F : 0x10FFFF), using: &generator))
            }
            let message = String(String.UnicodeScalarView(scalars))
            let text = self.line(message)
            #expect(text.utf8.count <= 4_095)
            let kept = try #require(try self.parsed(text)["message"] as? String)
            let isWhole = kept.unicodeScalars.elementsEqual(message.unicodeScalars)
            #expect(isWhole || message.unicodeScalars.starts(with: kept.unicodeScalars.dropLast()), "\(text)")
        }
    }

    @Test("has exactly the fields that docs/monitoring.md describes")
    func documented() throws {
        let file = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .deletingLastPathComponent().appendingPathComponent("docs/monitoring.md")
        let parts = try String(contentsOf: file, encoding: .utf8).components(separatedBy: "<!-- fields -->\n")
        let rows = try #require(parts.last).split(separator: "\n").prefix { $0.hasPrefix("|") }.dropFirst(2)
        let names = rows.flatMap { row in
            let cell = row.split(separator: "|")[0].split(separator: "`")
            return cell.map(String.init).filter { $0.contains { $0.isLetter } }
        }
        #expect(names.sorted() == (LogKey.allCases.map(\.rawValue) + ["time", "level", "message", "lost"]).sorted())
    }
}
