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

    /// What a visitor may make the gateway and the kernel hold when memory is short, in bytes: a receive window (16 KiB),
    /// a send queue (4 KiB) and bookkeeping (4 KiB), and the kernel's buffers of its socket (64 KiB).
    private static let bytesPerVisitor = 88 * 1024

    /// - Parameters:
    ///   - memory: what ``memoryLimit()`` tells; three quarters of it are for visitors.
    ///   - listenersPerName: 2 where a name has a public port and a unix socket.
    init(descriptors: Int, memory: Int = .max, listenersPerName: Int = 1) {
        let available = max(descriptors - Self.reserve, 64)
        self.agents = min(1_024, available / 8)
        self.strangers = min(256, available / 16)
        self.names = min(4_096, available / 4 / listenersPerName)
        self.visitors = min(
            8_192, available - self.agents - self.strangers - self.names * listenersPerName,
            max(memory / 4 * 3 / Self.bytesPerVisitor, 64))
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

    /// The limit of this process's control group and of those above it (cgroups(7)).
    private static func groupLimit() -> Int? {
        guard let bytes = try? FileAccess.read("/proc/self/cgroup", most: 65_536) else { return nil }
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
