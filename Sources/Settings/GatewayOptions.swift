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
    private static let serviceConfiguration = "/etc/diglett-server/diglett-server.toml"

    /// The same for a command about a gateway. Without a configuration file it is the service's, if the service's
    /// gateway is the one that is meant: the command then knows its key, its port and its control socket.
    package var ofCommand: GatewayOptions {
        guard self.configuration == nil, FileAccess.exists(Self.serviceConfiguration),
            let directory = try? StateDirectory.path(self.stateDirectory, program: "diglett-server"),
            StateDirectory.isOfService(directory, program: "diglett-server")
        else { return self }
        var options = self
        options.configuration = Self.serviceConfiguration
        return options
    }
}
