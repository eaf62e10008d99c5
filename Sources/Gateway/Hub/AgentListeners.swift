internal import Glibc
internal import Journal
internal import Logging
internal import Reactor
internal import Settings
internal import Supervision

/// The listeners for agents.
final class AgentListeners {
    private struct Opened {
        let listener: SocketListener
        let isVersion1: Bool
        var isInherited = false
    }

    /// The names of inherited sockets for agents (FileDescriptorName=, systemd.socket(5)).
    static let socketName = "agents"
    static let version1SocketName = "agents-v1"

    private let loop: EventLoop
    private let logger: Logger
    private let settings: GatewaySettings
    private var all: [Opened] = []

    init(loop: EventLoop, logger: Logger, settings: GatewaySettings) {
        self.loop = loop
        self.logger = logger
        self.settings = settings
    }

    /// Adopts the inherited sockets and listens on the configured addresses. Connections go to `delegate`.
    ///
    /// Inherited sockets replace the default addresses. Addresses that the operator has written out are opened as well,
    /// unless an inherited socket has them. Every inherited socket is served: agents would wait forever in the backlog
    /// of an unserved one.
    func open(
        _ delegate: any SocketListenerDelegate, inherited: InheritedSockets
    ) throws(GatewayError) {
        for (name, isVersion1) in [(Self.socketName, false), (Self.version1SocketName, true)] {
            for socket in inherited.take(name) { try self.adopt(socket, isVersion1: isVersion1, delegate) }
        }
        let isReplaced = self.settings.listensByDefault && self.all.contains { !$0.isVersion1 }
        for hostPort in isReplaced ? [] : self.settings.listen {
            try self.open(hostPort, isVersion1: false, option: "listen", delegate)
        }
        for hostPort in self.settings.listenVersion1 {
            try self.open(hostPort, isVersion1: true, option: "listen-v1", delegate)
        }
        for opened in self.all {
            self.logger.info(
                """
                listening for agents\(opened.isVersion1 ? " of version 1" : "") on \(opened.listener.place)\
                \(opened.isInherited ? " (inherited)" : "")
                """, metadata: .about([.address: opened.listener.place]))
        }
        guard self.all.contains(where: \.isVersion1) else { return }
        self.logger.warning(
            """
            version 1 is enabled and not safe: anyone on the network path can read and change everything and \
            impersonate an agent; treat its tokens as public, and move agents to version 2 (docs/version-1.md)
            """)
    }

    private func adopt(
        _ socket: InheritedSockets.Socket, isVersion1: Bool, _ delegate: any SocketListenerDelegate
    ) throws(GatewayError) {
        let listener: SocketListener
        do throws(UVError) {
            guard let inherited = ListenerSocket(inherited: socket.descriptor) else {
                Glibc.close(socket.descriptor)
                throw .invalidArgument
            }
            listener = try SocketListener(loop: self.loop, adopting: inherited)
        } catch { throw GatewayError(.listen, "cannot use the inherited socket '\(socket.name)': \(error)") }
        listener.delegate = delegate
        self.all.append(Opened(listener: listener, isVersion1: isVersion1, isInherited: true))
        guard let address = listener.address else {
            throw GatewayError(
                .configuration, "the inherited socket '\(socket.name)', \(listener.place), must be a TCP socket")
        }
        guard !isVersion1 || self.settings.allowsInsecureVersion1 || address.isLoopback else {
            throw GatewayError(
                .configuration,
                "the inherited socket '\(socket.name)', \(address), is not a loopback address, and version 1 is not safe "
                    + "on a network: use another tunnel for these agents, or set v1-insecure-ok")
        }
    }

    /// Whether an inherited socket has this address.
    private func isInherited(_ address: SocketAddress, isVersion1: Bool) -> Bool {
        self.all.contains { $0.isInherited && $0.isVersion1 == isVersion1 && $0.listener.address == address }
    }

    private func open(
        _ hostPort: HostPort, isVersion1: Bool, option: String, _ delegate: any SocketListenerDelegate
    ) throws(GatewayError) {
        let hosts = hostPort.host == "localhost" ? ["127.0.0.1", "::1"] : [hostPort.host]
        for host in hosts {
            guard let address = SocketAddress(host, port: hostPort.port) else {
                throw GatewayError(
                    .configuration, "\(option): '\(hostPort.host)' is not an address: write 0.0.0.0, [::] or localhost")
            }
            if self.isInherited(address, isVersion1: isVersion1) { continue }
            do throws(UVError) {
                let listener = try SocketListener(loop: self.loop, address: address)
                listener.delegate = delegate
                self.all.append(Opened(listener: listener, isVersion1: isVersion1))
            } catch {
                // An inherited [::] may take IPv4 too (ipv6(7), IPV6_V6ONLY).
                var other = SocketAddress.any6
                other.port = address.port
                if error == .addressInUse, address.isAny4, self.isInherited(other, isVersion1: isVersion1) { continue }
                // With the defaults, start on a machine without IPv6 too.
                let canLack = hosts.count > 1 || (self.settings.listensByDefault && !isVersion1)
                let isOptional = canLack && address.family == .ip6
                if isOptional, error == .familyNotSupported || error == .addressNotAvailable { continue }
                throw GatewayError(.listen, "cannot listen on \(address): \(Self.advice(error))")
            }
        }
    }

    private static func advice(_ error: UVError) -> String {
        switch error {
        case .addressInUse: "\(error): another program uses the port; stop it, or choose another port with -l HOST:PORT"
        case .permissionDenied: "\(error): ports below 1024 need the capability CAP_NET_BIND_SERVICE"
        case .addressNotAvailable: "\(error): this machine does not have the address"
        default: "\(error)"
        }
    }

    func addresses(isVersion1: Bool) -> [SocketAddress] {
        self.all.filter { $0.isVersion1 == isVersion1 }.compactMap(\.listener.address)
    }

    /// Whether every listener still accepts connections.
    var areOpen: Bool { !self.all.isEmpty && self.all.allSatisfy(\.listener.isListening) }

    /// The listeners, for the status.
    var places: [String] { self.all.map { "\($0.listener.place)" + ($0.isVersion1 ? " (version 1)" : "") } }

    /// Whether the listener is for agents of version 1.
    func isVersion1(_ listener: SocketListener) -> Bool {
        self.all.contains { $0.isVersion1 && $0.listener === listener }
    }

    func close() {
        for opened in self.all { opened.listener.close() }
        self.all = []
    }
}
