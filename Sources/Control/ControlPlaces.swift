import Glibc
internal import Reactor

/// Where agents are asked: a socket for each process, as several may share a state directory.
package enum ControlPlaces {
    private static let prefix = "agent-"
    private static let suffix = ".sock"

    package static func path(of process: Int32, in directory: String) -> String {
        "\(directory)/\(self.prefix)\(process)\(self.suffix)"
    }

    /// The sockets in a state directory, in order.
    package static func all(in directory: String) -> [String] {
        guard let handle = opendir(directory) else { return [] }
        defer { closedir(handle) }
        var paths: [String] = []
        while let entry = readdir(handle) {
            let name = withUnsafeBytes(of: &entry.pointee.d_name) {
                String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self)
            }
            if name.hasPrefix(self.prefix), name.hasSuffix(self.suffix) { paths.append("\(directory)/\(name)") }
        }
        return paths.sorted()
    }

    /// Removes what killed agents have left.
    package static func removeLeftovers(in directory: String) {
        for path in self.all(in: directory) { _ = UnixSocketFile.removeDead(path) }
    }
}
