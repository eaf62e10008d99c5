package import Settings

/// Checks a configuration without connecting or changing anything.
package enum ConfigurationCheck {
    /// - Returns: one line for each checked item.
    package static func run(_ options: CommandOptions) throws(SettingsErrors) -> [String] {
        let (settings, found, needs) = AgentSettings.examine(options)
        var problems = found
        var unseen: [String] = []
        for need in needs {
            do throws(SettingsError) {
                if let directory = try need.checkFiles() { unseen.append(directory) }
            } catch { problems.append(error) }
        }
        // A start also reads these files of the state directory, if they exist.
        let state = settings.stateDirectory
        if found.isEmpty {
            do throws(SettingsError) { try AgentCredentials.check(state) } catch { problems.append(error) }
            do throws(SettingsError) { try AgentKey.check(state) } catch { problems.append(error) }
            do throws(SettingsError) { _ = try KnownGateways(path: "\(state)/\(KeyCheck.file)") } catch {
                problems.append(error)
            }
        }
        guard problems.isEmpty else { throw SettingsErrors(problems) }
        var notes = ["gateway: \(settings.gateway)", "token: \(self.text(settings.token))"]
        notes += settings.exposes.map { expose in
            let port = expose.port == 0 ? "" : ", public port \(expose.port)"
            return "name: \(expose.name) forwards to \(expose.backend)\(port)"
        }
        return notes + [StartNeed.note(unseen: unseen, program: "agent")].compactMap(\.self)
    }

    private static func text(_ token: LoginToken) -> String {
        if let file = token.file { return "in \(file)" }
        return token.text.isEmpty ? "not read by this check" : "given"
    }
}
