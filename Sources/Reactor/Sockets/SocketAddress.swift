internal import Bytes
internal import CUV

/// An IPv4 or IPv6 address with a port. IPv4-mapped IPv6 addresses are stored as IPv4, see ``IPAddress``.
package struct SocketAddress: Hashable, Sendable, CustomStringConvertible {
    package enum Family: UInt8, Sendable {
        case ip4 = 4
        case ip6 = 6

        fileprivate var version: IPAddress.Version {
            switch self {
            case .ip4: .ip4
            case .ip6: .ip6
            }
        }

        fileprivate init(_ version: IPAddress.Version) {
            switch version {
            case .ip4: self = .ip4
            case .ip6: self = .ip6
            }
        }
    }

    package let family: Family
    /// The address in big-endian order: `high` has the first eight bytes. An IPv4 address uses the upper four bytes of
    /// `high`.
    package let high: UInt64
    package let low: UInt64
    package var port: UInt16
    /// The zone of a link-local IPv6 address (RFC 4007), otherwise 0.
    package let scope: UInt32

    /// Parses a numeric address without brackets; nil if `host` is not numeric.
    package init?(_ host: String, port: UInt16) {
        var storage = sockaddr_storage()
        if uv_ip4_addr(host, CInt(port), cuv_in4(&storage)) != 0,
            uv_ip6_addr(host, CInt(port), cuv_in6(&storage)) != 0
        {
            return nil
        }
        self.init(&storage)
    }

    package static func loopback4(port: UInt16) -> SocketAddress {
        SocketAddress(family: .ip4, high: 0x7F00_0001 << 32, low: 0, port: port)
    }

    package static func loopback6(port: UInt16) -> SocketAddress {
        SocketAddress(family: .ip6, high: 0, low: 1, port: port)
    }

    /// The wildcard addresses (RFC 4291, 2.5.2; RFC 1122, 3.2.1.3), with port 0.
    package static let any6 = SocketAddress(family: .ip6, high: 0, low: 0, port: 0)
    package static let any4 = SocketAddress(family: .ip4, high: 0, low: 0, port: 0)
    package var isAny4: Bool { self.family == .ip4 && self.ip.isAny }
    package var isAny6: Bool { self.family == .ip6 && self.ip.isAny }

    private var ip: IPAddress { IPAddress(version: self.family.version, high: self.high, low: self.low) }
    package var isLoopback: Bool { self.ip.isLoopback }
    /// The key for limits and penalties, see ``IPAddress/source``.
    package var source: UInt64 { self.ip.source }

    package init(family: Family, high: UInt64, low: UInt64, port: UInt16, scope: UInt32 = 0) {
        let ip = IPAddress(version: family.version, high: high, low: low)
        self.family = Family(ip.version)
        self.high = ip.high
        self.low = ip.low
        self.port = port
        self.scope = self.family == .ip6 ? scope : 0
    }

    init?(_ storage: inout sockaddr_storage) {
        switch CInt(storage.ss_family) {
        case AF_INET:
            let raw = cuv_in4(&storage).pointee
            self.init(
                family: .ip4, high: UInt64(UInt32(bigEndian: raw.sin_addr.s_addr)) << 32, low: 0,
                port: UInt16(bigEndian: raw.sin_port))
        case AF_INET6:
            let raw = cuv_in6(&storage).pointee
            let words = withUnsafeBytes(of: raw.sin6_addr) { bytes in
                (bytes.loadUnaligned(as: UInt64.self), bytes.loadUnaligned(fromByteOffset: 8, as: UInt64.self))
            }
            self.init(
                family: .ip6, high: UInt64(bigEndian: words.0), low: UInt64(bigEndian: words.1),
                port: UInt16(bigEndian: raw.sin6_port), scope: raw.sin6_scope_id)
        default: return nil
        }
    }

    /// The numeric address without brackets and port.
    package var host: String {
        self.withRaw { raw in
            withUnsafeTemporaryAllocation(of: CChar.self, capacity: 64) { text in
                guard let base = text.baseAddress else { return "" }
                let code =
                    self.family == .ip4
                    ? uv_ip4_name(UnsafePointer(cuv_in4(raw)), base, 64)
                    : uv_ip6_name(UnsafePointer(cuv_in6(raw)), base, 64)
                return code == 0 ? String(cString: base) : ""
            }
        }
    }

    package var description: String {
        self.family == .ip4 ? "\(self.host):\(self.port)" : "[\(self.host)]:\(self.port)"
    }

    /// Calls `body` with the address as a `sockaddr_storage`, valid only during the call.
    func withRaw<R>(_ body: (UnsafeMutablePointer<sockaddr_storage>) -> R) -> R {
        var storage = sockaddr_storage()
        switch self.family {
        case .ip4:
            let raw = cuv_in4(&storage)
            raw?.pointee.sin_family = sa_family_t(AF_INET)
            raw?.pointee.sin_port = self.port.bigEndian
            raw?.pointee.sin_addr.s_addr = UInt32(truncatingIfNeeded: self.high >> 32).bigEndian
        case .ip6:
            let raw = cuv_in6(&storage)
            raw?.pointee.sin6_family = sa_family_t(AF_INET6)
            raw?.pointee.sin6_port = self.port.bigEndian
            raw?.pointee.sin6_scope_id = self.scope
            if let raw {
                withUnsafeMutableBytes(of: &raw.pointee.sin6_addr) { bytes in
                    bytes.storeBytes(of: self.high.bigEndian, as: UInt64.self)
                    bytes.storeBytes(of: self.low.bigEndian, toByteOffset: 8, as: UInt64.self)
                }
            }
        }
        return body(&storage)
    }

    /// Returns the address that `fill` (uv_tcp_getsockname or uv_tcp_getpeername) stores; nil if it fails.
    static func read(_ fill: (UnsafeMutablePointer<sockaddr>, UnsafeMutablePointer<CInt>) -> CInt) -> SocketAddress? {
        var storage = sockaddr_storage()
        var length = CInt(MemoryLayout<sockaddr_storage>.size)
        let code = withUnsafeMutablePointer(to: &storage) { fill(cuv_sockaddr_mutable($0), &length) }
        guard code == 0 else { return nil }
        return SocketAddress(&storage)
    }
}
