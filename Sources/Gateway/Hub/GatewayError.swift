/// Why a gateway cannot start, with its exit code.
package struct GatewayError: Error, CustomStringConvertible {
    /// The exit codes of `diglett-server` (`docs/errors.md`), after sysexits.h.
    package enum Kind: Int32, CaseIterable, Sendable {
        /// `ctl`: the running gateway said no.
        case refused = 1
        /// Bad command line (EX_USAGE).
        case usage = 64
        /// `ctl`: no gateway answers (EX_UNAVAILABLE).
        case unavailable = 69
        /// An address cannot be listened on (EX_OSERR).
        case listen = 71
        /// The state directory cannot be used (EX_CANTCREAT).
        case state = 73
        /// Of commands: standard output takes nothing (EX_IOERR).
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
