import FoundationEssentials

/// Points in time as files contain them, RFC 3339 in UTC, and durations as users type them.
package enum Timestamp {
    /// Seconds since 1970 of `2027-02-21` (its first second) or `2027-02-21T12:30:00Z`; nil for anything else.
    package static func seconds(_ text: String) -> Int64? {
        let whole = text.count == 10 ? "\(text)T00:00:00Z" : text
        guard whole.hasSuffix("Z"), let date = try? Date(whole, strategy: .iso8601) else { return nil }
        let seconds = Int64(date.timeIntervalSince1970)
        // A lenient parser could turn 31 February into a day of March.
        return self.text(seconds) == whole ? seconds : nil
    }

    package static func text(_ seconds: Int64) -> String {
        Date(timeIntervalSince1970: TimeInterval(seconds)).formatted(.iso8601)
    }

    package static var now: Int64 { Int64(Date().timeIntervalSince1970) }

    /// Seconds of `90d`, `12h`, `30m` or `45s`; nil for anything else and for more than a hundred years.
    package static func span(_ text: String) -> Int64? {
        let units: [Character: Int64] = ["d": 86_400, "h": 3_600, "m": 60, "s": 1]
        guard let last = text.last, let unit = units[last], let count = Int64(text.dropLast()), count > 0,
            count <= 36_500 * 86_400 / unit
        else { return nil }
        return count * unit
    }
}
