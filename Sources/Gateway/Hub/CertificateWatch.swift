internal import Control
internal import Logging
internal import Reactor
internal import Secure
internal import Settings
internal import Wire

/// The gateway's key and certificate: follows the files of `tls-cert` and `tls-key` as they are renewed, and warns
/// before the certificate expires.
///
/// A connection keeps the certificate with which it began, and new ones get the new certificate. Files that cannot be
/// read, or do not match, change nothing but the log.
final class CertificateWatch {
    /// What was last seen of both files.
    private struct Stamps: Equatable {
        let certificate: FileStamp?
        let key: FileStamp?

        init(_ files: (certificate: String, key: String)) {
            self.certificate = FileStamp(path: files.certificate)
            self.key = FileStamp(path: files.key)
        }
    }

    private static let lookMilliseconds: UInt64 = 1_000
    /// Two files are written one after the other: this long both must be as they are.
    private static let settleMilliseconds: UInt64 = 250
    /// Between two attempts to read files that could not be used, in case the reason was outside of them.
    private static let retryMilliseconds: UInt64 = 60_000

    private(set) var identity: Identity
    /// Gets the key and the certificate for connections that come from now on.
    var onChange: ((IdentityPEM) -> Void)?
    /// Nil when no agent looks at the dates.
    private(set) var dates: CertificateDates?
    /// Why the files as they are now are not in use.
    private(set) var failure: String?

    private let loop: EventLoop
    private let logger: Logger
    private let files: (certificate: String, key: String)?
    /// Of the files that were read last, and as of the last look.
    private var stamps: Stamps?
    private var seen: Stamps?
    private var triedAt: UInt64 = 0
    /// Of the warning that the log has.
    private var stage = 0
    private var timer: LoopTimer?

    init(
        loop: EventLoop, settings: GatewaySettings, state: StateDirectory, logger: Logger
    ) throws(GatewayError) {
        self.loop = loop
        self.logger = logger
        self.files = settings.tlsFiles
        // Before they are read: a change after that is seen as one.
        self.stamps = self.files.map { Stamps($0) }
        self.seen = self.stamps
        self.identity = try GatewayIdentity.load(settings, state)
        do throws(SecurityError) { try Self.check(self.identity) } catch {
            throw GatewayError(.configuration, "TLS: \(error)")
        }
        self.dates = CertificateDates(self.identity, isNamed: self.files != nil)
    }

    /// Whether it can be used.
    private static func check(_ identity: Identity) throws(SecurityError) {
        _ = try TLSContext.server(identity: identity, applicationProtocol: WireConstant.applicationProtocol)
    }

    /// Warns of the dates, and looks at the files from now on.
    func start() {
        guard self.timer == nil, self.files != nil || self.dates != nil else { return }
        self.warn(always: true)
        let timer = LoopTimer(loop: self.loop) { [unowned self] in self.look() }
        timer.start(after: Self.lookMilliseconds)
        self.timer = timer
    }

    func close() {
        self.timer?.close()
        self.timer = nil
    }

    // MARK: - The files

    private func look() {
        var pause = Self.lookMilliseconds
        if let files = self.files {
            let stamps = Stamps(files)
            if stamps == self.stamps {
                if self.failure != nil, self.loop.now - self.triedAt >= Self.retryMilliseconds { self.read(files) }
            } else if stamps == self.seen {
                self.read(files)
            } else {
                pause = Self.settleMilliseconds
            }
            self.seen = stamps
        }
        self.warn()
        self.timer?.start(after: pause)
    }

    /// Reads the files at once, as the operator asks for it.
    func reload() {
        guard let files = self.files else { return }
        self.failure = nil
        self.read(files)
    }

    private func read(_ files: (certificate: String, key: String)) {
        let stamps = Stamps(files)
        let isNews = stamps != self.stamps
        self.stamps = stamps
        self.triedAt = self.loop.now
        do throws(GatewayError) { self.use(try Self.load(files)) } catch {
            let reason = error.description
            guard isNews || reason != self.failure else { return }
            self.failure = reason
            self.logger.error("\(reason); the gateway keeps its current certificate\(self.untilText)")
        }
    }

    private var untilText: String {
        self.dates.map { ", valid until \(Timestamp.text($0.expires))" } ?? ""
    }

    private static func load(
        _ files: (certificate: String, key: String)
    ) throws(GatewayError) -> Identity {
        let identity = try GatewayIdentity.load(files)
        do throws(SecurityError) { try self.check(identity) } catch {
            throw GatewayError(.configuration, "\(files.certificate): \(error)")
        }
        return identity
    }

    private func use(_ new: Identity) {
        let hadFailed = self.failure != nil
        self.failure = nil
        let former = self.identity
        guard !new.isSame(as: former) else {
            if hadFailed { self.logger.info("\(self.name) is unchanged and usable again") }
            return
        }
        self.identity = new
        self.onChange?(new.pem)
        self.dates = CertificateDates(new, isNamed: true)
        self.logger.info("\(self.name) was renewed and is used for new connections\(self.untilText)")
        if new.pin != former.pin {
            self.logger.info(
                "pin \(new.pin), a new key: agents with the pin \(former.pin) refuse it")
        }
        let now = Timestamp.now
        if let dates = self.dates, dates.isFresh(at: now), now >= dates.begins {
            self.stage = dates.stage(at: now)
        } else {
            self.warn(always: true)
        }
    }

    /// What reading the files again would change; empty when it is nothing.
    ///
    /// - Throws: why they cannot be used.
    func pendingChanges() throws(GatewayError) -> [String] {
        guard let files = self.files else { return [] }
        let identity = try Self.load(files)
        guard !identity.isSame(as: self.identity) else { return [] }
        let dates = CertificateDates(identity, isNamed: true)
        let until = dates.map { ", valid until \(Timestamp.text($0.expires))" } ?? ""
        return [
            "\(self.name) was renewed\(until)"
                + (identity.pin == self.identity.pin ? "" : ", with a new key: \(identity.pin)")
        ]
    }

    // MARK: - Dates

    private var name: String { self.files.map { "the certificate \($0.certificate)" } ?? "the gateway's certificate" }

    /// What is wrong with the dates, or will be soon.
    var warning: String? { self.dates?.warning(self.name, at: Timestamp.now) }

    /// Nil when no agent looks at the dates.
    var report: GatewayReport.Certificate? {
        guard let dates = self.dates else { return nil }
        return GatewayReport.Certificate(
            file: self.files?.certificate, expires: Timestamp.text(dates.expires), warning: self.warning,
            failure: self.failure)
    }

    /// - Parameter always: also if the log has the same warning.
    private func warn(always: Bool = false) {
        let stage = self.dates?.stage(at: Timestamp.now) ?? 0
        let isDue = always || stage > self.stage
        // It goes back with the clock.
        self.stage = stage
        if isDue, let warning = self.warning { self.logger.warning("\(warning)") }
    }
}
