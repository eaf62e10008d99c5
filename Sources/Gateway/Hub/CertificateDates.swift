internal import Journal
package import Secure
internal import Settings

/// Until when a certificate is valid, and what operators have to know about that.
package struct CertificateDates: Equatable, Sendable {
    private static let day: Int64 = 86_400
    /// How many days before the end there is a warning.
    private static let warningDays: [Int64] = [30, 7, 1, 0]

    /// Seconds since 1970.
    let begins: Int64
    package let expires: Int64

    package init(begins: Int64, expires: Int64) {
        self.begins = begins
        self.expires = expires
    }

    /// Nil for a certificate whose dates no agent looks at: one that no authority vouches for, unless the operator has
    /// named it, as agents may know it as an authority.
    package init?(_ identity: Identity, isNamed: Bool) {
        guard isNamed || !identity.isSelfIssued, let begins = identity.begins, let expires = identity.expires else {
            return nil
        }
        self.begins = begins
        self.expires = expires
    }

    /// The number of the warning that is due: 0 before the first, one more at 30 days, 7 days and 1 day before the end,
    /// at the end and at each day after it.
    package func stage(at now: Int64) -> Int {
        let left = self.expires - now
        let reached = Self.warningDays.count { left <= $0 * Self.day }
        return left <= 0 ? reached + Int(-left / Self.day) : reached
    }

    /// Whether more than half of the time is left: the short-lived certificates of some authorities are valid for a few
    /// days, and a fresh one of these needs no warning.
    package func isFresh(at now: Int64) -> Bool { self.expires - now > (self.expires - self.begins) / 2 }

    /// What is wrong with a certificate's dates, or will be within 30 days.
    ///
    /// - Parameter name: of the certificate, as `the certificate FILE`.
    package func warning(_ name: String, at now: Int64) -> String? {
        let date = Timestamp.text(self.expires)
        if now < self.begins {
            return "\(name) is not valid before \(Timestamp.text(self.begins)): check this machine's clock"
        }
        guard self.stage(at: now) > 0 else { return nil }
        if now >= self.expires {
            return
                "\(name) expired on \(date): renew it; until then only agents that know its key, for example by a pin, connect"
        }
        return "\(name) expires in \(Self.span(self.expires - now)), on \(date): renew it"
    }

    private static func span(_ seconds: Int64) -> String {
        if seconds >= self.day { return counted(Int(seconds / self.day), "day") }
        return seconds >= 3_600 ? counted(Int(seconds / 3_600), "hour") : "less than an hour"
    }
}
