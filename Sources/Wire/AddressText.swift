internal import Bytes

/// Numeric addresses as text, parsed strictly: no names, zones, octal numbers or blanks.
extension WireAddress {
    /// Longest text of an address, `ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255`.
    package static let maximumText = 45

    /// Parses `192.0.2.1` or one of the forms of RFC 4291, 2.2. Returns nil for any other text.
    package init?(host: some Collection<UInt8>, port: UInt16) {
        guard host.count <= Self.maximumText else { return nil }
        if host.contains(UInt8(ascii: ":")) {
            guard let (high, low) = Self.ip6(Array(host)) else { return nil }
            self.init(family: 6, bytes: (high, low), port: port)
        } else {
            guard let word = Self.ip4(host) else { return nil }
            self.init(family: 4, bytes: (UInt64(word) << 32, 0), port: port)
        }
    }

    /// The address without its port, an IPv4-mapped one as IPv4. Nil for `none`.
    private var ip: IPAddress? {
        IPAddress.Version(rawValue: self.family).map { IPAddress(version: $0, high: self.high, low: self.low) }
    }

    private init(_ ip: IPAddress, port: UInt16) {
        self.init(family: ip.version.rawValue, bytes: (ip.high, ip.low), port: port)
    }

    /// Whether the address is not ``none``.
    package var isKnown: Bool { self.ip != nil }
    package var isLoopback: Bool { self.ip?.isLoopback ?? false }
    package var isAny: Bool { self.ip?.isAny ?? false }

    /// An IPv4-mapped address (`::ffff:192.0.2.1`) as IPv4. Any other address is returned unchanged.
    package var unmapped: WireAddress { self.ip.map { WireAddress($0, port: self.port) } ?? self }

    /// See ``IPAddress/untranslated``.
    package var untranslated: WireAddress { self.ip.map { WireAddress($0.untranslated, port: self.port) } ?? self }

    /// See ``IPAddress/translated``.
    package var translated: WireAddress { self.ip.map { WireAddress($0.translated, port: self.port) } ?? self }

    /// See ``IPAddress/source``; nil for `none`.
    package var source: UInt64? { self.ip?.source }

    /// See ``IPAddress/network(ofSource:)``.
    package static func network(ofSource key: UInt64) -> (first: WireAddress, prefix: Int) {
        let (first, prefix) = IPAddress.network(ofSource: key)
        return (WireAddress(first, port: 0), prefix)
    }

    /// The address in 16 bytes. An IPv4 address becomes IPv4-mapped (RFC 4291, 2.5.5.2).
    package var mapped: WireAddress {
        guard self.family == 4 else { return self }
        return WireAddress(family: 6, bytes: (0, 0xFFFF << 32 | self.high >> 32), port: self.port)
    }

    /// Parses four decimal numbers without leading zeros, which some programs read as octal.
    private static func ip4(_ text: some Collection<UInt8>) -> UInt32? {
        let parts = text.split(separator: UInt8(ascii: "."), omittingEmptySubsequences: false)
        guard parts.count == 4 else { return nil }
        var word: UInt32 = 0
        for part in parts {
            guard let octet = DecimalText.value(part, atMost: 255) else { return nil }
            word = word << 8 | UInt32(octet)
        }
        return word
    }

    /// Parses eight groups of one to four hexadecimal digits. `::` may replace one or more groups of zeros once, and
    /// the last two groups may be written as an IPv4 address.
    private static func ip6(_ text: [UInt8]) -> (high: UInt64, low: UInt64)? {
        var groups: [UInt16] = []
        var gap: Int?
        var rest = text[...]
        if rest.starts(with: [UInt8(ascii: ":")]) {
            guard rest.starts(with: [UInt8(ascii: ":"), UInt8(ascii: ":")]) else { return nil }
            gap = 0
            rest = rest.dropFirst(2)
        }
        while !rest.isEmpty {
            let part = rest.prefix { $0 != UInt8(ascii: ":") }
            rest = rest.dropFirst(part.count)
            if rest.isEmpty, part.contains(UInt8(ascii: ".")) {
                guard let word = Self.ip4(part) else { return nil }
                groups += [UInt16(word >> 16), UInt16(truncatingIfNeeded: word)]
                break
            }
            guard let group = Self.group(part), groups.count < 8 else { return nil }
            groups.append(group)
            guard !rest.isEmpty else { break }
            rest = rest.dropFirst()
            if rest.first == UInt8(ascii: ":") {
                guard gap == nil else { return nil }
                gap = groups.count
                rest = rest.dropFirst()
            } else if rest.isEmpty {
                return nil
            }
        }
        if let gap {
            guard groups.count < 8 else { return nil }
            groups.insert(contentsOf: repeatElement(0, count: 8 - groups.count), at: gap)
        }
        guard groups.count == 8 else { return nil }
        func word(_ range: Range<Int>) -> UInt64 { groups[range].reduce(0) { $0 << 16 | UInt64($1) } }
        return (word(0..<4), word(4..<8))
    }

    private static func group(_ digits: ArraySlice<UInt8>) -> UInt16? {
        guard (1...4).contains(digits.count) else { return nil }
        var value: UInt16 = 0
        for digit in digits {
            let nibble: UInt8
            switch digit {
            case UInt8(ascii: "0")...UInt8(ascii: "9"): nibble = digit - UInt8(ascii: "0")
            case UInt8(ascii: "a")...UInt8(ascii: "f"): nibble = digit - UInt8(ascii: "a") + 10
            case UInt8(ascii: "A")...UInt8(ascii: "F"): nibble = digit - UInt8(ascii: "A") + 10
            default: return nil
            }
            value = value << 4 | UInt16(nibble)
        }
        return value
    }
}

/// Decimal numbers in text.
package enum DecimalText {
    /// The value of decimal digits without sign, blanks or leading zeros. Nil if the text is not such a number or is
    /// above `atMost`.
    package static func value(_ digits: some Collection<UInt8>, atMost: Int) -> Int? {
        // Five digits are enough for a port and cannot overflow.
        guard (1...5).contains(digits.count) else { return nil }
        var value = 0
        for digit in digits {
            guard (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(digit) else { return nil }
            value = value * 10 + Int(digit - UInt8(ascii: "0"))
        }
        if digits.first == UInt8(ascii: "0"), digits.count > 1 { return nil }
        return value <= atMost ? value : nil
    }
}
