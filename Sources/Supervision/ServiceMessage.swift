/// A message to the service manager, lines of `NAME=VALUE` (sd_notify(3)).
package struct ServiceMessage: Equatable, Sendable {
    /// The manager cuts longer ones anyway, and an operator reads one line.
    static let longestStatus = 256
    /// sd_pid_notify_with_fds(3), FDNAME=.
    static let longestName = 255

    package let text: String

    private init(_ text: String) { self.text = text }

    /// The program has started, or its configuration was read anew.
    package static let ready = ServiceMessage("READY=1")
    /// The program stops.
    package static let stopping = ServiceMessage("STOPPING=1")
    /// The program is alive.
    package static let watchdog = ServiceMessage("WATCHDOG=1")

    /// The configuration is being read anew.
    ///
    /// - Parameter microseconds: of CLOCK_MONOTONIC, taken at the beginning.
    package static func reloading(at microseconds: UInt64) -> ServiceMessage {
        ServiceMessage("RELOADING=1\nMONOTONIC_USEC=\(microseconds)")
    }

    /// What the program is doing, for people.
    package static func status(_ text: String) -> ServiceMessage {
        // A line break would begin another variable.
        let line = text.unicodeScalars.prefix(self.longestStatus).map { $0.value < 0x20 || $0.value == 0x7F ? " " : $0 }
        var scalars = String.UnicodeScalarView()
        scalars.append(contentsOf: line)
        return ServiceMessage("STATUS=\(String(scalars))")
    }

    /// What is under way, the end for instance, takes this long yet; a later message may ask for more.
    package static func extendTimeout(milliseconds: UInt64) -> ServiceMessage {
        ServiceMessage("EXTEND_TIMEOUT_USEC=\(milliseconds * 1_000)")
    }

    /// Keep the descriptor that comes with this message, for the next start. Nil for a name that is not allowed.
    ///
    /// The manager goes on watching it (FDPOLL=1, its default): a listener that was shut down then leaves the store by
    /// itself, should the message that takes it out be lost.
    package static func store(_ name: String) -> ServiceMessage? {
        self.isValid(name: name) ? ServiceMessage("FDSTORE=1\nFDNAME=\(name)") : nil
    }

    /// Close what was kept under a name.
    package static func removeStored(_ name: String) -> ServiceMessage? {
        self.isValid(name: name) ? ServiceMessage("FDSTOREREMOVE=1\nFDNAME=\(name)") : nil
    }

    /// At most 255 printable ASCII characters, and no colon, as LISTEN_FDNAMES separates names by it.
    static func isValid(name: String) -> Bool {
        (1...self.longestName).contains(name.utf8.count)
            && name.utf8.allSatisfy { (0x20...0x7E).contains($0) && $0 != 0x3A }
    }

    /// Both in one datagram, so that they take effect together.
    package static func + (first: ServiceMessage, second: ServiceMessage) -> ServiceMessage {
        ServiceMessage("\(first.text)\n\(second.text)")
    }
}
