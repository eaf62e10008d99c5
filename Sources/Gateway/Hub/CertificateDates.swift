internal import Journal
package import Secure
internal import Settings

/// The validity period of a certificate, and the warnings that operators get about it.
package struct CertificateDates: Equatable, Sendable {
    private static let day: Int64 = 86_400
    /// Warnings start this many days before expiry.
    private static let warningDays: [Int64] = [30, 7, 1, 0]

    /// Seconds since 1970, like `expires`.
    let begins: Int64
    package let expires: Int64

    package init(begins: Int64, expires: Int64) {
        self.begins = begins
        self.expires = expires
    }

    /// Nil if no agent checks the dates, or they cannot be read. Agents do not check those of a self-issued
    /// certificate, unless the operator has configured it: they may then trust it as an authority.
    ///
    /// - Parameter isNamed: whether the operator has configured the certificate.
    package init?(_ identity: Identity, isNamed: Bool) {
        guard isNamed || !identity.isSelfIssued, let begins = identity.begins, let expires = identity.expires else {
            return nil
        }
        self.begins = begins
        self.expires = expires
    }

    /// The number of warnings due by now: one each at 30 days, 7 days and 1 day before expiry, at expiry, and for every
    /// day after it.
    ///
    /// - Parameter now: seconds since 1970, as in the methods below.
    package func stage(at now: Int64) -> Int {
        let left = self.expires - now
        let reached = Self.warningDays.count { left <= $0 * Self.day }
        return left <= 0 ? reached + Int(-left / Self.day) : reached
    }

    /// Whether more than half of the validity period is left. Some authorities issue certificates for a few days; a new
    /// one needs no warning yet.
    package func isFresh(at now: Int64) -> Bool { self.expires - now > (self.expires - self.begins) / 2 }

    /// A warning if the certificate is not valid yet, has expired or expires within 30 days; otherwise nil.
    ///
    /// - Parameter name: the certificate as the warning should call it, such as `the certificate FILE`.
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
