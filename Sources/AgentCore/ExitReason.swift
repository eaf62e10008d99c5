package import Wire

/// Why an agent exits. The raw values are its exit codes (`docs/errors.md`).
package enum ExitReason: Int32, CaseIterable, Sendable {
    /// Stopped on request.
    case stopped = 0
    /// `status`: not all names are reachable.
    case unreachable = 1
    /// The gateway's key is not the pinned or known one, or is unknown and no user at a terminal could confirm it.
    case wrongGatewayKey = 10
    case loginRefused = 11
    /// The gateway is open and accepts agents from its own machine only.
    case notLoopback = 12
    case nameRefused = 13
    case nameTaken = 14
    /// A newer program of the same installation took over.
    case replaced = 15
    /// Two programs of one installation keep taking the name from each other.
    case conflict = 16
    /// The gateway is too old or too new for this agent.
    case version = 17
    case portRefused = 18
    /// Bad command line (sysexits.h, EX_USAGE).
    case usage = 64
    /// With `--once`: the gateway cannot be reached, or the link was lost (EX_UNAVAILABLE).
    case unavailable = 69
    /// Commands only: standard output cannot be written (EX_IOERR).
    case output = 74
    /// Bad configuration (EX_CONFIG).
    case configuration = 78

    /// The exit reason for a code that retrying cannot fix. Nil for all other codes.
    package init?(final code: ErrorCode) {
        switch code {
        case .loginRefused, .revoked: self = .loginRefused
        case .notLoopback: self = .notLoopback
        case .nameInvalid, .nameNotAllowed, .tooManyNames: self = .nameRefused
        case .nameTaken: self = .nameTaken
        case .replaced: self = .replaced
        case .conflict: self = .conflict
        case .version, .methodNotSupported, .kindNotSupported: self = .version
        case .portNotAllowed, .portTaken: self = .portRefused
        default: return nil
        }
    }

    /// A short name for JSON and scripts. It stays the same across versions.
    package var slug: String {
        switch self {
        case .stopped: "stopped"
        case .unreachable: "unreachable"
        case .wrongGatewayKey: "wrong-gateway-key"
        case .loginRefused: "login-refused"
        case .notLoopback: "not-loopback"
        case .nameRefused: "name-refused"
        case .nameTaken: "name-taken"
        case .replaced: "replaced"
        case .conflict: "conflict"
        case .version: "version"
        case .portRefused: "port-refused"
        case .usage: "usage"
        case .unavailable: "unavailable"
        case .output: "output"
        case .configuration: "configuration"
        }
    }
}
