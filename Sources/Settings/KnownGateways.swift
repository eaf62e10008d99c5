/// The keys of gateways that an agent has met, a line each: `HOST:PORT sha256/...`. Empty lines and those that begin
/// with `#` are kept.
package struct KnownGateways {
    package let path: String
    private var lines: [String]

    package init(path: String) throws(SettingsError) {
        self.path = path
        guard FileAccess.exists(path) else {
            self.lines = []
            return
        }
        let text = String(decoding: try FileAccess.read(path, most: 1 << 20), as: UTF8.self)
        self.lines = text.split(separator: "\n", omittingEmptySubsequences: false).map(String.init)
        if self.lines.last == "" { self.lines.removeLast() }
        for (index, line) in self.lines.enumerated() where !line.isEmpty && !line.hasPrefix("#") {
            let words = line.split(whereSeparator: { $0 == " " || $0 == "\t" })
            guard words.count == 2, words[1].hasPrefix("sha256/") else {
                throw SettingsError("\(path):\(index + 1)", "a line has two words, HOST:PORT and sha256/PIN")
            }
        }
    }

    /// The pin that was seen at `gateway`, and the number of its line.
    package func pin(of gateway: String) -> (pin: String, line: Int)? {
        for (index, line) in self.lines.enumerated() {
            let words = line.split(whereSeparator: { $0 == " " || $0 == "\t" })
            if words.count == 2, words[0] == gateway { return (String(words[1]), index + 1) }
        }
        return nil
    }

    /// Adds a gateway and saves the file.
    package mutating func remember(_ gateway: String, pin: String) throws(SettingsError) {
        self.lines.append("\(gateway) \(pin)")
        let text = self.lines.map { $0 + "\n" }.joined()
        try FileAccess.replace(self.path, with: Array(text.utf8), durable: true)
    }
}
