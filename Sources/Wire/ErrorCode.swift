/// Why something was refused or ended: the code in RESET, REGISTERED and GOAWAY.
///
/// The set is open: a code that this program does not know is kept and shown as its number.
package struct ErrorCode: RawRepresentable, Hashable, Sendable {
    package let rawValue: UInt16

    package init(rawValue: UInt16) { self.rawValue = rawValue }

    private init(_ rawValue: UInt16) { self.rawValue = rawValue }

    package static let none = ErrorCode(0)

    // MARK: Streams (1–31)

    /// The backend's host refused the connection.
    package static let refused = ErrorCode(1)
    /// The backend did not answer in time.
    package static let timeout = ErrorCode(2)
    /// No route to the backend, or its name does not resolve.
    package static let unreachable = ErrorCode(3)
    /// A limit was reached; trying again later can succeed.
    package static let overloaded = ErrorCode(4)
    /// A rule forbids this stream.
    package static let denied = ErrorCode(5)
    /// The connection at the other edge was reset or vanished.
    package static let aborted = ErrorCode(6)
    /// The program at the other end failed.
    package static let internalError = ErrorCode(7)
    /// One direction had ended and the other was silent for too long.
    package static let idle = ErrorCode(8)
    /// Bytes could not be delivered for too long.
    package static let stalled = ErrorCode(9)
    /// The exposure is gone.
    package static let withdrawn = ErrorCode(10)

    // MARK: The link (32–63)

    /// A frame that the protocol does not allow.
    package static let protocolViolation = ErrorCode(32)
    /// The peers have no version in common.
    package static let version = ErrorCode(33)
    /// More was sent than granted, or a limit was lowered.
    package static let flowControl = ErrorCode(34)
    /// Too many needless frames.
    package static let glitches = ErrorCode(35)
    /// The peer does not read the control frames that it causes.
    package static let owed = ErrorCode(36)
    /// No byte arrived from the peer for too long.
    package static let dead = ErrorCode(37)
    /// The handshake or the login took too long.
    package static let handshakeTimeout = ErrorCode(38)
    /// The other side is shutting down.
    package static let drain = ErrorCode(40)
    /// A newer link of the same agent took over.
    package static let replaced = ErrorCode(41)
    /// Two programs of one identity keep taking names from each other.
    package static let conflict = ErrorCode(42)
    /// The gateway has no room for another link.
    package static let tooManyLinks = ErrorCode(43)
    /// The right to be connected was withdrawn.
    package static let revoked = ErrorCode(44)
    /// In RESUMED: the gateway does not have the session, so the agent must log in.
    package static let sessionGone = ErrorCode(45)

    // MARK: Login (64–79) and registration (80–95)

    package static let loginRefused = ErrorCode(64)
    /// An open gateway accepts agents from loopback addresses only.
    package static let notLoopback = ErrorCode(65)
    /// The gateway does not know the method of LOGIN.
    package static let methodNotSupported = ErrorCode(66)
    package static let nameInvalid = ErrorCode(80)
    package static let nameNotAllowed = ErrorCode(81)
    /// Another identity holds the name.
    package static let nameTaken = ErrorCode(82)
    package static let portNotAllowed = ErrorCode(83)
    package static let portTaken = ErrorCode(84)
    package static let tooManyNames = ErrorCode(85)
    package static let registrarFailed = ErrorCode(86)
    /// The gateway does not know the kind of REGISTER.
    package static let kindNotSupported = ErrorCode(87)

    private static let slugs: [(ErrorCode, String)] = [
        (.none, "none"), (.refused, "refused"), (.timeout, "timeout"), (.unreachable, "unreachable"),
        (.overloaded, "overloaded"), (.denied, "denied"), (.aborted, "aborted"),
        (.internalError, "internal-error"), (.idle, "idle"), (.stalled, "stalled"), (.withdrawn, "withdrawn"),
        (.protocolViolation, "protocol-violation"), (.version, "version"), (.flowControl, "flow-control"),
        (.glitches, "glitches"), (.owed, "owed"), (.dead, "dead"), (.handshakeTimeout, "handshake-timeout"),
        (.drain, "drain"), (.replaced, "replaced"), (.conflict, "conflict"), (.tooManyLinks, "too-many-links"),
        (.revoked, "revoked"), (.sessionGone, "session-gone"), (.loginRefused, "login-refused"),
        (.notLoopback, "not-loopback"),
        (.methodNotSupported, "method-not-supported"), (.nameInvalid, "name-invalid"),
        (.nameNotAllowed, "name-not-allowed"), (.nameTaken, "name-taken"),
        (.portNotAllowed, "port-not-allowed"), (.portTaken, "port-taken"), (.tooManyNames, "too-many-names"),
        (.registrarFailed, "registrar-failed"), (.kindNotSupported, "kind-not-supported"),
    ]

    /// Every code of this version of the protocol, in the order of the table in `docs/protocol.md`.
    package static var all: [ErrorCode] { self.slugs.map { $0.0 } }
}

extension ErrorCode: CustomStringConvertible {
    /// A short name for logs, JSON and scripts. It stays the same across versions.
    package var description: String {
        for (code, slug) in Self.slugs where code == self { return slug }
        return "code-\(self.rawValue)"
    }
}
