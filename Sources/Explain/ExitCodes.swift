internal import AgentCore
internal import Wire

extension Explanations {
    static let agentExits = ExitReason.allCases.map { reason in
        let (meaning, place, advice) = Self.text(of: reason)
        return Explanation(
            kind: .agentExit, number: Int(reason.rawValue), slug: reason.slug, meaning: meaning, place: place,
            advice: advice)
    }

    /// Whether a link code can end an agent with this exit code.
    static func ends(_ link: Explanation, _ exit: Explanation) -> Bool {
        ExitReason(final: ErrorCode(rawValue: UInt16(link.number))).map { Int($0.rawValue) == exit.number } ?? false
    }

    private static func text(of reason: ExitReason) -> (meaning: String, place: String, advice: String) {
        switch reason {
        case .stopped: Self.stopped
        case .unreachable:
            (
                "not all names of the running agents are reachable", "'status' only",
                "The output of 'status' shows which names and why; the agents' logs have more."
            )
        case .wrongGatewayKey:
            (
                "the gateway's key is not the expected one, or it is new and cannot be confirmed without a terminal",
                "before the login; the token was not sent",
                "Compare the pins in the message with the one that the gateway prints when it starts. If they match, pass "
                    + "--pin, or delete the line of known_gateways that the message names. If they do not, stop: the "
                    + "address is wrong, or someone is intercepting the connection."
            )
        case .loginRefused:
            (
                "the gateway does not accept the agent's credentials",
                "at the login, and later if access is revoked; with a token file, after 10 s without a new token in it",
                "Check the token. The first of these applies: -t, --token-file, the configuration file, the address in "
                    + "-g, the credential 'token', DIGLETT_TOKEN. The gateway's log has the reason: 'login from ADDRESS "
                    + "refused: REASON'. On the gateway, 'diglett-server agent list' shows expired and disabled agents, "
                    + "and 'agent rotate NAME' creates a new token. A service diglett@NAME reads its token only when it "
                    + "starts: replace the token, then run 'systemctl restart diglett@NAME'."
            )
        case .notLoopback:
            (
                "the gateway accepts only agents on its own machine", "at the login",
                "Ask its operator to add the agent with 'diglett-server agent add NAME --names PATTERN' and to send you "
                    + "the token; or to accept every agent with --auth open."
            )
        case .nameRefused:
            (
                "the name is not valid or not allowed, or the agent has too many names", Self.permanent,
                "The message has the reason. A valid name: \(Name.rule). On the gateway, 'diglett-server agent list' "
                    + "shows the names of each agent. For more names than a link may have, start another agent."
            )
        case .nameTaken:
            (
                "another agent holds the name", Self.permanent,
                "Stop the other agent or choose another name. A gateway without an agents file identifies an agent by its "
                    + "state directory: an agent that was moved needs its old instance.key. An agent that lost its "
                    + "network keeps its names for up to two minutes."
            )
        case .replaced:
            (
                "a newer program with the same identity took over", "while running",
                "Two programs use the same token, key or state directory, and the newer one has the name. Find the other "
                    + "one (a second service, a forgotten terminal, a copied directory) and stop one of them. A service "
                    + "manager must not restart an agent after 15 or 16."
            )
        case .conflict:
            (
                "two programs with the same identity keep taking the name from each other", "while running",
                "Stop one of them, or give each its own token and names; on a gateway without an agents file, its own "
                    + "--state-dir and names."
            )
        case .version:
            (
                "gateway and agent have no common protocol version, or the gateway lacks a feature that the agent needs",
                "at the login, or at the first registration of a name",
                "Install the same release on both sides; 'diglett --version' and 'diglett-server --version' show it."
            )
        case .portRefused:
            (
                "the requested public port is not allowed; with --once also: it is in use", Self.permanent,
                "Leave out --public-port (in a file: public-port), and the gateway chooses a port. Otherwise request one "
                    + "that is in the gateway's --expose-ports and in the agent's own ports and that no other agent has; "
                    + "ports below 1024 must be in --expose-ports. On the gateway, 'ss -ltnp' shows which program uses "
                    + "a port."
            )
        case .usage: ("bad argument", "at the start; also 'key', 'status' and 'explain'", Self.usageAdvice)
        case .unavailable:
            (
                "with --once: the gateway is unreachable or the link was lost; 'status': no agent runs",
                "at the start or later",
                "The message has the reason. Check that the gateway runs, that the address in -g is right, and that no "
                    + "firewall blocks it. Without --once the agent retries."
            )
        case .output:
            (Self.output.meaning, "'key', 'status' and 'explain'; --help and --version", Self.output.advice)
        case .configuration:
            (
                "a file or directory is unusable", "at the start; also 'key' and 'status'",
                "The message has the file, line and reason. Files with secrets must be readable only by their owner: "
                    + "chmod 600. Only the owner may write to the state directory: chmod go-w."
            )
        }
    }

    private static let permanent = "when all names are permanently refused; with --once, when one is"

    private static let stopped = (
        meaning: "stopped by SIGINT or SIGTERM", place: "at the end",
        advice: "Nothing. If it was not you: a service manager or a shutdown sends these signals."
    )

    private static let usageAdvice = "The message names the argument; --help lists all of them."

    private static let output = (
        meaning: "cannot write to standard output",
        advice: "The message has the system's reason: check for a full disk or a closed pipe."
    )

    /// Must equal the numbers of `GatewayError.Kind`; a test compares them.
    static let gatewayExits = [
        Self.gateway(0, "stopped", Self.stopped.meaning, "at the end; 'check': no errors", Self.stopped.advice),
        Self.gateway(
            1, "refused", "the running gateway refused the request", "'ctl' only", "The message has the reason."),
        Self.gateway(
            64, "usage", "bad argument", "at the start; also 'agent', 'check', 'ctl' and 'explain'", Self.usageAdvice),
        Self.gateway(
            69, "unavailable", "no gateway answers at the control socket", "'ctl' only",
            "Check that the gateway runs ('systemctl status diglett-server'). The message names the socket: pass the "
                + "gateway's own --state-dir, --config or --control, and run the command as a user who may use it."),
        Self.gateway(
            71, "listen", "an address is unavailable", "at the start",
            "Another program uses the port ('ss -ltnp' shows which), the machine does not have the address, or the port "
                + "is below 1024 and the program lacks CAP_NET_BIND_SERVICE. Choose another address with -l HOST:PORT, "
                + "--metrics, or 'listen' of a registrar."),
        Self.gateway(
            73, "state",
            "the state directory, the directory of sockets or the control socket is unusable or used by another gateway",
            "at the start",
            "The message names it. Stop the other gateway, or give this one its own (--state-dir, --expose-sockets, "
                + "--control). Otherwise check the directory's owner and permissions (chmod go-w) and free disk space."),
        Self.gateway(
            74, "output", Self.output.meaning,
            "'agent' (the change was made), 'check', 'ctl' and 'explain'; --help and --version",
            Self.output.advice + " If a new token was not shown, 'agent rotate NAME' creates another one."),
        Self.gateway(
            78, "configuration", "bad configuration file, agents file, key or certificate",
            "at the start; 'check': there are errors; 'agent': nothing was changed",
            "The message has the file, line and reason. 'diglett-server check FILE' reports all errors."),
    ]

    private static func gateway(
        _ number: Int, _ slug: String, _ meaning: String, _ place: String, _ advice: String
    ) -> Explanation {
        Explanation(kind: .gatewayExit, number: number, slug: slug, meaning: meaning, place: place, advice: advice)
    }
}
