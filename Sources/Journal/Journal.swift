import Glibc
package import Logging
internal import Reactor
import Synchronization

/// Writes log lines to standard error: time, level, message.
///
/// ```
/// 2026-11-23T09:41:07.310Z INFO  register domain 'example' -> '33605'
/// ```
package struct Journal: LogHandler {
    /// The same for all who write to it: an operator can change it while the program runs.
    package var logLevel: Logger.Level {
        get { Logger.Level.allCases[Self.level.load(ordering: .relaxed)] }
        set { Self.level.store(Logger.Level.allCases.firstIndex(of: newValue) ?? 0, ordering: .relaxed) }
    }
    /// By its place among all levels.
    private static let level = Atomic<Int>(0)
    package var metadata: Logger.Metadata = [:]
    private let usesColour: Bool
    /// Lines that nobody read; the next one that is read tells.
    private static let dropped = Atomic<Int>(0)

    private init(level: Logger.Level) {
        // The convention of no-color.org: any value of NO_COLOR means none.
        self.usesColour = isatty(STDERR_FILENO) == 1 && getenv("NO_COLOR") == nil
        self.logLevel = level
    }

    /// The program's logger.
    ///
    /// - Parameter debug: how often `-d` was given: 0 for info, 1 for debug, more for trace.
    package static func logger(debug: Int) -> Logger {
        let level: Logger.Level = debug == 0 ? .info : debug == 1 ? .debug : .trace
        return Logger(label: "diglett", factory: { _ in Journal(level: level) })
    }

    package subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { self.metadata[key] }
        set { self.metadata[key] = newValue }
    }

    package func log(event: LogEvent) {
        var line = self.usesColour ? "\u{1B}[2m\(Self.timestamp())\u{1B}[0m " : "\(Self.timestamp()) "
        line += self.usesColour ? Self.colour(event.level) : Self.label(event.level)
        line += " \(event.message)"
        let lost = Self.dropped.load(ordering: .relaxed)
        if lost > 0 { line += " (\(lost) lines before this one were lost, as nobody read them)" }
        if PatientWriter.standardError.write(line) {
            Self.dropped.subtract(lost, ordering: .relaxed)
        } else {
            Self.dropped.add(1, ordering: .relaxed)
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
