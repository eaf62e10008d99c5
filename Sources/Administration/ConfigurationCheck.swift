internal import Gateway
internal import Reactor
internal import Secure
package import Settings

/// Checks a configuration. Opens no listener and changes nothing.
package enum ConfigurationCheck {
    /// The prefix of lines that are warnings.
    package static let warningMark = "warning: "

    /// - Returns: one line for each checked item. Throws all errors.
    package static func run(_ options: CommandOptions) throws(SettingsErrors) -> [String] {
        let (settings, found, needs) = GatewaySettings.examine(options)
        var notes: [String] = []
        var problems = found
        let (descriptors, memory) = (DescriptorLimit.raise(), ResourcePlan.memoryLimit())
        let plan = ResourcePlan(
            settings.limits, descriptors: descriptors, memory: memory, listenersPerName: settings.listenersPerName)
        switch settings.authentication {
        case .byDefault(let path) where !FileAccess.exists(path):
            notes.append("agents: only those on this machine, until there is a file \(path)")
        case .byDefault(let path), .file(let path):
            do throws(SettingsErrors) {
                let agents = try AgentsFile(path: path).agents
                notes.append("agents: \(agents.count) in \(path)")
                problems += agents.flatMap { self.unmet($0, path, settings, plan) }
            } catch { problems += error.all }
        case .open: notes.append("agents: every agent is accepted")
        case .hook(.exec(let exec)): notes.append("agents: authenticated by \(exec.command[0])")
        case .hook(.webhook(let webhook)): notes.append("agents: authenticated by \(webhook.shownURL)")
        }
        do throws(GatewayError) {
            if let files = settings.tlsFiles {
                let identity = try GatewayIdentity.load(files)
                notes.append("TLS: \(identity.pin)")
                notes += self.dates(of: identity, "the certificate \(files.certificate)", isNamed: true)
            } else if let identity = try GatewayIdentity.find(in: settings.stateDirectory) {
                notes += self.dates(of: identity, "the gateway's certificate", isNamed: false)
            }
        } catch {
            // For configured files the check of needs below reports the error, with the place of the setting.
            if settings.tlsFiles == nil { problems.append(SettingsError("TLS", error.description)) }
        }
        var unseen: [String] = []
        for need in needs {
            do throws(SettingsError) {
                if let directory = try self.check(need) { unseen.append(directory) }
            } catch { problems.append(error) }
        }
        problems += self.doubles(needs, found)
        guard problems.isEmpty else { throw SettingsErrors(problems) }
        notes.append("registrars: \((["print"] + settings.registrars.map(\.kind)).joined(separator: ", "))")
        // A service may have other limits than this program.
        if let text = plan.loweredText(descriptors: descriptors, memory: memory) {
            notes.append("limits: in this environment \(text)")
        }
        if let note = StartNeed.note(unseen: unseen, program: "gateway") { notes.append(note) }
        return notes
    }

    /// Limits of an agent in the agents file that exceed those of the gateway.
    private static func unmet(
        _ agent: AgentEntry, _ path: String, _ settings: GatewaySettings, _ plan: ResourcePlan
    ) -> [SettingsError] {
        func problem(_ key: String, _ wanted: Int?, _ atMost: Int?, _ what: String) -> SettingsError? {
            guard let wanted, let atMost, wanted > atMost else { return nil }
            return SettingsError(
                path, "agent '\(agent.name)': '\(key)' is \(wanted), but the gateway has only \(atMost) \(what)")
        }
        guard agent.maxNames != nil || agent.maxStreams != nil else { return [] }
        let ranges = agent.ports.isEmpty ? [settings.exposePorts.range].compactMap(\.self) : agent.ports
        let needPorts = settings.exposePorts != .none && agent.maxNames != nil && !ranges.isEmpty
        let ports = !needPorts ? nil : Set(ranges.flatMap { Array($0.low...$0.high) }).count
        return [
            problem("max-names", agent.maxNames, ports, "public ports for it"),
            problem("max-names", agent.maxNames, plan.names, "names in all"),
            problem("max-streams", agent.maxStreams, plan.visitors, "visitors in all"),
        ].compactMap(\.self)
    }

    private static func dates(of identity: Identity, _ name: String, isNamed: Bool) -> [String] {
        guard let dates = CertificateDates(identity, isNamed: isNamed) else { return [] }
        return ["\(name) is valid until \(Timestamp.text(dates.expires))"]
            + (dates.warning(name, at: Timestamp.now).map { ["\(self.warningMark)\($0)"] } ?? [])
    }

    /// Addresses that two listeners would use.
    ///
    /// - Parameter found: the errors in the settings, which include two registrars with one address.
    private static func doubles(_ needs: [StartNeed], _ found: [SettingsError]) -> [SettingsError] {
        var listeners: [(address: HostPort, place: String)] = []
        var result: [SettingsError] = []
        for need in needs {
            guard case .listener(let address) = need.kind else { continue }
            if let first = listeners.first(where: { $0.address.excludes(address) }) {
                guard !found.contains(where: { $0.place == need.place }) else { continue }
                result.append(
                    SettingsError(
                        need.place, "\(address) is already used by \(first.address) of \(first.place)"))
            } else {
                listeners.append((address, need.place))
            }
        }
        return result
    }

    /// - Returns: a directory whose permissions could not be checked; nil without one.
    private static func check(_ need: StartNeed) throws(SettingsError) -> String? {
        switch need.kind {
        case .address(let host):
            guard host != "localhost" else { break }
            guard let address = SocketAddress(host, port: 0) else {
                throw SettingsError(
                    need.place,
                    "'\(host)' is not an address: write 0.0.0.0, ::, an address of this machine or localhost")
            }
            guard address.isOfThisMachine else {
                throw SettingsError(
                    need.place, "this machine does not have the address \(host): names would wait until it has it")
            }
        case .directory, .ownDirectory, .stateDirectory, .file: return try need.checkFiles()
        // `doubles` checks all listeners together.
        case .listener: break
        case .authorities(let path):
            let pem = try FileAccess.read(path, atMost: 1 << 20)
            guard Identity.certificateCount(inPEM: pem) > 0 else {
                throw SettingsError(need.place, "\(path): no certificate in PEM format")
            }
        case .identity(let certificate, let key):
            do throws(GatewayError) { _ = try GatewayIdentity.load((certificate, key)) } catch {
                throw SettingsError(need.place, error.description)
            }
        }
        return nil
    }
}
