internal import Glibc

/// The configuration of the unit `diglett-server.service`.
package enum ServiceConfiguration {
    package static let path = "/etc/diglett-server/diglett-server.toml"
}

extension CommandOptions {
    /// For a command about a gateway: with the service's configuration, where the service's gateway is meant because root
    /// names no other. The command then knows its key, its port and its control socket.
    package var withServiceConfiguration: CommandOptions {
        let keys = GatewayKeys.keys
        let naming: [any DescribedKey] = [keys.stateDir, keys.agentsFile, keys.auth, keys.control]
        guard geteuid() == 0, self.configuration == nil, naming.allSatisfy({ self[$0].isEmpty }),
            access(ServiceConfiguration.path, R_OK) == 0,
            let directory = try? StateDirectory.path(nil, program: "diglett-server"),
            StateDirectory.isOfService(directory, program: "diglett-server")
        else { return self }
        var options = self
        options.configuration = ServiceConfiguration.path
        return options
    }
}
