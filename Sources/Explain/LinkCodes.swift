internal import Wire

/// Where users see link codes.
private enum Place {
    static let visitor = "gateway's log: 'visitor ADDRESS of 'NAME' reset'"
    static let link = "agent's event 'lost'; both logs: lost link, 'no login from ADDRESS'"
    static let login = "answer to a login"
    static let name = "answer to a name: agent's error or event 'missing'"
    static let agent = "agent's error or event 'missing'"
}

/// Advice that several codes share.
private enum Advice {
    static let release =
        "Install the same release on both sides; 'diglett --version' and 'diglett-server --version' show it."
    static let bug = "Install the same release on both sides. If it happens again, report it with the log's details."
    static let scanners = "From unknown addresses: port scanners, nothing to do."
}

extension Explanations {
    static let linkCodes = Self.streamCodes + Self.endsOfLinks + Self.refusals

    private static func link(
        _ code: ErrorCode, _ meaning: String, _ place: String, _ advice: String
    ) -> Explanation {
        Explanation(
            kind: .link, number: Int(code.rawValue), slug: code.description, meaning: meaning, place: place,
            advice: advice)
    }

    /// A code sent by a newer program.
    static func unknown(_ number: UInt16) -> Explanation {
        self.link(
            ErrorCode(rawValue: number), "a code that this version does not know", "any log or event",
            "The program on the other side is newer: run 'explain' there, or install the same release on both sides.")
    }

    private static let streamCodes = [
        Self.link(.none, "no error", "debug log: a link was closed on purpose", "Nothing."),
        Self.link(
            .refused, "the backend refuses connections", Place.visitor,
            "On the agent's machine, check that the service runs and that the backend's host, port or unix socket is "
                + "right. 'localhost' is the machine or container of the agent. The agent's log has 'cannot reach the "
                + "backend'."),
        Self.link(
            .timeout, "the backend timed out", Place.visitor,
            "The agent waits 5 s for a backend, the gateway 10 s for the agent. Check for a firewall that drops packets, "
                + "an overloaded backend, or an agent that hangs."),
        Self.link(
            .unreachable, "no route to the backend, or its host name does not resolve", Place.visitor,
            "Try the backend's address on the agent's machine: the host name must resolve there. The agent's log has the "
                + "system's reason."),
        Self.link(
            .overloaded, "a limit was reached, or the authenticator timed out",
            Place.visitor + "; answer to a login or a name",
            "Visitors: the agent has too few file descriptors (ulimit -n) or has reached its limit of streams. Logins and "
                + "names: the authenticator (program or web service) did not answer, the gateway is full, or the agent "
                + "registers names faster than allowed. The gateway's log has the reason. The agent retries."),
        Self.link(
            .denied, "access to the backend is denied", Place.visitor,
            "The agent may not use its backend: check the permissions of the unix socket and its directories."),
        Self.link(
            .aborted, "the connection on the other side was reset or vanished",
            Place.visitor + "; agent's debug log",
            "Usually nothing: a visitor left, or a server ends its connections this way. If it happens to every visitor, "
                + "check the backend's log."),
        Self.link(
            .internalError, "the program on the other side failed", "any log",
            "Check both logs around that time, and report it with both versions."),
        Self.link(
            .idle, "one direction had ended and the other was idle for too long", Place.visitor,
            "Raise half-close-timeout, or set it to 0 for no limit."),
        Self.link(
            .stalled, "the receiver accepted no bytes for too long", Place.visitor + "; " + Place.link,
            "Streams: a visitor or backend accepted no bytes for stall-timeout, or was the longest-stalled one when the "
                + "gateway ran out of memory or of room for visitors. Links: the other program accepted no bytes for 30 "
                + "s because it hangs, is stopped, or the network is down. The agent reconnects."),
        Self.link(
            .withdrawn, "the name was withdrawn", Place.visitor + "; agent's event 'missing'",
            "The agent stopped or lost the name while the visitor was connected; its log has the reason."),
    ]

