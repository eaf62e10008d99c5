import Glibc
package import Settings

/// Divides the process's file descriptors and memory among the gateway's limits. Their sum stays below the descriptor
/// limit, so that it is never reached (libuv would then accept connections only to close them).
package struct ResourcePlan: Equatable {
    let agents: Int
    let strangers: Int
    /// Refused connections to the agent port that get an alert: this many in the hub, and as many again in the worker.
    let refused: Int
    /// Logins that are with the authenticator.
    let logins: Int
    /// Connections of trusted proxies that await their PROXY header.
    let headers: Int
    /// Names. Each has one or two listeners.
    package let names: Int
    package let visitors: Int
    /// The limit of the process's ``ByteBudget``, in bytes.
    let memory: Int
    /// Whether descriptors or memory force limits below the defaults or the operator's settings.
    let isLowered: Bool

    /// Defaults, if descriptors and memory allow them. They are far below what one core can handle.
    static let defaultAgents = 1_024
    static let defaultVisitors = 8_192
    /// Names at once. Each has a listener, and registrars publish them one after the other.
    static let maxNames = 4_096
    /// Connections to the agent port before login: more than can log in within a second.
    static let maxStrangers = 256

    /// Refused connections kept open until the peer has read the alert. Further ones are reset.
    static let maxRefused = 64

    /// Logins waiting for the authenticator. It may be slow, and each login holds a connection with its buffers.
    static let maxLogins = 1_024
    /// Connections from trusted proxies that await their PROXY header. Proxies send it at once, so there are few.
    static let maxHeaders = 1_024

    /// Descriptors reserved for files, the loop and modules.
    private static let reserve = 64
    /// The minimum for visitors, however little memory there is: with fewer, the gateway is useless.
    private static let minVisitors = 64

    /// The most memory that a visitor takes in the gateway and the kernel when memory is short, in bytes: receive
    /// window (16 KiB), send queue (4 KiB), bookkeeping (4 KiB), and the kernel's socket buffers (64 KiB).
    static let bytesPerVisitor = 88 * 1024
    /// The default budget, as a share of all memory. The kernel's buffers and the program itself need the rest.
    static let budgetShare = (6, of: 10)
    /// The largest budget, even if the operator has set more.
    static let maxBudgetShare = (9, of: 10)
    /// Memory for visitors, relative to the budget: by default three quarters of all memory. It may exceed the budget,
    /// because the budget counts less than a third of what a visitor needs.
    static let visitorShare = (5, of: 4)

    /// - Parameters:
    ///   - descriptors: the process's limit on file descriptors.
    ///   - memory: in bytes, from ``memoryLimit()``.
    ///   - listenersPerName: at least 1; 2 if a name has both a public port and a unix socket.
    package init(
        _ limits: LimitSettings = LimitSettings(), descriptors: Int, memory: Int = .max, listenersPerName: Int = 1
    ) {
        let available = max(descriptors - Self.reserve, 64)
        let budget = limits.memory ?? memory / Self.budgetShare.of * Self.budgetShare.0
        self.memory = min(budget, memory / Self.maxBudgetShare.of * Self.maxBudgetShare.0)
        let agents = limits.agents ?? Self.defaultAgents
        self.agents = min(agents, available / 8)
        self.strangers = min(Self.maxStrangers, available / 16)
        self.refused = min(Self.maxRefused, available / 16)
        self.logins = min(Self.maxLogins, available / 16)
        self.headers = min(Self.maxHeaders, available / 16)
        self.names = min(Self.maxNames, available / 4 / listenersPerName)
        let visitors = limits.visitors ?? Self.defaultVisitors
        let inMemory = self.memory / Self.visitorShare.of / Self.bytesPerVisitor * Self.visitorShare.0
        self.visitors = min(
            visitors,
            available - self.agents - self.strangers - 2 * self.refused - self.logins - self.headers
                - self.names * listenersPerName,
            max(inMemory, Self.minVisitors))
        self.isLowered =
            self.memory < budget || self.agents < agents || self.strangers < Self.maxStrangers
            || self.names < Self.maxNames
            || self.visitors < visitors
    }

    /// Connections to the agent port, before and after login.
    var links: Int { self.agents + self.strangers + self.logins }

    /// A warning about lowered limits, for the log and `check`; nil if no limit was lowered.
    package func loweredText(descriptors: Int, memory: Int) -> String? {
        guard self.isLowered else { return nil }
        return
            "limited by \(descriptors) file descriptors and \(memory >> 20) MiB of memory: at most \(self.agents) agents, "
            + "\(self.names) names and \(self.visitors) visitors at once, \(self.memory >> 20) MiB for their bytes"
    }

    /// The smallest of the machine's memory, RLIMIT_AS and the cgroup's memory limit, in bytes.
    package static func memoryLimit() -> Int {
        let pages = sysconf(CInt(_SC_PHYS_PAGES))
        let size = sysconf(CInt(_SC_PAGESIZE))
        var least = pages > 0 && size > 0 ? pages.multipliedReportingOverflow(by: size).partialValue : 1 << 30
        var limit = rlimit()
        if getrlimit(__rlimit_resource_t(RLIMIT_AS.rawValue), &limit) == 0 {
            least = min(least, Int(clamping: limit.rlim_cur))
        }
        return min(least, self.groupLimit() ?? least)
    }

    /// The smallest memory limit of this process's cgroup and its parents, version 1 or 2 (cgroups(7)); nil if unknown.
    private static func groupLimit() -> Int? {
        guard let bytes = try? FileAccess.read("/proc/self/cgroup", atMost: 65_536) else { return nil }
        var limits: [Int] = []
        for line in String(decoding: bytes, as: UTF8.self).split(separator: "\n") {
            let fields = line.split(separator: ":", maxSplits: 2, omittingEmptySubsequences: false)
            guard fields.count == 3 else { continue }
            let path = String(fields[2])
            if fields[1].isEmpty {
                limits.append(self.limit(below: "/sys/fs/cgroup", path, "memory.max") ?? .max)
            } else if fields[1].split(separator: ",").contains("memory") {
                limits.append(self.limit(below: "/sys/fs/cgroup/memory", path, "memory.limit_in_bytes") ?? .max)
            }
        }
        return limits.min()
    }

    private static func limit(below root: String, _ path: String, _ name: String) -> Int? {
        var path = path
        var least: Int?
        while true {
            let file = "\(root)\(path == "/" ? "" : path)/\(name)"
            if let text = try? FileAccess.read(file, atMost: 64),
                let value = Int(String(decoding: text, as: UTF8.self).prefix { $0.isNumber })
            {
                least = min(least ?? value, value)
            }
            guard path != "/", let slash = path.lastIndex(of: "/") else { return least }
            path = slash == path.startIndex ? "/" : String(path[..<slash])
        }
    }
}
