internal import Logging
internal import Reactor
internal import Settings

/// The listeners for agents.
final class Doors {
    private struct Door {
        let listener: SocketListener
        let isVersion1: Bool
    }

    private let loop: EventLoop
    private let logger: Logger
    private let settings: GatewaySettings
    private var doors: [Door] = []

    init(loop: EventLoop, logger: Logger, settings: GatewaySettings) {
        self.loop = loop
        self.logger = logger
        self.settings = settings
    }

    /// Listens where the settings say; agents come to `delegate`.
    func open(_ delegate: any SocketListenerDelegate) throws(GatewayError) {
        for hostPort in self.settings.listen {
            try self.open(hostPort, isVersion1: false, option: "listen", delegate)
        }
        for hostPort in self.settings.listenVersion1 {
            try self.open(hostPort, isVersion1: true, option: "listen-v1", delegate)
        }
        for door in self.doors {
            self.logger.info("listening for agents\(door.isVersion1 ? " of version 1" : "") on \(door.listener.place)")
        }
        guard !self.settings.listenVersion1.isEmpty else { return }
        self.logger.warning(
            """
            version 1 is on: whoever is between an agent and this gateway can read and change everything and take the \
            agent's place, and its tokens are as good as public; move agents to version 2 (docs/version-1.md)
            """)
    }

    private func open(
        _ hostPort: HostPort, isVersion1: Bool, option: String, _ delegate: any SocketListenerDelegate
    ) throws(GatewayError) {
        let hosts = hostPort.host == "localhost" ? ["127.0.0.1", "::1"] : [hostPort.host]
        for host in hosts {
            guard let address = SocketAddress(host, port: hostPort.port) else {
                throw GatewayError(
                    .configuration, "\(option): '\(hostPort.host)' is no address: write 0.0.0.0, [::] or localhost")
            }
            do throws(UVError) {
                let listener = try SocketListener(loop: self.loop, address: address)
                listener.delegate = delegate
                self.doors.append(Door(listener: listener, isVersion1: isVersion1))
            } catch {
                // A machine without IPv6 is no reason not to start with the defaults.
                let canLack = hosts.count > 1 || (self.settings.listensByDefault && !isVersion1)
                let isOptional = canLack && address.family == .ip6
                if isOptional, error == .familyNotSupported || error == .addressNotAvailable { continue }
                throw GatewayError(.listen, "cannot listen on \(address): \(Self.advice(error))")
            }
        }
    }

    private static func advice(_ error: UVError) -> String {
        switch error {
        case .addressInUse: "\(error): another program has the port; stop it or choose another with -l HOST:PORT"
        case .permissionDenied: "\(error): ports below 1024 need the capability CAP_NET_BIND_SERVICE"
        case .addressNotAvailable: "\(error): this machine does not have the address"
        default: "\(error)"
        }
    }

    func addresses(isVersion1: Bool) -> [SocketAddress] {
        self.doors.filter { $0.isVersion1 == isVersion1 }.compactMap(\.listener.address)
    }

    /// Whether agents of version 1 come to the listener.
    func isVersion1(_ listener: SocketListener) -> Bool {
        self.doors.contains { $0.isVersion1 && $0.listener === listener }
    }

    func close() {
        for door in self.doors { door.listener.close() }
        self.doors = []
    }
}
