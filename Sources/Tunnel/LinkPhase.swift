package import Wire

/// The phase of a link.
///
/// ```
///  gateway:  awaitingHello ─HELLO─► awaitingLogin ─LOGIN─► authenticating ─accept─► up
///  agent:    awaitingHello ─HELLO─► awaitingWelcome ─WELCOME─► up
///                        awaitingWelcome ─our RESUME─► awaitingResumed ─RESUMED(session-gone)─► awaitingWelcome
///  up ─ our GOAWAY(drain) ─► leaving,   up ─ the peer's GOAWAY(drain) ─► draining
///  any ─ violation, refusal, close ─► closed
/// ```
package enum LinkPhase: CaseIterable, Sendable {
    case awaitingHello
    /// Gateway only.
    case awaitingLogin
    /// Gateway only: the authenticator is checking the login.
    case authenticating
    /// Agent only.
    case awaitingWelcome
    /// Agent only: RESUME was sent. After RESUMED the connection belongs to the session's link.
    case awaitingResumed
    case up
    /// We have sent GOAWAY(drain): open streams finish. What the peer starts before it reads the GOAWAY is declined.
    case leaving
    /// The peer has sent GOAWAY(drain): no new streams, open ones finish.
    case draining
    /// Only a last GOAWAY is sent; nothing is accepted.
    case closed

    /// The (state, type) table of `docs/protocol.md`: whether a link in this phase accepts `type` from its peer.
    package func allows(_ type: FrameType, at role: Role) -> Bool {
        switch (self, role) {
        case (.awaitingHello, .gateway): type == .hello
        case (.awaitingHello, .agent): type == .hello || type == .goAway
        // An agent may give up while it waits for the answer to its login.
        case (.awaitingLogin, .gateway): type == .login || type == .resume || type == .goAway
        case (.authenticating, .gateway): type == .goAway
        case (.awaitingWelcome, .agent): type == .welcome || type == .goAway
        case (.awaitingResumed, .agent): type == .resumed || type == .goAway
        case (.up, .gateway), (.leaving, .gateway), (.draining, .gateway):
            switch type {
            case .register, .unregister, .accept, .data, .window, .reset, .ping, .pong, .goAway, .ack: true
            case .hello, .login, .welcome, .registered, .open, .resume, .resumed: false
            }
        case (.up, .agent), (.leaving, .agent):
            switch type {
            case .registered, .open, .data, .window, .reset, .ping, .pong, .goAway, .ack: true
            case .hello, .login, .welcome, .register, .unregister, .accept, .resume, .resumed: false
            }
        case (.draining, .agent): type != .open && LinkPhase.up.allows(type, at: .agent)
        case (.authenticating, .agent), (.awaitingLogin, .agent), (.awaitingWelcome, .gateway),
            (.awaitingResumed, .gateway), (.closed, _):
            false
        }
    }

    /// Whether the login has succeeded and the link has not closed. Full-size frames are allowed then.
    package var isPastLogin: Bool {
        switch self {
        case .up, .leaving, .draining: true
        case .awaitingHello, .awaitingLogin, .authenticating, .awaitingWelcome, .awaitingResumed, .closed: false
        }
    }
}
