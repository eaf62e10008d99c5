import Glibc
internal import Settings

/// How the gateway divides what the process may have: the sum of all bounds stays below the limit, so that the limit
/// itself is never met (libuv would then accept connections only to close them).
struct ResourcePlan: Equatable {
    let agents: Int
    let strangers: Int
    /// Names, each of which has a listener, or two.
    let names: Int
    let visitors: Int

    /// Files, the loop's own descriptors, modules.
    private static let reserve = 64

    /// - Parameter listenersPerName: 2 where a name has a public port and a unix socket.
    init(descriptors: Int, listenersPerName: Int = 1) {
        let available = max(descriptors - Self.reserve, 64)
        self.agents = min(1_024, available / 8)
        self.strangers = min(256, available / 16)
        self.names = min(4_096, available / 4 / listenersPerName)
        self.visitors = min(8_192, available - self.agents - self.strangers - self.names * listenersPerName)
    }

    /// The least of the machine's memory, RLIMIT_AS and the memory limit of the control group, in bytes.
    static func memoryLimit() -> Int {
        let pages = sysconf(CInt(_SC_PHYS_PAGES))
        let size = sysconf(CInt(_SC_PAGESIZE))
        var least = pages > 0 && size > 0 ? pages.multipliedReportingOverflow(by: size).partialValue : 1 << 30
        var limit = rlimit()
        if getrlimit(__rlimit_resource_t(RLIMIT_AS.rawValue), &limit) == 0 {
            least = min(least, Int(clamping: limit.rlim_cur))
        }
        return min(least, self.groupLimit() ?? least)
    }

    /// memory.max of this process's group and of those above it (cgroups(7), version 2).
    private static func groupLimit() -> Int? {
        guard let bytes = try? FileAccess.read("/proc/self/cgroup", most: 65_536) else { return nil }
        let lines = String(decoding: bytes, as: UTF8.self).split(separator: "\n")
        guard let own = lines.first(where: { $0.hasPrefix("0::/") }) else { return nil }
        var path = String(own.dropFirst(3))
        var least: Int?
        while true {
            let file = "/sys/fs/cgroup\(path == "/" ? "" : path)/memory.max"
            if let text = try? FileAccess.read(file, most: 64),
                let value = Int(String(decoding: text, as: UTF8.self).prefix { $0.isNumber })
            {
                least = min(least ?? value, value)
            }
            guard path != "/", let slash = path.lastIndex(of: "/") else { return least }
            path = slash == path.startIndex ? "/" : String(path[..<slash])
        }
    }
}
