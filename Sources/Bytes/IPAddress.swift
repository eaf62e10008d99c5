/// An IPv4 or IPv6 address, with the rules that apply wherever it came from: a socket, a frame, a PROXY header or a
/// configuration file.
///
/// An IPv4-mapped IPv6 address, `::ffff:192.0.2.1`, is another way to write an IPv4 address (RFC 4291, 2.5.5.2), so it
/// is stored as IPv4. Otherwise all IPv4 peers of a dual-stack socket would share one /64, and a ban of an IPv4 network
/// would miss them.
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

    /// The prefix under which stateless translators (RFC 7915) map IPv4 clients, 64:ff9b::/96 (RFC 6052, 2.1): its
    /// first 64 bits. The other 32 are 0.
    private static let translated: UInt64 = 0x0064_FF9B_0000_0000

    package init(version: Version, high: UInt64, low: UInt64) {
        if version == .ip6, high == 0, low >> 32 == 0xFFFF {
            (self.version, self.high, self.low) = (.ip4, low << 32, 0)
        } else if version == .ip4 {
            // A peer may send anything after the four bytes. It is not part of the address.
            (self.version, self.high, self.low) = (.ip4, (high >> 32) << 32, 0)
        } else {
            (self.version, self.high, self.low) = (version, high, low)
        }
    }

    /// Whether only programs on this machine can have this address: 127.0.0.0/8 (RFC 1122, 3.2.1.3) or ::1 (RFC 4291,
    /// 2.5.3).
    package var isLoopback: Bool {
        switch self.version {
        case .ip4: self.high >> 56 == 127
        case .ip6: self.high == 0 && self.low == 1
        }
    }

    /// Whether it means all addresses of a machine: 0.0.0.0 or ::.
    package var isAny: Bool { self.high == 0 && self.low == 0 }

    /// The IPv4 address of a client behind a stateless translator. Any other address is returned unchanged.
    ///
    /// Use it to count and to ban, not to trust: such a client is neither on this machine nor in the networks of the
    /// operator's proxies, whatever its IPv4 address is.
    package var untranslated: IPAddress {
        guard self.version == .ip6, self.high == Self.translated, self.low >> 32 == 0 else { return self }
        return IPAddress(version: .ip4, high: self.low << 32, low: 0)
    }

    /// The address that a stateless translator gives an IPv4 client. An IPv6 address is returned unchanged.
    package var translated: IPAddress {
        guard self.version == .ip4 else { return self }
        return IPAddress(version: .ip6, high: Self.translated, low: self.high >> 32)
    }

    /// Marks the keys of IPv4 sources. As an IPv6 /64 the mark would be in 0000::/8, which is reserved (RFC 4291, 4).
    private static let mark4: UInt64 = 0xFFFF << 32

    /// The key by which limits and penalties count: an IPv4 address, or an IPv6 /64 because one host can use all of it
    /// (RFC 6177). A stateless translator gives every IPv4 client the same /64, so the IPv4 address is used there.
    package var source: UInt64 {
        let address = self.untranslated
        return address.version == .ip4 ? Self.mark4 | address.high >> 32 : address.high
    }

    /// The first address with this ``source``, and the prefix length in bits that all such addresses share.
    package static func network(ofSource key: UInt64) -> (first: IPAddress, prefix: Int) {
        key >> 32 == self.mark4 >> 32
            ? (IPAddress(version: .ip4, high: key << 32, low: 0), 32)
            : (IPAddress(version: .ip6, high: key, low: 0), 64)
    }
}
