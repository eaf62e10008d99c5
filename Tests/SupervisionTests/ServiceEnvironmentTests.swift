import Supervision
import Testing

private let ownProcess: Int32 = 4_711

/// The longest path that fits in a sun_path with its terminating zero.
private let longestPath = "/" + String(repeating: "a", count: 106)

private func read(_ variables: [String: String]) -> ServiceEnvironment {
    ServiceEnvironment(variables, processID: ownProcess)
}

@Suite("The environment of a service manager")
struct ServiceEnvironmentTests {
    @Test(
        "NOTIFY_SOCKET is a path or an abstract name",
        arguments: [
            ("/run/systemd/notify", "/run/systemd/notify"), ("@notify/1", "\0notify/1"), (longestPath, longestPath),
        ])
    func notifySocket(_ text: String, _ address: String) {
        let environment = read(["NOTIFY_SOCKET": text])
        #expect(environment.notifyAddress == Array(address.utf8))
        #expect(environment.problems.isEmpty)
    }

    @Test(
        "any other NOTIFY_SOCKET is reported as a problem and otherwise ignored",
        arguments: ["relative", "vsock:2:1234", "@", "/", longestPath + "a"])
    func badNotifySocket(_ text: String) {
        let environment = read(["NOTIFY_SOCKET": text])
        #expect(environment.notifyAddress == nil)
        #expect(environment.problems.count == 1)
    }

    @Test("unset and empty variables are ignored")
    func nothing() {
        #expect(read([:]) == ServiceEnvironment(processID: 1))
        let empty = ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_PID", "LISTEN_FDS", "FDSTORE"]
        #expect(read(Dictionary(uniqueKeysWithValues: empty.map { ($0, "") })) == ServiceEnvironment(processID: 1))
    }

    @Test(
        "the watchdog's time is used if it is a number and meant for this process",
        arguments: [
            (["WATCHDOG_USEC": "30000000"], 30_000_000, 0),
            (["WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "4711"], 30_000_000, 0),
            (["WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "4712"], nil, 0),
            (["WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "me"], nil, 1),
            (["WATCHDOG_USEC": "0"], nil, 1),
            (["WATCHDOG_USEC": "-5"], nil, 1),
            (["WATCHDOG_USEC": "+5"], nil, 1),
            (["WATCHDOG_USEC": "30s"], nil, 1),
            (["WATCHDOG_USEC": "99999999999999999999999"], nil, 1),
            (["WATCHDOG_PID": "4711"], nil, 0),
        ] as [([String: String], UInt64?, Int)])
    func watchdog(_ variables: [String: String], _ microseconds: UInt64?, _ problems: Int) {
        let environment = read(variables)
        #expect(environment.watchdogMicroseconds == microseconds)
        #expect(environment.problems.count == problems)
    }

    @Test(
        "sockets have the names in LISTEN_FDNAMES",
        arguments: [
            (
                ["LISTEN_PID": "4711", "LISTEN_FDS": "2", "LISTEN_FDNAMES": "agents:agents-v1"],
                ["agents", "agents-v1"]
            ),
            (["LISTEN_PID": "4711", "LISTEN_FDS": "2", "LISTEN_FDNAMES": "a:"], ["a", "unknown"]),
            (["LISTEN_PID": "4711", "LISTEN_FDS": "2"], ["unknown", "unknown"]),
            (["LISTEN_PID": "4711", "LISTEN_FDS": "0"], []),
            (["LISTEN_PID": "4711", "LISTEN_FDS": "0", "LISTEN_FDNAMES": ""], []),
            (["LISTEN_PID": "4712", "LISTEN_FDS": "1", "LISTEN_FDNAMES": "agents"], []),
            (["LISTEN_PID": "4711", "LISTEN_FDNAMES": "agents"], []),
        ] as [([String: String], [String])])
    func sockets(_ variables: [String: String], _ names: [String]) {
        let environment = read(variables)
        #expect(environment.socketNames == names)
        #expect(environment.problems.isEmpty)
    }

    @Test(
        "invalid socket variables are a problem, and never give a socket another socket's name",
        arguments: [
            (["LISTEN_FDS": "1"], []),
            (["LISTEN_PID": "self", "LISTEN_FDS": "1"], []),
            (["LISTEN_PID": "4711", "LISTEN_FDS": "-1"], []),
            (["LISTEN_PID": "4711", "LISTEN_FDS": "one"], []),
            (["LISTEN_PID": "4711", "LISTEN_FDS": "\(ServiceEnvironment.maxSockets + 1)"], []),
            (["LISTEN_PID": "4711", "LISTEN_FDS": "2", "LISTEN_FDNAMES": "agents"], ["unknown", "unknown"]),
            (["LISTEN_PID": "4711", "LISTEN_FDS": "1", "LISTEN_FDNAMES": "agents:web"], ["unknown"]),
        ] as [([String: String], [String])])
    func badSockets(_ variables: [String: String], _ names: [String]) {
        let environment = read(variables)
        #expect(environment.socketNames == names)
        #expect(environment.problems.count == 1)
    }

    @Test("the size of the store is a number or unknown", arguments: [("512", 512, 0), ("many", nil, 1)])
    func store(_ text: String, _ size: Int?, _ problems: Int) {
        let environment = read(["FDSTORE": text])
        #expect(environment.storeSize == size)
        #expect(environment.problems.count == problems)
    }
}

@Suite("Messages to a service manager")
struct ServiceMessageTests {
    @Test("have the text that sd_notify(3) requires")
    func texts() {
        #expect(ServiceMessage.ready.text == "READY=1")
        #expect(ServiceMessage.stopping.text == "STOPPING=1")
        #expect(ServiceMessage.watchdog.text == "WATCHDOG=1")
        #expect(ServiceMessage.reloading(at: 17).text == "RELOADING=1\nMONOTONIC_USEC=17")
        #expect(ServiceMessage.extendTimeout(milliseconds: 15_000).text == "EXTEND_TIMEOUT_USEC=15000000")
        #expect((.ready + .status("2 agents")).text == "READY=1\nSTATUS=2 agents")
        #expect(ServiceMessage.store("expose-web")?.text == "FDSTORE=1\nFDNAME=expose-web")
        #expect(ServiceMessage.removeStored("expose-web")?.text == "FDSTOREREMOVE=1\nFDNAME=expose-web")
    }

    @Test("a status is one line of bounded length")
    func status() {
        #expect(ServiceMessage.status("a\nFDSTORE=1\r\u{7F}b").text == "STATUS=a FDSTORE=1  b")
        #expect(ServiceMessage.status(String(repeating: "ä", count: 1_000)).text.unicodeScalars.count == 7 + 256)
    }

    @Test(
        "a stored socket's name is printable ASCII without a colon",
        arguments: [
            ("web", true), ("a b~", true), (String(repeating: "a", count: 255), true), ("", false), ("a:b", false),
            ("a\nb", false), ("\u{7F}", false), ("wäb", false), (String(repeating: "a", count: 256), false),
        ])
    func names(_ name: String, _ isValid: Bool) {
        #expect((ServiceMessage.store(name) != nil) == isValid)
        #expect((ServiceMessage.removeStored(name) != nil) == isValid)
    }

    @Test(
        "the watchdog is fed three times per interval",
        arguments: [(30_000_000, 10_000), (3_000, 1), (1, 1), (UInt64.max, UInt64.max / 3_000)] as [(UInt64, UInt64)])
    func pause(_ microseconds: UInt64, _ milliseconds: UInt64) {
        #expect(Watchdog.pause(microseconds: microseconds) == milliseconds)
    }
}
