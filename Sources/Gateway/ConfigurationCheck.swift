internal import Reactor
internal import Secure
package import Settings

/// Looks at everything that a start would read, without listening or changing anything.
package enum ConfigurationCheck {
    /// - Returns: what was looked at, a line each.
    package static func run(_ options: GatewayOptions) throws(SettingsErrors) -> [String] {
        let settings: GatewaySettings
        do throws(SettingsErrors) { settings = try GatewaySettings(options) } catch {
            // The agents file can be looked at all the same.
            guard let path = GatewaySettings.agentsFile(options), FileAccess.exists(path) else { throw error }
            do throws(SettingsErrors) { _ = try AgentsFile(path: path) } catch let more {
                throw SettingsErrors(error.all + more.all)
            }
            throw error
        }
        var notes: [String] = []
        var problems: [SettingsError] = []
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
        if let files = settings.tlsFiles {
            do throws(GatewayError) {
                notes.append("TLS: \(try GatewayIdentity.load(files).pin)")
            } catch { problems.append(SettingsError("TLS", error.description)) }
        }
        for hostPort in settings.listen + settings.listenVersion1
        where hostPort.host != "localhost" && SocketAddress(hostPort.host, port: 0) == nil {
            problems.append(
                SettingsError("listen", "'\(hostPort.host)' is no address: write 0.0.0.0, [::] or localhost"))
        }
        if settings.exposeBind != "localhost", SocketAddress(settings.exposeBind, port: 0) == nil {
            problems.append(
                SettingsError("expose-bind", "'\(settings.exposeBind)' is no address: write 0.0.0.0 or ::"))
        }
        if case .tcp(let hostPort)? = settings.metrics?.place, SocketAddress(numeric: hostPort) == nil {
            problems.append(SettingsError("metrics", MetricsDoor.advice(hostPort)))
        }
        guard problems.isEmpty else { throw SettingsErrors(problems) }
        return notes + ["registrars: \((["print"] + settings.registrars.map(\.kind)).joined(separator: ", "))"]
    }
}
