internal import Reactor
internal import Settings

/// The addresses on which names are public, each name on all of them with one port.
struct PublicHosts {
    /// Without ports, in the order of the configuration: the first is the one that agents and proxies are told.
    let addresses: [SocketAddress]
    /// `::` takes IPv4 too (RFC 3493, 3.7), as no IPv4 address is named.
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

    /// Those that this machine does not have.
    var missing: [SocketAddress] {
        self.addresses.filter { !$0.isOfThisMachine && !(self.takesBothFamilies && $0 == .any6) }
    }

    /// Listens on all addresses.
    ///
    /// - Parameter port: 0 for one that the system chooses.
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
            // A machine without IPv6.
            guard error == .addressNotAvailable || error == .familyNotSupported else { throw error }
            var other = SocketAddress.any4
            other.port = address.port
            return try ListenerSocket(address: other)
        }
    }

    /// Whether listeners of a former run are those that `listen` would make.
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
