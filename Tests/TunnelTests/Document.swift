import Foundation

/// Reads the normative document, so that tests keep it and the code consistent.
enum Document {
    static func text() throws -> String {
        let file = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .deletingLastPathComponent().appendingPathComponent("docs/protocol.md")
        return try String(contentsOf: file, encoding: .utf8)
    }

    /// The cells of the Markdown table after a marker, without its header.
    static func rows(after marker: String) throws -> [[String]] {
        let text = try self.text()
        guard let start = text.range(of: marker) else { return [] }
        let lines = text[start.upperBound...].split(separator: "\n").prefix { $0.hasPrefix("|") }
        return lines.dropFirst(2).map { line in
            line.split(separator: "|").map { $0.trimmingCharacters(in: .whitespaces) }
        }
    }

    /// The lines of the first trace after a heading: the sender and the bytes.
    static func trace(_ heading: String) throws -> [(sender: String, bytes: [UInt8])] {
        let text = try self.text()
        guard let section = text.range(of: "\n## \(heading)\n"),
            let start = text[section.upperBound...].range(of: "```trace\n"),
            let end = text[start.upperBound...].range(of: "```")
        else { return [] }
        return text[start.upperBound..<end.lowerBound].split(separator: "\n").compactMap { line in
            let words = line.split(separator: " ")
            guard let sender = words.first, sender == "agent" || sender == "gateway" else { return nil }
            return (String(sender), words.dropFirst().compactMap { UInt8($0, radix: 16) })
        }
    }
}
