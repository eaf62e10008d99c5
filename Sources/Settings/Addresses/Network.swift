package import Wire

/// A range of addresses, written as `10.0.0.0/8` or `2001:db8::/32`, or a single address.
package struct Network: Hashable, Sendable, CustomStringConvertible {
    /// The first address. For an IPv4-mapped network it is the IPv4 address.
    package let address: WireAddress
    /// The number of leading bits that all addresses of the network share (RFC 4632, 3.1).
    package let prefix: Int

    package init(_ text: String, place: String) throws(SettingsError) {
        let parts = text.utf8.split(separator: UInt8(ascii: "/"), omittingEmptySubsequences: false)
        let form = "write an address or a network, for example 192.0.2.1, 10.0.0.0/8 or 2001:db8::/32"
        guard (1...2).contains(parts.count), let written = WireAddress(host: parts[0], port: 0) else {
            throw SettingsError(place, "'\(PeerText.escaped(text))' is not a network: \(form)")
        }
        let bits = written.family == 4 ? 32 : 128
        var prefix = bits
        if parts.count == 2 {
            guard let number = DecimalText.value(parts[1], atMost: bits) else {
                throw SettingsError(
                    place,
                    "'\(PeerText.escaped(text))' is not a network: the number of bits after / is 0 to \(bits)"
                )
            }
            prefix = number
        }
        let first = Self.first(written, prefix)
        guard first == written else {
            throw SettingsError(
                place,
                "'\(text)' has bits after the first \(prefix): write \(first.host)/\(prefix) for the network, "
                    + "or \(written.host) for the single address")
        }
        // The family implies the 96 bits before an IPv4 address.
        let unmapped = prefix >= 96 ? written.unmapped : written
        self.address = unmapped
        self.prefix = unmapped.family == written.family ? prefix : prefix - 96
    }

    package var description: String { "\(self.address.host)/\(self.prefix)" }

    /// Whether the network contains the address, or the IPv4 address that is mapped into it.
    package func contains(_ address: WireAddress) -> Bool {
        var address = address.unmapped
        address.port = 0
        return address.family == self.address.family && Self.first(address, self.prefix) == self.address
    }

    /// The address with all bits but the first `prefix` cleared.
    private static func first(_ address: WireAddress, _ prefix: Int) -> WireAddress {
        // In Swift a shift by 64 or more gives 0, and a negative shift goes the other way.
        let high = address.high & ~(UInt64.max >> UInt64(min(prefix, 64)))
        let low = address.low & ~(UInt64.max >> UInt64(max(prefix - 64, 0)))
        return WireAddress(family: address.family, bytes: (high, low), port: address.port)
    }
}
