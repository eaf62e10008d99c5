import Glibc
package import Logging
internal import Reactor
package import Settings
import Synchronization

/// Writes log lines to standard error: time, level, message.
///
/// ```
/// 2026-11-23T09:41:07.310Z INFO  register domain 'example' -> '33605'
/// ```
///
/// systemd's journal records the time itself and gets the priority instead (sd-daemon(3)):
///
/// ```
/// <6>INFO  register domain 'example' -> '33605'
/// ```
///
/// JSON lines also have the metadata (``JSONLine``), which the text form omits.
package struct Journal: LogHandler {
    private enum Form {
        case plain, coloured, journal
        /// Without the time, in colour, for a person who sees a view of the program as well.
        case brief
    }

    /// Shared by all loggers, because an operator can change it while the program runs.
    package var logLevel: Logger.Level {
        get { Logger.Level.allCases[Self.level.load(ordering: .relaxed)] }
        set { Self.level.store(Logger.Level.allCases.firstIndex(of: newValue) ?? 0, ordering: .relaxed) }
    }
    /// Index into `Logger.Level.allCases`.
    private static let level = Atomic<Int>(0)
    package var metadata: Logger.Metadata = [:]
    private let form: Form
    private let format: LogFormat
    /// Lines that were lost because standard error was not read. The next line that is written reports them.
    private static let dropped = Atomic<Int>(0)

    private init(level: Logger.Level, format: LogFormat, isBrief: Bool) {
        self.format = format
        if Self.isJournal(STDERR_FILENO) {
            self.form = .journal
        } else {
            self.form = isBrief ? .brief : Self.hasColours(STDERR_FILENO) ? .coloured : .plain
        }
        self.logLevel = level
    }

    /// Whether a descriptor is a terminal that shows colours. NO_COLOR with any value disables them (no-color.org), and
    /// a terminal of type `dumb` has none (terminfo(5)).
    package static func hasColours(_ descriptor: CInt) -> Bool {
        let isDumb = getenv("TERM").map { String(cString: $0) } == "dumb"
        return isatty(descriptor) == 1 && getenv("NO_COLOR") == nil && !isDumb
    }

    /// Whether a descriptor leads to the journal: JOURNAL_STREAM has the journal's device and inode (systemd.exec(5)).
    /// The variable alone proves nothing, because programs inherit it and may write elsewhere.
    private static func isJournal(_ descriptor: CInt) -> Bool {
        var status = stat()
        guard let text = getenv("JOURNAL_STREAM"), fstat(descriptor, &status) == 0 else { return false }
        return String(cString: text) == "\(status.st_dev):\(status.st_ino)"
    }

    /// The program's logger.
    ///
    /// - Parameters:
    ///   - debug: how often `-d` was given: 0 for info, 1 for debug, more for trace.
    ///   - isBrief: log only what a person must know who sees a view of the program as well: notices and worse, without
    ///     the time.
    package static func logger(debug: Int, format: LogFormat, isBrief: Bool = false) -> Logger {
        let level: Logger.Level = isBrief ? .notice : debug == 0 ? .info : debug == 1 ? .debug : .trace
        return Logger(label: "diglett", factory: { _ in Journal(level: level, format: format, isBrief: isBrief) })
    }

    /// Whether a person reads the lines: they are text, and do not go to systemd's journal.
    fileprivate var isForPeople: Bool { self.format == .text && self.form != .journal }

    package subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { self.metadata[key] }
        set { self.metadata[key] = newValue }
    }

    package func log(event: LogEvent) {
        let lost = Self.dropped.load(ordering: .relaxed)
        let line = self.format == .json ? self.json(event, lost: lost) : self.text(event, lost: lost)
        if PatientWriter.standardError.write(line) {
            Self.dropped.subtract(lost, ordering: .relaxed)
        } else {
            Self.dropped.add(1, ordering: .relaxed)
        }
    }

    private func text(_ event: LogEvent, lost: Int) -> String {
        var line: String
        switch self.form {
        case .plain: line = "\(Self.timestamp()) \(Self.label(event.level)) \(event.message)"
        case .coloured: line = "\u{1B}[2m\(Self.timestamp())\u{1B}[0m \(Self.colour(event.level)) \(event.message)"
        case .brief: line = Self.brief(event)
        case .journal: line = "\(Self.priority(event.level))\(Self.label(event.level)) \(event.message)"
        }
        if lost > 0 { line += " (\(lost) earlier lines were lost because they were not read)" }
        // The journal makes an entry of each line, so each line needs a priority.
        if self.form == .journal, line.utf8.contains(0x0A) {
            line = line.replacing("\n", with: "\n\(Self.priority(event.level))")
        }
        return line
    }

    /// The journal removes the priority and keeps the object.
    private func json(_ event: LogEvent, lost: Int) -> String {
        var metadata = self.metadata
        if let more = event.metadata { metadata.merge(more) { _, new in new } }
        let priority = self.form == .journal ? Self.priority(event.level) : ""
        return priority
            + JSONLine.text(
                time: Self.timestamp(), level: event.level, message: "\(event.message)", metadata: metadata, lost: lost,
                atMost: PatientWriter.maxBytes - 1 - priority.utf8.count)
    }

    private static func brief(_ event: LogEvent) -> String {
        switch event.level {
        case .trace, .debug, .info, .notice: "\(event.message)"
        case .warning: "\u{1B}[33mwarning:\u{1B}[0m \(event.message)"
        case .error, .critical: "\u{1B}[31merror:\u{1B}[0m \(event.message)"
        }
    }

    private static func label(_ level: Logger.Level) -> String {
        switch level {
        case .trace: "TRACE"
        case .debug: "DEBUG"
        case .info, .notice: "INFO "
        case .warning: "WARN "
        case .error: "ERROR"
        case .critical: "FATAL"
        }
    }

    /// Priorities of syslog(3).
    private static func priority(_ level: Logger.Level) -> String {
        switch level {
        case .trace, .debug: "<7>"
        case .info: "<6>"
        case .notice: "<5>"
        case .warning: "<4>"
        case .error: "<3>"
        case .critical: "<2>"
        }
    }

    private static func colour(_ level: Logger.Level) -> String {
        let code =
            switch level {
            case .trace, .debug: "2"
            case .info, .notice: "32"
            case .warning: "33"
            case .error, .critical: "31"
            }
        return "\u{1B}[\(code)m\(self.label(level))\u{1B}[0m"
    }

    /// UTC with milliseconds (RFC 3339).
    private static func timestamp() -> String {
        var now = timespec()
        clock_gettime(CLOCK_REALTIME, &now)
        var parts = tm()
        gmtime_r(&now.tv_sec, &parts)
        func pad(_ value: CInt, _ width: Int) -> String {
            let text = String(value)
            return String(repeating: "0", count: max(0, width - text.count)) + text
        }
        let date = "\(pad(parts.tm_year + 1_900, 4))-\(pad(parts.tm_mon + 1, 2))-\(pad(parts.tm_mday, 2))"
        let time = "\(pad(parts.tm_hour, 2)):\(pad(parts.tm_min, 2)):\(pad(parts.tm_sec, 2))"
        return "\(date)T\(time).\(pad(CInt(now.tv_nsec / 1_000_000), 3))Z"
    }
}

extension Logger {
    /// Whether a person reads its lines.
    package var isForPeople: Bool { (self.handler as? Journal)?.isForPeople ?? false }
}
