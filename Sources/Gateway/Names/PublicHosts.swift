internal import Reactor
internal import Settings

/// The addresses of public listeners. Each name listens on all of them, on the same port.
struct PublicHosts {
    /// Without ports, in the configured order. Agents and proxies receive the first one.
    let addresses: [SocketAddress]
    /// Whether `::` also accepts IPv4 (RFC 3493, section 3.7): only if no IPv4 address is configured.
    private let takesBothFamilies: Bool

    init(_ hosts: [String]) throws(GatewayError) {
        var addresses: [SocketAddress] = []
        for host in hosts {
            guard let address = SocketAddress(host == "localhost" ? "127.0.0.1" : host, port: 0) else {
                throw GatewayError(.configuration, "expose-bind: '\(host)' is not an address: write 0.0.0.0 or ::")
            }
            guard !addresses.contains(address) else {
                throw GatewayError(.configuration, "expose-bind: '\(host)' was given twice")
            }
            addresses.append(address)
        }
        self.addresses = addresses
        self.takesBothFamilies = addresses.contains(.any6) && addresses.allSatisfy { $0.family == .ip6 }
    }

    /// Addresses that this machine does not have.
    var missing: [SocketAddress] {
        self.addresses.filter { !$0.isOfThisMachine && !(self.takesBothFamilies && $0 == .any6) }
    }

    /// Listens on all addresses, or on none if one fails.
    ///
    /// - Parameter port: 0 lets the kernel pick one.
    func listen(port: UInt16) throws(UVError) -> [ListenerSocket] {
        var sockets: [ListenerSocket] = []
        do throws(UVError) {
            for var address in self.addresses {
                address.port = sockets.first?.address?.port ?? port
                sockets.append(try self.listen(address))
            }
        } catch {
            for socket in sockets { socket.close() }
            throw error
        }
        return sockets
    }

    private func listen(_ address: SocketAddress) throws(UVError) -> ListenerSocket {
        guard self.takesBothFamilies, address.isAny6 else { return try ListenerSocket(address: address) }
        do throws(UVError) { return try ListenerSocket(address: address, takesBothFamilies: true) } catch {
            // A machine without IPv6: fall back to 0.0.0.0.
            guard error == .addressNotAvailable || error == .familyNotSupported else { throw error }
            var other = SocketAddress.any4
            other.port = address.port
            return try ListenerSocket(address: other)
        }
    }

    /// Whether inherited listeners have the addresses that `listen` would use.
    func areRight(_ places: [SocketAddress]) -> Bool {
        guard let port = places.first?.port, places.allSatisfy({ $0.port == port }) else { return false }
        let hosts = places.map { place in
            var host = place
            host.port = 0
            return host
        }
        return Set(hosts) == Set(self.addresses) || self.takesBothFamilies && hosts == [.any4]
    }
}
