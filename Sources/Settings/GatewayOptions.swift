internal import Glibc

/// What the command line of `diglett-server` says; nil and empty mean not given.
package struct GatewayOptions: Sendable {
    package var listen: [String] = []
    package var listenVersion1: [String] = []
    package var allowsInsecureVersion1 = false
    package var debug = 0
    package var logFormat: String?
    package var logsStreams = false
    package var configuration: String?
    package var stateDirectory: String?
    package var exposeBind: [String] = []
    package var exposePorts: String?
    package var exposeSockets: String?
    package var exposeSocketsGroup: String?
    package var auth: String?
    package var agentsFile: String?
    package var tlsCertificate: String?
    package var tlsKey: String?
    package var acceptProxyProtocol: [String] = []
    package var metrics: String?
    package var metricsPerName = false
    package var allowsInsecureMetrics = false
    package var control: String?
    package var controlGroup: String?

    package init() {}
}

extension GatewayOptions {
    /// The configuration of the unit `diglett-server.service`.
    package static let serviceConfiguration = "/etc/diglett-server/diglett-server.toml"

    /// For a command about a gateway: with the service's configuration, where the service's gateway is meant because root
    /// names no other. The command then knows its key, its port and its control socket.
    package var withServiceConfiguration: GatewayOptions {
        let named = [self.configuration, self.stateDirectory, self.agentsFile, self.auth, self.control]
        guard geteuid() == 0, named.allSatisfy({ $0 == nil }), access(Self.serviceConfiguration, R_OK) == 0,
            let directory = try? StateDirectory.path(nil, program: "diglett-server"),
            StateDirectory.isOfService(directory, program: "diglett-server")
        else { return self }
        var options = self
        options.configuration = Self.serviceConfiguration
        return options
    }
}
