import FoundationEssentials
import Glibc

/// The public ports of names, which a gateway remembers in `ports.json` in its state directory.
package struct PortsFile {
    package struct Entry: Codable, Equatable {
        package let name: String
        package let identity: String
        package let port: UInt16

        package init(name: String, identity: String, port: UInt16) {
            self.name = name
            self.identity = identity
            self.port = port
        }
    }

    private struct Content: Codable {
        let version: Int
        let ports: [Entry]
    }

    package let path: String

    package init(path: String) { self.path = path }

    /// Returns no entries if the file is missing. If its content is invalid, throws and renames the file instead of
    /// letting it be overwritten.
    package func load() throws(SettingsError) -> [Entry] {
        guard FileAccess.exists(self.path) else { return [] }
        let bytes = try FileAccess.read(self.path, atMost: 16 << 20)
        guard let content = try? JSONDecoder().decode(Content.self, from: Data(bytes)), content.version == 1 else {
            let aside = "\(self.path).unreadable"
            guard rename(self.path, aside) == 0 else { throw FileAccess.error(self.path, "cannot be moved aside") }
            throw SettingsError(self.path, "is damaged; it was moved to \(aside)")
        }
        return content.ports
    }

    /// Not synced to disk: a machine crash may lose the newest ports, a crash of the gateway loses none.
    package func save(_ entries: [Entry]) throws(SettingsError) {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys]
        guard let data = try? encoder.encode(Content(version: 1, ports: entries)) else {
            throw SettingsError(self.path, "cannot be encoded")
        }
        try FileAccess.replace(self.path, with: Array(data), durable: false)
    }
}
