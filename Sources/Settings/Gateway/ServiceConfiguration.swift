internal import Glibc

/// The configuration of the unit `diglett-server.service`.
package enum ServiceConfiguration {
    package static let path = "/etc/diglett-server/diglett-server.toml"
}

extension CommandOptions {
    /// The options of a command about a gateway. If root names no gateway, the service's gateway is meant. The result
    /// then includes the service's configuration file, from which the command gets the key, the port and the control
    /// socket.
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
