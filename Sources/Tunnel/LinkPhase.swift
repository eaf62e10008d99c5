package import Wire

/// How far a link has come.
///
/// ```
///  gateway:  awaitingHello ─HELLO─► awaitingLogin ─LOGIN─► authenticating ─accept─► up
///  agent:    awaitingHello ─HELLO─► awaitingWelcome ─WELCOME─► up
///  up ─ our GOAWAY(drain) ─► leaving,   up ─ the peer's GOAWAY(drain) ─► draining
///  any ─ violation, refusal, close ─► closed
/// ```
package enum LinkPhase: CaseIterable, Sendable {
    case awaitingHello
    /// Gateway only.
    case awaitingLogin
    /// Gateway only: the authenticator is at work.
    case authenticating
    /// Agent only.
    case awaitingWelcome
    case up
    /// We have said GOAWAY(drain): the running streams finish; what the peer began before it read that is declined.
    case leaving
    /// The peer has said GOAWAY(drain): no new streams, the running ones finish.
    case draining
    /// Nothing is sent or taken any more but a last GOAWAY.
    case closed

    /// The (state, type) table of `docs/protocol.md`: whether the peer of a link in this phase may send `type`.
    package func allows(_ type: FrameType, at role: Role) -> Bool {
        switch (self, role) {
        case (.awaitingHello, .gateway): type == .hello
        case (.awaitingHello, .agent): type == .hello || type == .goAway
        // An agent may give up while it waits for the answer to its login.
        case (.awaitingLogin, .gateway): type == .login || type == .goAway
        case (.authenticating, .gateway): type == .goAway
        case (.awaitingWelcome, .agent): type == .welcome || type == .goAway
        case (.up, .gateway), (.leaving, .gateway), (.draining, .gateway):
            switch type {
            case .register, .unregister, .accept, .data, .window, .reset, .ping, .pong, .goAway: true
            case .hello, .login, .welcome, .registered, .open: false
            }
        case (.up, .agent), (.leaving, .agent):
            switch type {
            case .registered, .open, .data, .window, .reset, .ping, .pong, .goAway: true
            case .hello, .login, .welcome, .register, .unregister, .accept: false
            }
        case (.draining, .agent): type != .open && LinkPhase.up.allows(type, at: .agent)
        case (.authenticating, .agent), (.awaitingLogin, .agent), (.awaitingWelcome, .gateway), (.closed, _): false
        }
    }

    /// Whether the login is over, so that full frames may be taken.
    package var isPastLogin: Bool {
        switch self {
        case .up, .leaving, .draining: true
        case .awaitingHello, .awaitingLogin, .authenticating, .awaitingWelcome, .closed: false
        }
    }
}
