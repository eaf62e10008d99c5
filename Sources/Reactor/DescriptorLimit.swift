import Glibc

/// How many file descriptors this process may have (getrlimit(2), RLIMIT_NOFILE).
package enum DescriptorLimit {
    /// More than any bound of ours needs.
    private static let enough: rlim_t = 1 << 20

    /// Raises the soft limit to the hard one and returns it.
    package static func raise() -> Int {
        var limit = rlimit()
        let resource = __rlimit_resource_t(RLIMIT_NOFILE.rawValue)
        guard getrlimit(resource, &limit) == 0 else { return 1_024 }
        if limit.rlim_cur < limit.rlim_max {
            limit.rlim_cur = min(limit.rlim_max, Self.enough)
            _ = setrlimit(resource, &limit)
            _ = getrlimit(resource, &limit)
        }
        return Int(clamping: min(limit.rlim_cur, Self.enough))
    }
}
