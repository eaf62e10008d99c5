import Glibc
internal import Settings

/// What the process costs, as Prometheus' client libraries name it
/// (https://prometheus.io/docs/instrumenting/writing_clientlibs/#process-metrics).
struct ProcessFigures {
    let cpuSeconds: Double
    let residentBytes: Int
    let virtualBytes: Int
    let openDescriptors: Int
    let maxDescriptors: Int

    /// Looks now.
    init() {
        var usage = rusage()
        getrusage(__rusage_who_t(RUSAGE_SELF.rawValue), &usage)
        let microseconds = [usage.ru_utime, usage.ru_stime].reduce(0) { $0 + $1.tv_sec * 1_000_000 + $1.tv_usec }
        self.cpuSeconds = Double(microseconds) / 1e6
        // proc(5), /proc/pid/statm: pages, the size first and then what is resident.
        let pages = Self.words("/proc/self/statm").prefix(2).compactMap { Int($0) }
        let pageSize = max(sysconf(CInt(_SC_PAGESIZE)), 1)
        (self.virtualBytes, self.residentBytes) = pages.count == 2 ? (pages[0] * pageSize, pages[1] * pageSize) : (0, 0)
        // One of them is that of the directory itself.
        self.openDescriptors = max(((try? FileAccess.list("/proc/self/fd")) ?? []).count - 1, 0)
        var limit = rlimit()
        getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
        self.maxDescriptors = Int(clamping: limit.rlim_cur)
    }

    /// By the clock as it stands now, so call it once.
    static func processStart() -> Double {
        func read(_ clock: clockid_t) -> Double {
            var time = timespec()
            clock_gettime(clock, &time)
            return Double(time.tv_sec) + Double(time.tv_nsec) / 1e9
        }
        // proc(5), /proc/pid/stat: the 22nd word, in ticks since the machine booted. The second, the program's name,
        // may hold anything, but ends with the last parenthesis.
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
