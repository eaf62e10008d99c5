/// The bits of an IPv4 or IPv6 address, and the rules that hold for an address wherever it came from: a socket, a frame,
/// a PROXY header or a configuration file.
///
/// An IPv4-mapped IPv6 address, `::ffff:192.0.2.1`, is a way to write an IPv4 address (RFC 4291, 2.5.5.2), so it becomes
/// that address here. Without this rule all IPv4 peers of a dual-stack socket would share one /64, and a ban of an IPv4
/// network would miss them.
package struct IPAddress: Hashable, Sendable {
    package enum Version: UInt8, Sendable {
        case ip4 = 4
        case ip6 = 6
    }

    package let version: Version
    /// The 16 bytes as two numbers, most significant first. An IPv4 address fills the first four bytes of `high`.
    package let high: UInt64
    package let low: UInt64

    /// The first 96 bits of the addresses into which stateless translators (RFC 7915) map IPv4 clients: RFC 6052, 2.1.
    private static let translated: UInt64 = 0x0064_FF9B_0000_0000

    package init(version: Version, high: UInt64, low: UInt64) {
        if version == .ip6, high == 0, low >> 32 == 0xFFFF {
            (self.version, self.high, self.low) = (.ip4, low << 32, 0)
        } else if version == .ip4 {
            // A peer may send anything after the four bytes: it is not part of the address.
            (self.version, self.high, self.low) = (.ip4, (high >> 32) << 32, 0)
        } else {
            (self.version, self.high, self.low) = (version, high, low)
        }
    }

    /// Whether only programs of this machine can have this address: 127.0.0.0/8 (RFC 1122, 3.2.1.3) or ::1 (RFC 4291,
    /// 2.5.3).
    package var isLoopback: Bool {
        switch self.version {
        case .ip4: self.high >> 56 == 127
        case .ip6: self.high == 0 && self.low == 1
        }
    }

    /// Whether it stands for all addresses of a machine: 0.0.0.0 or ::.
    package var isAny: Bool { self.high == 0 && self.low == 0 }

    /// The key by which limits and penalties count: an IPv4 address, or the /64 of an IPv6 address, all of which one host
    /// can use (RFC 6177). Behind a stateless translator every IPv4 client has the same /64, so the IPv4 address counts.
    package var source: UInt64 {
        switch self.version {
        case .ip4: self.high >> 32
        case .ip6 where self.high == Self.translated && self.low >> 32 == 0: self.low
        case .ip6: self.high
        }
    }
}
