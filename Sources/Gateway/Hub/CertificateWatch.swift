internal import Control
internal import Logging
internal import Reactor
internal import Secure
internal import Settings
internal import Wire

/// The gateway's key and certificate. Reloads the files of `tls-cert` and `tls-key` when they are renewed, and warns
/// before the certificate expires.
///
/// Existing connections keep the old certificate; new ones get the new one. Unreadable or mismatched files are logged
/// and otherwise ignored.
final class CertificateWatch {
    /// Stamps of both files, to detect changes.
    private struct Stamps: Equatable {
        let certificate: FileStamp?
        let key: FileStamp?

        init(_ files: (certificate: String, key: String)) {
            self.certificate = FileStamp(path: files.certificate)
            self.key = FileStamp(path: files.key)
        }
    }

    private static let lookMilliseconds: UInt64 = 1_000
    /// Both files must be unchanged for this long, because they are written one after the other.
    private static let settleMilliseconds: UInt64 = 250
    /// Time between attempts to read files that could not be used, in case the cause was outside of them.
    private static let retryMilliseconds: UInt64 = 60_000

    private(set) var identity: Identity
    /// Called with the key and certificate for new connections.
    var onChange: ((IdentityPEM) -> Void)?
    /// Nil if no agent checks the dates.
    private(set) var dates: CertificateDates?
    /// Why the current files are not in use; nil if they are.
    private(set) var failure: String?

    private let loop: EventLoop
    private let logger: Logger
    private let files: (certificate: String, key: String)?
    /// Stamps at the last read, and at the last look; nil if no files are configured.
    private var stamps: Stamps?
    private var seen: Stamps?
    private var triedAt: UInt64 = 0
    /// The stage of the last logged warning.
    private var stage = 0
    private var timer: LoopTimer?

    init(
        loop: EventLoop, settings: GatewaySettings, state: StateDirectory, logger: Logger
    ) throws(GatewayError) {
        self.loop = loop
        self.logger = logger
        self.files = settings.tlsFiles
        // Before reading the files, so that a later change is noticed.
        self.stamps = self.files.map { Stamps($0) }
        self.seen = self.stamps
        self.identity = try GatewayIdentity.load(settings, state)
        do throws(SecurityError) { try Self.check(self.identity) } catch {
            throw GatewayError(.configuration, "TLS: \(error)")
        }
        self.dates = CertificateDates(self.identity, isNamed: self.files != nil)
    }

    /// Checks that a TLS context can be made from the identity.
    private static func check(_ identity: Identity) throws(SecurityError) {
        _ = try TLSContext.server(identity: identity, applicationProtocol: WireConstant.applicationProtocol)
    }

    /// Logs a due warning about the dates, and watches the files from now on.
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

    /// Reads the files at once, at the operator's request.
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

    /// What a reload would change, for the operator; empty if nothing.
    ///
    /// - Throws: why the files cannot be used.
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

    /// A warning if the certificate is not valid yet, has expired or expires soon.
    var warning: String? { self.dates?.warning(self.name, at: Timestamp.now) }

    /// Nil if no agent checks the dates.
    var report: GatewayReport.Certificate? {
        guard let dates = self.dates else { return nil }
        return GatewayReport.Certificate(
            file: self.files?.certificate, expires: Timestamp.text(dates.expires), warning: self.warning,
            failure: self.failure)
    }

    /// - Parameter always: also if the same warning was logged before.
    private func warn(always: Bool = false) {
        let stage = self.dates?.stage(at: Timestamp.now) ?? 0
        let isDue = always || stage > self.stage
        // Also lowered, in case the clock was set back.
        self.stage = stage
        if isDue, let warning = self.warning { self.logger.warning("\(warning)") }
    }
}
