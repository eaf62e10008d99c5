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
        case .stopped:
            (
                "it was asked to stop, by SIGINT or SIGTERM", "at the end",
                "Nothing. If nobody meant to stop it, look for what sends the signal: a service manager, or a machine "
                    + "that shuts down."
            )
        case .unreachable:
            (
                "not all names of the running agents are reachable", "of 'status' only",
                "What 'status' prints tells which and why; the agents' logs have the rest."
            )
        case .wrongGatewayKey:
            (
                "the gateway's key is not the pinned or the known one, or it is new and nobody could be asked",
                "before the login: the token was not sent",
                "Compare the pins in the message with the one that the gateway prints at its start. If the key that "
                    + "was shown is the gateway's, pass it with --pin, or delete the line of known_gateways that the "
                    + "message names. If it is not, somebody is in between or the address leads elsewhere: go no "
                    + "further."
            )
        case .loginRefused:
            (
                "the gateway does not know the agent, or no longer",
                "at the login, and later when the right is withdrawn; with a token file 10 s later, unless another token is "
                    + "in it by then",
                "Check the token; the first of these counts: -t, --token-file, the configuration file, the line of "
                    + "-g, the credential 'token', DIGLETT_TOKEN. Only the gateway's log has the reason: 'login from ADDRESS refused: REASON'. "
                    + "There, 'diglett-server agent list' shows who is expired or disabled, and 'agent rotate NAME' "
                    + "makes a new token. A service diglett@NAME uses the token that its source had at its start: put "
                    + "the new one there, then run 'systemctl restart diglett@NAME'."
            )
        case .notLoopback:
            (
                "the gateway is open and takes agents of its own machine only", "at the login",
                "Its operator can add the agent ('diglett-server agent add NAME --names PATTERN') and hand over the "
                    + "token, or take everybody with --auth open."
            )
        case .nameRefused:
            (
                "the name is not valid, not allowed, or one too many",
                "when all names are permanently refused; with --once, when one is",
                "The message says which. Valid: \(Name.rule). Which names the agent may use, "
                    + "'diglett-server agent list' shows at the gateway. For more names than a link may have, start "
                    + "another agent."
            )
        case .nameTaken:
            (
                "another agent holds the name", "when all names are permanently refused; with --once, when one is",
                "Stop the other agent or choose another name. At an open gateway an agent is known by its state "
                    + "directory: one that was moved needs its old instance.key. A holder that vanished without a word "
                    + "keeps the name for up to 45 s."
            )
        case .replaced:
            (
                "a newer program with the same identity took over", "while it ran",
                "Two programs use one token, key or state directory, and the newer has the name. Find the other one (a "
                    + "second service, a forgotten terminal, a copied directory) and stop one of the two. Do not let a "
                    + "service manager start this one again after 15 or 16."
            )
        case .conflict:
            (
                "two programs with one identity keep taking the name from each other", "while it ran",
                "Stop one of the two, or give each a token and a name of its own; at an open gateway, a --state-dir "
                    + "and a name of its own."
            )
        case .version:
            (
                "gateway and agent have no protocol version in common, or the gateway lacks a feature that the agent needs",
                "at the login, or when a name is registered first",
                "Bring both to the same release: 'diglett --version' and 'diglett-server --version' tell which they are."
            )
        case .portRefused:
            (
                "the wanted public port is not allowed; with --once also: it is in use",
                "when all names are permanently refused; with --once, when one is",
                "Leave --public-port (or public-port in the file) out, and the gateway chooses. Else ask for one that "
                    + "is in the gateway's --expose-ports and among the agent's own ports, is not below 1024 unless "
                    + "--expose-ports names it, and is no other agent's. Who uses it on the gateway's machine, "
                    + "'ss -ltnp' shows."
            )
        case .usage:
            (
                "a bad argument", "at the start, also of 'key', 'status' and 'explain'",
                "The message names the argument; --help lists them all."
            )
        case .unavailable:
            (
                "the gateway cannot be reached or the link was lost, with --once; of 'status': no agent runs",
                "at the start or later",
                "The message has the reason. Look whether the gateway runs, the address and port of -g are right, and "
                    + "no firewall is in the way. Without --once the agent would try again by itself."
            )
        case .output:
            (
                Self.output.meaning, "of 'key', 'status' and 'explain', of --help and --version", Self.output.advice
            )
        case .configuration:
            (
                "a file or directory cannot be used", "at the start, also of 'key' and 'status'",
                "The message names file, line and reason. Secrets must be readable by their owner only: chmod 600. "
                    + "Only its owner may write to the state directory: chmod go-w."
            )
        }
    }

    private static let output = (
        meaning: "what was asked for cannot be written to standard output",
        advice: "The message has the system's reason: look whether the disk is full, or what closed the output."
    )

    /// Must equal the numbers of `GatewayError.Kind`; a test compares them.
    static let gatewayExits = [
        Self.gateway(
            0, "stopped", "it was asked to stop, by SIGINT or SIGTERM", "at the end; 'check': no errors",
            "Nothing. If nobody meant to stop it, look for what sends the signal: a service manager, or a machine that "
                + "shuts down."),
        Self.gateway(
            1, "refused", "the running gateway says no", "of 'ctl' only",
            "The message says why."),
        Self.gateway(
            64, "usage", "a bad argument", "at the start, also of 'agent', 'check', 'ctl' and 'explain'",
            "The message names the argument; --help lists them all."),
        Self.gateway(
            69, "unavailable", "no gateway answers at the control socket", "of 'ctl' only",
            "Is the gateway running ('systemctl status diglett-server')? The message tells where it was looked for: give "
                + "the gateway's own --state-dir, --config or --control, and be a user who may use the socket."),
        Self.gateway(
            71, "listen", "an address cannot be listened on", "at the start",
            "Another program has the port ('ss -ltnp' shows which), the address is none of this machine's, or the port "
                + "is below 1024 and the program lacks CAP_NET_BIND_SERVICE. -l HOST:PORT chooses another for agents, "
                + "--metrics and 'listen' of a registrar those for themselves."),
        Self.gateway(
            73, "state",
            "the directory of state, that of the names' sockets or the control socket cannot be used, or another gateway "
                + "uses it",
            "at the start",
            "The message names it. Stop the other gateway, or give this one its own (--state-dir, --expose-sockets, "
                + "--control); else look at the directory's owner and rights (chmod go-w), and whether the disk is full."
        ),
        Self.gateway(
            74, "output", Self.output.meaning,
            "of 'agent', 'check', 'ctl' and 'explain', of --help and --version; 'agent': the change was made",
            Self.output.advice + " After 'agent add' and 'agent rotate', 'agent rotate NAME' makes a token that can be "
                + "shown."),
        Self.gateway(
            78, "configuration", "bad configuration file, agents file, key or certificate",
            "at the start; 'check': something is wrong; 'agent': nothing was changed",
            "The message names file, line and reason. 'diglett-server check FILE' finds everything at once."),
    ]

    private static func gateway(
        _ number: Int, _ slug: String, _ meaning: String, _ place: String, _ advice: String
    ) -> Explanation {
        Explanation(kind: .gatewayExit, number: number, slug: slug, meaning: meaning, place: place, advice: advice)
    }
}
