/// Why the gateway cannot start or a command failed, with the exit code.
package struct GatewayError: Error, CustomStringConvertible {
    /// The exit codes of `diglett-server` (`docs/errors.md`), after sysexits.h.
    package enum Kind: Int32, CaseIterable, Sendable {
        /// `ctl`: the running gateway refused the command.
        case refused = 1
        /// Bad command line (EX_USAGE).
        case usage = 64
        /// `ctl`: no gateway answers (EX_UNAVAILABLE).
        case unavailable = 69
        /// Cannot listen on an address (EX_OSERR).
        case listen = 71
        /// The state directory is unusable (EX_CANTCREAT).
        case state = 73
        /// Commands: standard output cannot be written (EX_IOERR).
        case output = 74
        /// Bad configuration file, key or certificate (EX_CONFIG).
        case configuration = 78
    }

    package let kind: Kind
    package let description: String

    package init(_ kind: Kind, _ description: String) {
        self.kind = kind
        self.description = description
    }
}
