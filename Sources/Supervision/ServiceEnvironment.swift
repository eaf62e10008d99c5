internal import Glibc

/// The environment variables that a service manager sets (sd_notify(3), sd_watchdog_enabled(3), sd_listen_fds(3)).
///
/// An invalid variable is ignored and added to ``problems``: running without the service manager is better than not
/// running.
package struct ServiceEnvironment: Equatable, Sendable {
    /// The variables that are meant only for this process. Children must not inherit them.
    static let variables = [
        "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "FDSTORE",
    ]

    /// The name of a socket to which the manager gave no name (sd_listen_fds_with_names(3)).
    static let nameless = "unknown"
    /// More than any manager passes, but few enough to close one by one quickly.
    package static let maxSockets = 65_536

    /// Where to send messages, as the bytes of a sun_path; an abstract name begins with a zero. Nil without a manager.
    package private(set) var notifyAddress: [UInt8]?
    /// The watchdog timeout in microseconds: the manager kills the program if it gets no ping for this long. Nil if the
    /// watchdog is off.
    package private(set) var watchdogMicroseconds: UInt64?
    /// The names of the inherited sockets, in the order of their descriptors, which start at 3.
    package private(set) var socketNames: [String] = []
    /// How many descriptors the manager can store; nil if it does not report that (systemd before 254).
    package private(set) var storeSize: Int?
    /// Invalid variables, as messages for the log.
    package private(set) var problems: [String] = []

    /// - Parameter processID: of this process. LISTEN_FDS is used only if LISTEN_PID has this value, and the watchdog
    ///   is used unless WATCHDOG_PID has another one.
    package init(_ variables: [String: String] = [:], processID: Int32) {
        if let text = variables["NOTIFY_SOCKET"], !text.isEmpty {
            self.notifyAddress = Self.address(text)
            if self.notifyAddress == nil {
                self.problems.append("NOTIFY_SOCKET is neither a path nor an abstract name of a unix socket")
            }
        }
        self.readWatchdog(variables, processID)
        self.readSockets(variables, processID)
        if let text = variables["FDSTORE"], !text.isEmpty {
            self.storeSize = Self.number(text).flatMap { Int(exactly: $0) }
            if self.storeSize == nil { self.problems.append("FDSTORE is not a number") }
        }
    }

    /// Reads the variables from the process's environment and removes them, so that no child inherits them.
    package static func take() -> ServiceEnvironment {
        var found: [String: String] = [:]
        for name in self.variables {
            found[name] = getenv(name).map { String(cString: $0) }
            unsetenv(name)
        }
        return ServiceEnvironment(found, processID: getpid())
    }

    private static func address(_ text: String) -> [UInt8]? {
        var bytes = Array(text.utf8)
        guard bytes.count > 1, bytes.count <= UnixDatagram.longestName else { return nil }
        switch bytes[0] {
        case UInt8(ascii: "/"): return bytes
        case UInt8(ascii: "@"):
            bytes[0] = 0
            return bytes
        default: return nil
        }
    }

    /// Accepts digits only. `UInt64.init` also accepts a sign, which no manager writes.
    private static func number(_ text: String) -> UInt64? {
        text.utf8.allSatisfy { (0x30...0x39).contains($0) } ? UInt64(text) : nil
    }

    private mutating func readWatchdog(_ variables: [String: String], _ processID: Int32) {
        guard let text = variables["WATCHDOG_USEC"], !text.isEmpty else { return }
        if let owner = variables["WATCHDOG_PID"], !owner.isEmpty {
            guard let number = Self.number(owner) else { return self.problems.append("WATCHDOG_PID is not a number") }
            // The watchdog is meant for our parent process.
            guard number == UInt64(processID) else { return }
        }
        guard let number = Self.number(text), number > 0 else {
            return self.problems.append("WATCHDOG_USEC is not a number above 0")
        }
        self.watchdogMicroseconds = number
    }

    private mutating func readSockets(_ variables: [String: String], _ processID: Int32) {
        guard let text = variables["LISTEN_FDS"], !text.isEmpty else { return }
        guard let owner = variables["LISTEN_PID"].flatMap({ $0.isEmpty ? nil : Self.number($0) }) else {
            return self.problems.append("LISTEN_FDS is set but LISTEN_PID is not a number")
        }
        guard owner == UInt64(processID) else { return }
        guard let count = Self.number(text), count <= UInt64(Self.maxSockets) else {
            return self.problems.append("LISTEN_FDS is not a number from 0 to \(Self.maxSockets)")
        }
        let names = (variables["LISTEN_FDNAMES"] ?? "").split(separator: ":", omittingEmptySubsequences: false)
        self.socketNames = Array(repeating: Self.nameless, count: Int(count))
        guard names.count == Int(count) else {
            if variables["LISTEN_FDNAMES"] != nil, count > 0 {
                self.problems.append(
                    "LISTEN_FDNAMES has \(names.count) names for \(count) sockets: the names are ignored")
            }
            return
        }
        self.socketNames = names.map { $0.isEmpty ? Self.nameless : String($0) }
    }
}
