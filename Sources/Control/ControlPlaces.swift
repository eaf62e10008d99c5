import Glibc
internal import Reactor

/// The control sockets of agents: one for each process, because several agents may share a state directory.
package enum ControlPlaces {
    private static let prefix = "agent-"
    private static let suffix = ".sock"

    package static func path(of process: Int32, in directory: String) -> String {
        "\(directory)/\(self.prefix)\(process)\(self.suffix)"
    }

    /// The sockets in a state directory and in its subdirectories, which instances of a service use; sorted. Empty if
    /// the directory does not exist.
    package static func all(in directory: String) throws(ControlError) -> [String] {
        let names: [String]
        do throws(UVError) { names = try self.names(in: directory) } catch {
            if error == .noSuchFile { return [] }
            throw .unreachable(path: directory, reason: error.description)
        }
        var paths = self.sockets(names, directory)
        for name in names where !name.hasPrefix(".") {
            // Most entries are files.
            guard let below = try? self.names(in: "\(directory)/\(name)") else { continue }
            paths += self.sockets(below, "\(directory)/\(name)")
        }
        return paths.sorted()
    }

    private static func sockets(_ names: [String], _ directory: String) -> [String] {
        names.filter { $0.hasPrefix(self.prefix) && $0.hasSuffix(self.suffix) }.map { "\(directory)/\($0)" }
    }

    private static func names(in directory: String) throws(UVError) -> [String] {
        guard let handle = opendir(directory) else { throw UVError(code: -errno) }
        defer { closedir(handle) }
        var names: [String] = []
        while let entry = readdir(handle) {
            names.append(
                withUnsafeBytes(of: &entry.pointee.d_name) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) })
        }
        return names
    }

    /// Removes the sockets of killed agents from a state directory.
    package static func removeLeftovers(in directory: String) {
        let names = (try? self.names(in: directory)) ?? []
        for path in self.sockets(names, directory) { _ = UnixSocketFile.removeDead(path) }
    }
}
