import Glibc

/// How many file descriptors this process may have (getrlimit(2), RLIMIT_NOFILE).
enum DescriptorLimit {
    /// Raises the soft limit to the hard one and returns it.
    static func raise() -> Int {
        var limit = rlimit()
        guard getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0 else { return 1_024 }
        if limit.rlim_cur < limit.rlim_max {
            limit.rlim_cur = min(limit.rlim_max, 1 << 20)
            _ = setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
            _ = getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
        }
        return Int(clamping: limit.rlim_cur)
    }
}

/// How much memory this process may have.
enum MemoryLimit {
    /// The least of the machine's memory and RLIMIT_AS, in bytes.
    static func bytes() -> Int {
        let pages = sysconf(CInt(_SC_PHYS_PAGES))
        let size = sysconf(CInt(_SC_PAGESIZE))
        let machine = pages > 0 && size > 0 ? pages.multipliedReportingOverflow(by: size).partialValue : 1 << 30
        var limit = rlimit()
        guard getrlimit(__rlimit_resource_t(RLIMIT_AS.rawValue), &limit) == 0 else { return machine }
        return min(machine, Int(clamping: limit.rlim_cur))
    }
}
