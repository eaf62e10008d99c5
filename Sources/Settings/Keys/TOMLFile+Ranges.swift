internal import Wire

/// Durations as written in files: `90d`, `12h`, `30m`, `45s`.
enum DurationText {
    /// In the largest unit that leaves no remainder.
    static func of(_ milliseconds: UInt64) -> String {
        let seconds = milliseconds / 1_000
        let units: [(UInt64, String)] = [(86_400, "d"), (3_600, "h"), (60, "m")]
        for (size, unit) in units where seconds > 0 && seconds % size == 0 { return "\(seconds / size)\(unit)" }
        return "\(seconds)s"
    }
}

/// Sizes as they are written in files.
enum SizeText {
    static let units: [(suffix: Character, shift: Int)] = [("T", 40), ("G", 30), ("M", 20), ("K", 10)]

    /// In the largest unit that leaves no remainder.
    static func of(_ bytes: Int) -> String {
        for (suffix, shift) in self.units where bytes > 0 && bytes % (1 << shift) == 0 {
            return "\(bytes >> shift)\(suffix)"
        }
        return "\(bytes)"
    }
}

extension TOMLFile.Section {
    /// A whole number within a range.
    func count(_ key: String, in range: ClosedRange<Int>) throws(SettingsError) -> Int? {
        guard let count = try self.integer(key) else { return nil }
        guard range.contains(count) else {
            throw SettingsError(
                self.place(of: key), "'\(key)' must be from \(range.lowerBound) to \(range.upperBound), not \(count)")
        }
        return count
    }

    /// A duration in milliseconds.
    ///
    /// - Parameter canBeNever: whether `0` is allowed too; it is returned as 0.
    func duration(
        _ key: String, in range: ClosedRange<UInt64>, canBeNever: Bool
    ) throws(SettingsError) -> UInt64? {
        guard let text = try self.string(key) else { return nil }
        if canBeNever, text == "0" || text == "0s" { return 0 }
        let never = canBeNever ? "\"0\" (never) or " : ""
        let bounds = "\(DurationText.of(range.lowerBound)) to \(DurationText.of(range.upperBound))"
        guard let seconds = Timestamp.span(text), range.contains(UInt64(seconds) * 1_000) else {
            throw SettingsError(
                self.place(of: key),
                "'\(key)' must be \(never)a duration from \(bounds), such as \"30s\" or \"5m\", "
                    + "not '\(PeerText.escaped(text))'")
        }
        return UInt64(seconds) * 1_000
    }

    /// A number of bytes: `256M`, with K, M, G or T for powers of 1,024, or without.
    func byteCount(_ key: String, in range: ClosedRange<Int>) throws(SettingsError) -> Int? {
        guard let text = try self.string(key) else { return nil }
        let shift = SizeText.units.first { $0.suffix == text.last }?.shift ?? 0
        let digits = shift == 0 ? text[...] : text.dropLast()
        guard digits.allSatisfy({ $0.isASCII && $0.isNumber }), let count = Int(digits),
            count <= range.upperBound >> shift, range.contains(count << shift)
        else {
            throw SettingsError(
                self.place(of: key),
                "'\(key)' must be a size from \(SizeText.of(range.lowerBound)) to \(SizeText.of(range.upperBound)), "
                    + "such as \"512M\" or \"1G\", not '\(PeerText.escaped(text))'")
        }
        return count << shift
    }
}
