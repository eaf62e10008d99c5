internal import Reactor
internal import Secure
package import Settings

/// Looks at everything that a start would find out, without listening or changing anything.
package enum ConfigurationCheck {
    /// - Returns: what was looked at, a line each.
    package static func run(_ options: GatewayOptions) throws(SettingsErrors) -> [String] {
        let (settings, found, needs) = GatewaySettings.examine(options)
        var notes: [String] = []
        var problems = found
        switch settings.authentication {
        case .byDefault(let path) where !FileAccess.exists(path):
            notes.append("agents: open to this machine, as there is no \(path)")
        case .byDefault(let path), .file(let path):
            do throws(SettingsErrors) {
                let count = try AgentsFile(path: path).agents.count
                notes.append("agents: \(count) in \(path)")
            } catch { problems += error.all }
        case .open: notes.append("agents: open to everybody")
        case .hook(.exec(let exec)): notes.append("agents: judged by \(exec.command[0])")
        case .hook(.webhook(let webhook)): notes.append("agents: judged by \(webhook.shownURL)")
        }
        do throws(GatewayError) {
            if let files = settings.tlsFiles {
                notes.append("TLS: \(try GatewayIdentity.load(files).pin)")
            } else {
                try GatewayIdentity.check(in: settings.stateDirectory)
            }
        } catch {
            // With files of its own it is the need below that says so, and where they are named.
            if settings.tlsFiles == nil { problems.append(SettingsError("TLS", error.description)) }
        }
        var unseen: [String] = []
        for need in needs {
            do throws(SettingsError) {
                if let directory = try self.check(need) { unseen.append(directory) }
            } catch { problems.append(error) }
        }
        guard problems.isEmpty else { throw SettingsErrors(problems) }
        notes.append("registrars: \((["print"] + settings.registrars.map(\.kind)).joined(separator: ", "))")
        if !unseen.isEmpty {
            let list = Set(unseen).sorted().joined(separator: ", ")
            notes.append("not looked at, as this is root: whether the gateway's own user may write into \(list)")
        }
        return notes
    }

    /// - Returns: a directory of which nothing more could be told than that it is there.
    private static func check(_ need: StartNeed) throws(SettingsError) -> String? {
        switch need.kind {
        case .address(let host):
            if host != "localhost", SocketAddress(host, port: 0) == nil {
                throw SettingsError(
                    need.place, "'\(host)' is no address: write 0.0.0.0, [::], an address of this machine or localhost")
            }
        case .directory(let path): return try self.told(FileAccess.writability(path), path, need.place)
        case .newDirectory(let path):
            let parent = FileAccess.nearestExisting(path)
            return try self.told(FileAccess.writability(parent), parent, need.place)
        case .authorities(let path):
            let pem = try FileAccess.read(path, most: 1 << 20)
            guard Identity.certificateCount(inPEM: pem) > 0 else {
                throw SettingsError(need.place, "\(path): no certificate in PEM form")
            }
        case .identity(let certificate, let key):
            do throws(GatewayError) { _ = try GatewayIdentity.load((certificate, key)) } catch {
                throw SettingsError(need.place, error.description)
            }
        }
        return nil
    }

    private static func told(
        _ writability: FileAccess.Writability, _ path: String, _ place: String
    ) throws(SettingsError) -> String? {
        switch writability {
        case .yes: return nil
        case .unknown: return path
        case .no(let reason): throw SettingsError(place, "the directory \(path) cannot be used: \(reason)")
        }
    }
}
