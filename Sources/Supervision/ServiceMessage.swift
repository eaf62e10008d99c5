/// A message to the service manager: lines of `NAME=VALUE` (sd_notify(3)).
package struct ServiceMessage: Equatable, Sendable {
    /// In Unicode scalars. The manager truncates long status texts anyway, and operators read one line.
    static let longestStatus = 256
    /// In bytes: sd_pid_notify_with_fds(3), FDNAME=.
    static let longestName = 255

    package let text: String

    private init(_ text: String) { self.text = text }

    /// The program has started, or has reloaded its configuration.
    package static let ready = ServiceMessage("READY=1")
    /// The program is shutting down.
    package static let stopping = ServiceMessage("STOPPING=1")
    /// The program is alive.
    package static let watchdog = ServiceMessage("WATCHDOG=1")

    /// The program is reloading its configuration.
    ///
    /// - Parameter microseconds: CLOCK_MONOTONIC at the start of the reload.
    package static func reloading(at microseconds: UInt64) -> ServiceMessage {
        ServiceMessage("RELOADING=1\nMONOTONIC_USEC=\(microseconds)")
    }

    /// What the program is doing, as text for operators. Cut to `longestStatus`.
    package static func status(_ text: String) -> ServiceMessage {
        // A line break would start another variable.
        let line = text.unicodeScalars.prefix(self.longestStatus).map { $0.value < 0x20 || $0.value == 0x7F ? " " : $0 }
        var scalars = String.UnicodeScalarView()
        scalars.append(contentsOf: line)
        return ServiceMessage("STATUS=\(String(scalars))")
    }

    /// Startup, reload or shutdown needs this much more time, counted from now. A later message may extend it further.
    package static func extendTimeout(milliseconds: UInt64) -> ServiceMessage {
        ServiceMessage("EXTEND_TIMEOUT_USEC=\(milliseconds * 1_000)")
    }

    /// Asks the manager to store the attached descriptor for the next start. Nil if the name is invalid.
    ///
    /// The manager polls the descriptor (FDPOLL=1, its default). It therefore drops a listener that was shut down, even
    /// if the message that removes it is lost.
    package static func store(_ name: String) -> ServiceMessage? {
        self.isValid(name: name) ? ServiceMessage("FDSTORE=1\nFDNAME=\(name)") : nil
    }

    /// Asks the manager to close the descriptors stored under a name. Nil if the name is invalid.
    package static func removeStored(_ name: String) -> ServiceMessage? {
        self.isValid(name: name) ? ServiceMessage("FDSTOREREMOVE=1\nFDNAME=\(name)") : nil
    }

    /// At most 255 printable ASCII characters without a colon, which separates the names in LISTEN_FDNAMES.
    static func isValid(name: String) -> Bool {
        (1...self.longestName).contains(name.utf8.count)
            && name.utf8.allSatisfy { (0x20...0x7E).contains($0) && $0 != 0x3A }
    }

    /// Both messages in one datagram, so that they take effect together.
    package static func + (first: ServiceMessage, second: ServiceMessage) -> ServiceMessage {
        ServiceMessage("\(first.text)\n\(second.text)")
    }
}
