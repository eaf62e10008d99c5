import Glibc
internal import Settings

/// The process's resource usage, in the terms of Prometheus' client libraries
/// (https://prometheus.io/docs/instrumenting/writing_clientlibs/#process-metrics).
struct ProcessFigures {
    let cpuSeconds: Double
    let residentBytes: Int
    let virtualBytes: Int
    let openDescriptors: Int
    let maxDescriptors: Int

    /// Reads the current values.
    init() {
        var usage = rusage()
        getrusage(__rusage_who_t(RUSAGE_SELF.rawValue), &usage)
        let microseconds = [usage.ru_utime, usage.ru_stime].reduce(0) { $0 + $1.tv_sec * 1_000_000 + $1.tv_usec }
        self.cpuSeconds = Double(microseconds) / 1e6
        // proc(5), /proc/pid/statm: in pages, first the total size, then the resident set.
        let pages = Self.words("/proc/self/statm").prefix(2).compactMap { Int($0) }
        let pageSize = max(sysconf(CInt(_SC_PAGESIZE)), 1)
        (self.virtualBytes, self.residentBytes) = pages.count == 2 ? (pages[0] * pageSize, pages[1] * pageSize) : (0, 0)
        // Minus the descriptor of the directory itself.
        self.openDescriptors = max(((try? FileAccess.list("/proc/self/fd")) ?? []).count - 1, 0)
        var limit = rlimit()
        getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
        self.maxDescriptors = Int(clamping: limit.rlim_cur)
    }

    /// When the process started, in seconds since 1970. The result shifts when the clock is set, so call it once.
    static func processStart() -> Double {
        func read(_ clock: clockid_t) -> Double {
            var time = timespec()
            clock_gettime(clock, &time)
            return Double(time.tv_sec) + Double(time.tv_nsec) / 1e9
        }
        // proc(5), /proc/pid/stat: field 22, in ticks since boot. Field 2, the program's name, may contain anything,
        // but ends at the last parenthesis.
        let words = Self.words("/proc/self/stat", after: ")")
        let now = read(CLOCK_REALTIME)
        guard words.count > 19, let ticks = Double(words[19]) else { return now }
        return now - (read(CLOCK_BOOTTIME) - ticks / Double(max(sysconf(CInt(_SC_CLK_TCK)), 1)))
    }

    private static func words(_ path: String, after mark: Character? = nil) -> [Substring] {
        let text = String(decoding: (try? FileAccess.read(path, atMost: 65_536)) ?? [], as: UTF8.self)
        let start = mark.flatMap { text.lastIndex(of: $0) }.map { text.index(after: $0) } ?? text.startIndex
        return text[start...].split { $0 == " " || $0 == "\n" }
    }
}