    private static let endsOfLinks = [
        Self.link(
            .protocolViolation, "a frame that the protocol does not allow", Place.link,
            Advice.scanners + " Between your own programs: " + Advice.bug),
        Self.link(.version, "no common protocol version", Place.link, Advice.release),
        Self.link(
            .flowControl, "more bytes than granted, or a lowered limit", Place.link,
            "The program on the other side is faulty. " + Advice.bug),
        Self.link(
            .glitches, "too many unnecessary frames", Place.link,
            "The other program floods the link, for example with registrations. " + Advice.bug),
        Self.link(
            .owed, "the peer does not read the answers to its requests", Place.link,
            "The other program hangs or is hostile. If it is yours, find out why it hangs."),
        Self.link(
            .dead, "no data for too long", Place.link,
            "45 s of silence: the other machine is off, asleep or offline, or a firewall dropped the connection. The "
                + "agent reconnects. If it happens often, look for a firewall or NAT that drops connections after less "
                + "than 15 s of silence."),
        Self.link(
            .handshakeTimeout, "the handshake or the login took too long", Place.link,
            Advice.scanners
                + " From your own agent: the network loses packets, a machine is overloaded, or the question "
                + "about the gateway's key was answered late. The agent reconnects."),
        Self.link(
            .drain, "the other side is shutting down", Place.link,
            "Nothing: open streams finish, and the agent reconnects. If it does not, check that the gateway was started "
                + "again."),
        Self.link(
            .replaced, "a newer link of the same agent took over", Place.agent,
            "Two programs use the same token, key or state directory, and the newer one has the name. Stop one of them."
        ),
        Self.link(
            .conflict, "two programs with the same identity keep replacing each other", Place.agent,
            "Stop one of them, or give each its own token and names; on a gateway without an agents file, its own "
                + "--state-dir and names."),
        Self.link(
            .tooManyLinks, "too many links", Place.link,
            "The agent has reached links-per-agent (16) or its max-links, or the gateway has reached 'agents' or its "
                + "file descriptors ('limited by N file descriptors' in its log). Stop agents that are not needed, or "
                + "raise the limit. The agent retries."),
        Self.link(
            .revoked, "access revoked: the agent was removed or disabled, has expired, or its token was replaced",
            Place.agent,
            "The message and the gateway's log have the reason. If only one name was withdrawn, the agent requests it again every 30 s."
        ),
        Self.link(
            .sessionGone, "the gateway does not have the session any more", "agent's debug log",
            "Nothing: the connection was lost for longer than resume-window, or the gateway was restarted. The streams "
                + "were reset, and the agent has logged in again."),
    ]

    private static let refusals = [
        Self.link(
            .loginRefused, "the login was refused", Place.login,
            "Check the agent's token. The gateway's log has the reason: 'login from ADDRESS refused: REASON'."),
        Self.link(
            .notLoopback, "the gateway accepts only agents on its own machine", Place.login,
            "Ask its operator to add the agent ('diglett-server agent add'), or to accept every agent (--auth open)."),
        Self.link(
            .methodNotSupported, "the gateway does not support the login method", Place.login,
            "The agent is newer than the gateway. " + Advice.release),
        Self.link(
            .nameInvalid, "the name is not valid", Place.name,
            "Choose another: \(Name.rule). Reserved are \(Name.reserved.sorted().joined(separator: ", "))."),
        Self.link(
            .nameNotAllowed, "the agent may not use the name", Place.name,
            "On the gateway, 'diglett-server agent list' shows the names of each agent, and the log has the reason. To "
                + "allow more, edit 'names' in the agents file."),
        Self.link(
            .nameTaken, "another agent holds the name", Place.name,
            "Stop the other agent or choose another name. On a gateway without an agents file, an agent that was moved "
                + "needs its old instance.key."),
        Self.link(
            .portNotAllowed, "the agent may not use the public port", Place.name,
            "Leave out the port, and the gateway chooses one. Otherwise request a port that is in the gateway's "
                + "--expose-ports and in the agent's own ports; ports below 1024 must be in --expose-ports."),
        Self.link(
            .portTaken, "the public port is in use", Place.name,
            "Leave out the port, or request another one. If you requested none, all ports of the range are in use: "
                + "widen --expose-ports or the agent's 'ports'. On the gateway, 'ss -ltnp' shows which program uses a "
                + "port."),
        Self.link(
            .tooManyNames, "the link or the agent has too many names", Place.name,
            "Start another agent for the rest, or raise the agent's max-names on the gateway; names-per-link limits each "
                + "link."),
        Self.link(
            .registrarFailed, "the name cannot be published now", Place.name,
            "A registrar (proxy, program or web service) or the name's unix socket failed; the gateway's log has the "
                + "reason. The agent requests the name again every 30 s."),
        Self.link(
            .kindNotSupported, "the gateway does not support this kind of exposure", Place.name,
            "The agent is newer than the gateway. " + Advice.release),
    ]
}
