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
                throw GatewayError(.configuration, "expose-bind: '\(host)' is no address: write 0.0.0.0 or ::")
            }
            guard !addresses.contains(address) else {
                throw GatewayError(.configuration, "expose-bind: '\(host)' is there twice")
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
    func listen(_ loop: EventLoop, port: UInt16) throws(UVError) -> [SocketListener] {
        var listeners: [SocketListener] = []
        do throws(UVError) {
            for var address in self.addresses {
                address.port = listeners.first?.port ?? port
                listeners.append(try self.listener(loop, address))
            }
        } catch {
            for listener in listeners { listener.close() }
            throw error
        }
        return listeners
    }

    private func listener(_ loop: EventLoop, _ address: SocketAddress) throws(UVError) -> SocketListener {
        guard self.takesBothFamilies, address.isAny6 else { return try SocketListener(loop: loop, address: address) }
        do throws(UVError) { return try SocketListener(loop: loop, address: address, takesBothFamilies: true) } catch {
            // A machine without IPv6.
            guard error == .addressNotAvailable || error == .familyNotSupported else { throw error }
            var other = SocketAddress.any4
            other.port = address.port
            return try SocketListener(loop: loop, address: other)
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
