internal import Wire

/// Where users see link codes.
private enum Place {
    static let visitor = "the gateway's log: visitor ADDRESS of 'NAME' reset"
    static let link = "the agent's event 'lost', the log of either: the link is lost, no login from ADDRESS"
    static let login = "the answer to a login"
    static let name = "the answer to a name: the agent's error, or its event 'missing'"
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
            "The program at the other end is newer: ask that one, or bring both to the same release.")
    }

    private static let streamCodes = [
        Self.link(
            .none, "no error", "the debug log, where a link was closed on purpose", "Nothing."),
        Self.link(
            .refused, "the backend's host refused the connection", Place.visitor,
            "On the agent's machine: look whether the service runs, and on the host, port or unix socket that the "
                + "agent was given. 'localhost' is the machine or container of the agent. The agent's log says 'the "
                + "backend ... cannot be reached'."),
        Self.link(
            .timeout, "the backend did not answer in time", Place.visitor,
            "The agent waits 5 s for a backend, the gateway 10 s for the agent. Look for a firewall that drops packets "
                + "on the way to the backend, for a backend that is overloaded, or for an agent that hangs."),
        Self.link(
            .unreachable, "no way to the backend, or its name does not resolve", Place.visitor,
            "Try the backend's address from the agent's machine. Its host name must resolve there, and a route must "
                + "lead to it; the agent's log has the system's reason."),
        Self.link(
            .overloaded, "a limit was reached, or the authenticator timed out",
            Place.visitor + "; the answer to a login or a name",
            "For visitors: the agent has too few file descriptors (ulimit -n) or as many streams as it may have. For "
                + "logins and names: the program or web service that judges gave no answer, the gateway is full, or the "
                + "agent registers names faster than the gateway allows or can withdraw them; the gateway's log says "
                + "which. The agent asks again by itself."),
        Self.link(
            .denied, "a rule forbids the stream", Place.visitor,
            "The agent may not use its backend: look at the rights of the unix socket and of the directories above it."),
        Self.link(
            .aborted, "the connection at the other edge was reset or vanished",
            Place.visitor + "; the agent's debug log",
            "Often nothing: a visitor went away, or a server ends its connections so. If it happens to every visitor, "
                + "look into the backend's log."),
        Self.link(
            .internalError, "the program at the other end failed", "any log",
            "Look into the logs of both programs at that time, and report it with their versions."),
        Self.link(
            .idle, "one direction had ended and the other was silent for too long", Place.visitor,
            "One side had ended its direction, and the other sent nothing for as long as half-close-timeout allows. Raise "
                + "it, or set it to 0 for no limit."),
        Self.link(
            .stalled, "bytes could not be handed on for too long", Place.visitor + "; " + Place.link,
            "A visitor or a backend took no bytes for as long as stall-timeout allows, or had waited the longest when the "
                + "gateway ran short of memory or of room for visitors. Of a link: the other program took no bytes for 30 "
                + "s; it hangs, is stopped, or the network is gone. The agent reconnects."),
        Self.link(
            .withdrawn, "the exposure went away", Place.visitor + "; the agent's event 'missing'",
            "The agent stopped or lost the name while the visitor was there; its log says why."),
    ]

    private static let endsOfLinks = [
        Self.link(
            .protocolViolation, "a frame that the protocol does not allow", Place.link,
            "From strangers at the gateway's port: scanners, nothing to do. Between your own programs: bring both to "
                + "the same release; if it comes again, report it with the detail of the log."),
        Self.link(
            .version, "no version in common", Place.link,
            "Bring both programs to the same release: 'diglett --version', 'diglett-server --version'."),
        Self.link(
            .flowControl, "more was sent than granted, or a limit lowered", Place.link,
            "A fault of the program at the other end: bring both to the same release; if it comes again, report it "
                + "with the detail of the log."),
        Self.link(
            .glitches, "too many needless frames", Place.link,
            "The other program floods the link: too many registrations at once, or frames without use. Bring both "
                + "to the same release; if it comes again, report it with the detail of the log."),
        Self.link(
            .owed, "the peer asks for answers and does not read them", Place.link,
            "The other program hangs, or means harm. If it is your own, look what keeps it from running."),
        Self.link(
            .dead, "nothing was heard for too long", Place.link,
            "45 s of silence: the other machine is off, asleep or off the network, or something in between forgot the "
                + "connection. The agent comes back by itself. If it comes often, look for a firewall or NAT that "
                + "forgets connections within 15 s of silence."),
        Self.link(
            .handshakeTimeout, "the handshake or the login took too long", Place.link,
            "From strangers: scanners, nothing to do. From your own agent: the network loses packets, a machine is "
                + "overloaded, or the question about the gateway's key was answered late. The agent comes back by "
                + "itself."),
        Self.link(
            .drain, "the other side is shutting down", Place.link,
            "Nothing: running streams finish, and the agent comes back by itself. If it does not, look whether the "
                + "gateway was started again."),
        Self.link(
            .replaced, "a newer link of the same agent took over", "the agent's error or its event 'missing'",
            "Two programs use one token, key or state directory, and the newer has the name. Find the other one and "
                + "stop one of the two."),
        Self.link(
            .conflict, "two programs of one identity keep displacing each other",
            "the agent's error or its event 'missing'",
            "Stop one of the two, or give each a token and a name of its own; at an open gateway, a --state-dir and a "
                + "name of its own."),
        Self.link(
            .tooManyLinks, "no room for another link", Place.link,
            "The agent has as many links as links-per-agent (16) or its max-links allow, or the gateway as many agents as "
                + "its key agents or its file descriptors allow ('limited by N file descriptors' in its log). Stop "
                + "agents that are not needed, or raise what is too low. The agent tries again by itself."),
        Self.link(
            .revoked, "access revoked: the agent was removed, disabled or has expired",
            "the agent's error or its event 'missing'",
            "The gateway's operator removed, disabled or changed the agent, or it has expired: the gateway's log says "
                + "which. If a single name was withdrawn, the agent asks again every 30 s."),
    ]

    private static let refusals = [
        Self.link(
            .loginRefused, "the login was refused", Place.login,
            "Check the agent's token. Only the gateway's log has the reason: 'login from ADDRESS refused: REASON'."),
        Self.link(
            .notLoopback, "an open gateway takes agents of its own machine only", Place.login,
            "The gateway's operator can add the agent ('diglett-server agent add'), or take everybody with --auth "
                + "open."),
        Self.link(
            .methodNotSupported, "the gateway does not support the login method", Place.login,
            "The agent is newer than the gateway: bring both to the same release, 'diglett --version' and "
                + "'diglett-server --version' show which they are."),
        Self.link(
            .nameInvalid, "the name breaks the rule", Place.name,
            "Choose another: \(Name.rule). Reserved are \(Name.reserved.sorted().joined(separator: ", "))."),
        Self.link(
            .nameNotAllowed, "the agent has no right to the name", Place.name,
            "'diglett-server agent list' shows at the gateway which names the agent may use; the gateway's log has the "
                + "reason. To allow more, edit 'names' in its agents file."),
        Self.link(
            .nameTaken, "another identity holds the name", Place.name,
            "Stop the other agent or choose another name. At an open gateway an agent that was moved needs its old "
                + "instance.key."),
        Self.link(
            .portNotAllowed, "the public port is not among the allowed ones", Place.name,
            "Leave the port out, and the gateway chooses. Else ask for one of the gateway's --expose-ports and of the "
                + "agent's own ports; below 1024 only what --expose-ports names."),
        Self.link(
            .portTaken, "the public port is in use", Place.name,
            "Leave the port out or ask for another. If you asked for none, all of the range are in use: widen "
                + "--expose-ports, or the agent's 'ports'. 'ss -ltnp' on the gateway's machine shows who has a port."),
        Self.link(
            .tooManyNames, "the link has as many names as it may", Place.name,
            "Start another agent for the rest, or raise the agent's max-names at the gateway; a link has at most "
                + "as many as the gateway's names-per-link says."),
        Self.link(
            .registrarFailed, "the name cannot be published now", Place.name,
            "A registrar (proxy, program or web service) failed, or the name's unix socket: the gateway's log "
                + "says why. The agent asks again every 30 s by itself."),
        Self.link(
            .kindNotSupported, "the gateway does not support this kind of exposure", Place.name,
            "The agent is newer than the gateway: bring both to the same release, 'diglett --version' and "
                + "'diglett-server --version' show which they are."),
    ]
}
