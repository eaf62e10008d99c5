import Glibc

/// The limit of open file descriptors of this process (getrlimit(2), RLIMIT_NOFILE).
package enum DescriptorLimit {
    /// More than any of our own limits needs.
    private static let enough: rlim_t = 1 << 20

    /// Raises the soft limit to the hard limit, up to 2^20, and returns the result; 1,024 if the limit is unknown.
    package static func raise() -> Int {
        var limit = rlimit()
        let resource = __rlimit_resource_t(RLIMIT_NOFILE.rawValue)
        guard getrlimit(resource, &limit) == 0 else { return 1_024 }
        if limit.rlim_cur < limit.rlim_max {
            // Never lowers a soft limit.
            limit.rlim_cur = max(limit.rlim_cur, min(limit.rlim_max, Self.enough))
            _ = setrlimit(resource, &limit)
            _ = getrlimit(resource, &limit)
        }
        return Int(clamping: min(limit.rlim_cur, Self.enough))
    }
}
