import Foundation
import Reactor
import Testing

/// A FIFO that programs hold open. It shows when they have started and when the last of them has ended.
private final class Witness {
    let path: String
    private let descriptor: CInt

    init() throws {
        self.path = NSTemporaryDirectory() + "/diglett-\(UUID().uuidString)"
        try #require(mkfifo(self.path, 0o600) == 0)
        self.descriptor = open(self.path, O_RDONLY | O_NONBLOCK | O_CLOEXEC)
        try #require(self.descriptor >= 0)
    }

    deinit {
        Glibc.close(self.descriptor)
        unlink(self.path)
    }

    /// Waits until a program writes a byte. Returns false after ten seconds.
    func awaitByte() -> Bool { self.read() == 1 }

    /// Waits until all programs that had it open are gone. Returns false after ten seconds.
    func awaitEnd() -> Bool { self.read() == 0 }

    private func read() -> Int {
        var request = pollfd(fd: self.descriptor, events: Int16(POLLIN), revents: 0)
        guard poll(&request, 1, 10_000) == 1 else { return -1 }
        var byte: UInt8 = 0
        return Glibc.read(self.descriptor, &byte, 1)
    }
}

private func isGone(_ process: pid_t) -> Bool {
    // It was reaped: it is no longer our child, and the process does not exist. Other processes of its group may be
    // orphans, which init reaps.
    waitpid(process, nil, WNOHANG) == -1 && errno == ECHILD && kill(process, 0) == -1 && errno == ESRCH
}

private func shell(_ script: String, input: [UInt8] = [], timeout: UInt64 = 20_000, _ more: String...) -> ChildCommand {
    ChildCommand(arguments: ["/bin/sh", "-c", script, "sh"] + more, input: input, timeout: timeout)
}

private func text(_ bytes: [UInt8]) -> String { String(decoding: bytes, as: UTF8.self) }

/// Runs one program to its end on a new loop, and checks that no process or handle is left.
private func run(_ command: ChildCommand) throws -> Result<ChildOutcome, ChildFailure> {
    var results: [Result<ChildOutcome, ChildFailure>] = []
    try withLoop { loop in
        var ends = 0
        let child = ChildProcess.run(loop: loop, command, completion: { results.append($0) }, whenGone: { ends += 1 })
        #expect(results.isEmpty && ends == 0)
        let process = child.processID
        loop.run()
        #expect(ends == 1)
        #expect(loop.census().isEmpty)
        if let process { #expect(isGone(process)) }
    }
    try #require(results.count == 1)
    return results[0]
}

extension ReactorTests {
    @Suite("Child processes")
    struct ChildProcessTests {
        @Test(
            "standard input is echoed, even more than a pipe holds", arguments: [0, 1, 1_000_000])
        func echo(_ count: Int) throws {
            let input = (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 31 &+ $0 >> 8) }
            let command = ChildCommand(arguments: ["cat"], input: input, timeout: 20_000, maxOutput: count)
            let outcome = try run(command).get()
            #expect(outcome.end == .exited(code: 0))
            #expect(outcome.standardOutput == input)
            #expect(outcome.standardError.isEmpty)
        }

        @Test("exit codes are reported, and the two outputs are kept apart", arguments: [0, 1, 127, 255])
        func codes(_ code: Int) throws {
            let outcome = try run(shell("echo out; echo err >&2; exit \(code)")).get()
            #expect(outcome.end == .exited(code: code))
            #expect(text(outcome.standardOutput) == "out\n")
            #expect(text(outcome.standardError) == "err\n")
        }

        @Test("the signal that ended a program is reported", arguments: [SIGTERM, SIGKILL, SIGPIPE, SIGSEGV])
        func signals(_ number: CInt) throws {
            let outcome = try run(shell("kill -\(number) $$; exit 3")).get()
            #expect(outcome.end == .signalled(number: Int(number)))
        }

        @Test(
            "a program that cannot be started fails with the reason, at the end of the turn",
            arguments: zip(
                [
                    ["/nonexistent/program"], ["diglett-has-no-such-program"], ["/usr"], ["/etc/passwd"], [], [""],
                    ["/bin/echo", "a\0b"],
                ],
                [
                    UVError.noSuchFile, .noSuchFile, .permissionDenied, .permissionDenied, .invalidArgument,
                    .invalidArgument, .invalidArgument,
                ]))
        func cannotStart(_ arguments: [String], _ error: UVError) throws {
            let result = try run(ChildCommand(arguments: arguments, timeout: 20_000))
            #expect(result == .failure(.cannotStart(error)))
        }

        @Test("an environment variable that execve cannot pass is refused", arguments: ["", "A=B", "A\0"])
        func badVariable(_ name: String) throws {
            let command = ChildCommand(arguments: ["/bin/true"], environment: [name: "x"], timeout: 20_000)
            #expect(try run(command) == .failure(.cannotStart(.invalidArgument)))
        }

        @Test("arguments are passed unchanged")
        func arguments() throws {
            let odd = ["$HOME", "a b", "", "*", "`id`", "\"'", "ü"]
            let outcome = try run(
                ChildCommand(arguments: ["/usr/bin/printf", "%s|"] + odd, timeout: 20_000)
            ).get()
            #expect(text(outcome.standardOutput) == odd.map { $0 + "|" }.joined())
        }

        @Test("the output limit is exact, and a program that exceeds it is killed", arguments: ["", " >&2"])
        func flood(_ target: String) throws {
            var command = shell("head -c 100000 /dev/zero\(target)")
            command.maxOutput = 100_000
            let outcome = try run(command).get()
            #expect(outcome.standardOutput.count + outcome.standardError.count == 100_000)
            command.maxOutput = 99_999
            #expect(try run(command) == .failure(.tooMuchOutput))
            let witness = try Witness()
            let endless = shell("exec 9>\"$1\"; cat /dev/zero\(target)", witness.path)
            #expect(try run(endless) == .failure(.tooMuchOutput))
            #expect(witness.awaitEnd())
        }

        @Test("a program that exceeds its timeout is killed with its whole process group, even if stopped")
        func hang() throws {
            for script in ["sleep 1000", "sleep 1000 & wait", "trap '' TERM INT HUP; sleep 1000", "kill -STOP $$"] {
                let witness = try Witness()
                let command = shell("exec 9>\"$1\"; printf x >&9; \(script)", timeout: 100, witness.path)
                #expect(try run(command) == .failure(.timedOut))
                #expect(witness.awaitByte())
                #expect(witness.awaitEnd())
            }
        }

        @Test("a run lasts until a grandchild closes the output, or is killed at the timeout")
        func grandchild() throws {
            let patient = try run(
                shell("exec 8<&0; (read line; echo late $line) <&8 & exit 4", input: Array("x\n".utf8))
            ).get()
            #expect(patient.end == .exited(code: 4))
            #expect(text(patient.standardOutput) == "late x\n")
            let witness = try Witness()
            let command = shell("exec 9>\"$1\"; printf x >&9; sleep 1000 & exit 0", timeout: 100, witness.path)
            #expect(try run(command) == .failure(.timedOut))
            #expect(witness.awaitByte())
            #expect(witness.awaitEnd())
        }

        @Test("a grandchild that left the process group cannot extend the timeout")
        func daemon() throws {
            let witness = try Witness()
            // Nothing kills this process. It ends when it writes to a pipe without a reader.
            let escape = "setsid sh -c 'printf x >&9; while sleep 0.02; do echo x; done' & exit 0"
            let command = shell("exec 9>\"$1\"; \(escape)", timeout: 200, witness.path)
            #expect(try run(command) == .failure(.timedOut))
            #expect(witness.awaitByte())
            #expect(witness.awaitEnd())
        }

        @Test("a background process without our pipes is left running")
        func background() throws {
            let witness = try Witness()
            let script = "exec 9>\"$1\"; (printf x >&9; exec sleep 1000) </dev/null >/dev/null 2>&1 & echo $!"
            let outcome = try run(shell(script, witness.path)).get()
            let process = try #require(pid_t(text(outcome.standardOutput).dropLast()))
            #expect(witness.awaitByte())
            #expect(kill(process, SIGKILL) == 0)
            #expect(witness.awaitEnd())
        }

        @Test("a program may close its standard input without reading it")
        func closedInput() throws {
            let input = [UInt8](repeating: 1, count: 1_000_000)
            for script in ["exec <&-; echo fine", "head -c 1 >/dev/null; echo fine", "echo fine"] {
                let outcome = try run(shell(script, input: input)).get()
                #expect(outcome.end == .exited(code: 0))
                #expect(text(outcome.standardOutput) == "fine\n")
            }
        }

        @Test("64 programs run at once, each with its own input and output")
        func many() throws {
            try withLoop { loop in
                var answers: [Int: Result<ChildOutcome, ChildFailure>] = [:]
                var processes: [pid_t] = []
                for index in 0..<64 {
                    let input = [UInt8](repeating: UInt8(index), count: 100_000)
                    let command = shell("cat; exit \(index)", input: input)
                    var wide = command
                    wide.maxOutput = 100_000
                    let child = ChildProcess.run(loop: loop, wide) { answers[index] = $0 }
                    processes.append(try #require(child.processID))
                }
                loop.run()
                for index in 0..<64 {
                    let outcome = try #require(answers[index]).get()
                    #expect(outcome.end == .exited(code: index))
                    #expect(Bool(outcome.standardOutput == [UInt8](repeating: UInt8(index), count: 100_000)))
                }
                for process in processes { #expect(isGone(process)) }
            }
        }

        @Test("start in /, in their own session, with pipes that can be opened by name")
        func surroundings() throws {
            let outcome = try run(
                shell("pwd; echo named >/dev/stdout; echo named >/dev/stderr; ps -o pid=,pgid=,sid= -p $$; echo $$")
            ).get()
            let lines = text(outcome.standardOutput).split(separator: "\n").map(String.init)
            try #require(lines.count == 4)
            #expect(lines[0] == "/")
            #expect(lines[1] == "named")
            #expect(Set(lines[2].split(separator: " ").map(String.init)) == [lines[3]])
            #expect(text(outcome.standardError) == "named\n")
        }

        @Test("inherit PATH, HOME, LANG and TZ, get the given variables, and no others")
        func environment() throws {
            setenv("DIGLETT_TEST_SECRET", "s", 1)
            defer { unsetenv("DIGLETT_TEST_SECRET") }
            let given = ["GREETING": "a=b c\nd", "HOME": "/elsewhere"]
            let command = ChildCommand(arguments: ["env", "-0"], environment: given, timeout: 20_000)
            let outcome = try run(command).get()
            var expected = given
            for name in ["PATH", "LANG", "TZ"] { expected[name] = ProcessInfo.processInfo.environment[name] }
            let variables = outcome.standardOutput.split(separator: 0).map { text(Array($0)) }
            #expect(variables.sorted() == expected.map { "\($0)=\($1)" }.sorted())
        }

        @Test("of the user inherit the environment without the token and the directory, and have no timeout")
        func usersOwn() throws {
            setenv("DIGLETT_TOKEN", "secret", 1)
            setenv("DIGLETT_TEST", "kept", 1)
            defer {
                unsetenv("DIGLETT_TOKEN")
                unsetenv("DIGLETT_TEST")
            }
            var command = shell(
                "test \"$DIGLETT_TEST/$DIGLETT_TOKEN/$GIVEN\" = kept//x && test \"$PWD\" = \"$HERE\" && ! read line")
            command.timeout = nil
            command.isUsersOwn = true
            command.environment = ["GIVEN": "x", "HERE": FileManager.default.currentDirectoryPath]
            let outcome = try run(command).get()
            #expect(outcome.end == .exited(code: 0))
            #expect(outcome.standardOutput.isEmpty && outcome.standardError.isEmpty)
        }

        @Test("inherit no descriptor, not even one without close-on-exec")
        func descriptors() throws {
            let leaky = dup(0)
            defer { Glibc.close(leaky) }
            #expect(fcntl(leaky, F_GETFD) == 0)
            // Compare only descriptors that are open now. Other tests open more at the same time, which a program
            // with one loop does not.
            let directory = "/proc/self/fd"
            var ours: Set<String> = []
            for number in try FileManager.default.contentsOfDirectory(atPath: directory) {
                let target = try? FileManager.default.destinationOfSymbolicLink(atPath: "\(directory)/\(number)")
                if let target { ours.insert("\(number) -> \(target)") }
            }
            #expect(ours.contains { $0.hasPrefix("\(leaky) -> ") })
            let outcome = try run(ChildCommand(arguments: ["ls", "-l", directory], timeout: 20_000)).get()
            let theirs = text(outcome.standardOutput).split(separator: "\n").dropFirst().map {
                $0.split(separator: " ").suffix(3).joined(separator: " ")
            }
            for number in 0...2 { #expect(theirs.contains { $0.hasPrefix("\(number) -> pipe:") }) }
            #expect(ours.isDisjoint(with: theirs))
        }

        @Test("start with no signal ignored or blocked")
        func dispositions() throws {
            let outcome = try run(ChildCommand(arguments: ["cat", "/proc/self/status"], timeout: 20_000)).get()
            // Signals 32 and 33 belong to the C library (nptl(7)). The program that started the tests may ignore
            // them.
            let ofLibrary: UInt64 = 3 << 31
            var masks: [String: UInt64] = [:]
            for line in text(outcome.standardOutput).split(separator: "\n") {
                let fields = line.split(separator: ":\t")
                if fields.count == 2 { masks[String(fields[0])] = UInt64(fields[1], radix: 16).map { $0 & ~ofLibrary } }
            }
            #expect(masks["SigIgn"] == 0)
            #expect(masks["SigBlk"] == 0)
        }

        @Test("can be cancelled at once, before a failure is reported, while running, and after the end")
        func cancel() throws {
            try withLoop { loop in
                func mustNotEnd(_ result: Result<ChildOutcome, ChildFailure>) { Issue.record("told: \(result)") }
                var ends = 0
                for program in ["/nonexistent", "a\0"] {
                    let never = ChildProcess.run(
                        loop: loop, ChildCommand(arguments: [program], timeout: 20_000), completion: mustNotEnd,
                        whenGone: { ends += 1 })
                    never.cancel()
                    never.cancel()
                }
                #expect(ends == 0)

                let witness = try Witness()
                let script = "exec 9>\"$1\"; printf x >&9; "
                let early = ChildProcess.run(loop: loop, shell("sleep 1000"), completion: mustNotEnd)
                var isRunningGone = false
                let running = ChildProcess.run(
                    loop: loop, shell(script + "exec sleep 1000", witness.path), completion: mustNotEnd,
                    whenGone: { isRunningGone = true })
                let processes = [early.processID, running.processID].compactMap { $0 }
                #expect(processes.count == 2)
                early.cancel()
                #expect(witness.awaitByte())
                running.cancel()
                running.cancel()
                #expect(!isRunningGone && running.processID != nil)
                loop.run()
                #expect(isRunningGone && ends == 2)
                for process in processes { #expect(isGone(process)) }
                #expect(witness.awaitEnd())

                let other = try Witness()
                let command = shell("exec 9>\"$1\"; printf x >&9; sleep 1000 & exit 0", other.path)
                let reaped = ChildProcess.run(loop: loop, command, completion: mustNotEnd)
                #expect(loop.run { reaped.processID == nil })
                #expect(other.awaitByte())
                reaped.cancel()
                #expect(other.awaitEnd())
                loop.run()

                var count = 0
                var last: ChildProcess?
                last = ChildProcess.run(loop: loop, shell("exit 0")) { _ in
                    count += 1
                    last?.cancel()
                }
                loop.run()
                last?.cancel()
                #expect(count == 1)
            }
        }

        @Test("can be cancelled while they read and write large amounts of data")
        func cancelFlood() throws {
            try withLoop { loop in
                var command = shell("cat", input: [UInt8](repeating: 0, count: 4_000_000))
                command.maxOutput = 4_000_000
                let child = ChildProcess.run(loop: loop, command) { Issue.record("told: \($0)") }
                let process = try #require(child.processID)
                var turns = 0
                let ticker = LoopTimer(loop: loop) { turns += 1 }
                ticker.start(after: 1, repeating: 1)
                #expect(loop.run { turns >= 3 })
                child.cancel()
                ticker.close()
                loop.run()
                #expect(isGone(process))
            }
        }

        @Test("signals for this process still arrive while children end")
        func signalSource() throws {
            try withLoop { loop in
                var hangUps = 0
                var ended = 0
                let source = try SignalSource(loop: loop, .hangUp) { hangUps += 1 }
                // Only one child sends the signal, and the test waits for it. A signal after the source is closed
                // would end this process.
                for script in ["kill -HUP $PPID"] + Array(repeating: "exit 0", count: 7) {
                    _ = ChildProcess.run(loop: loop, shell(script)) { _ in ended += 1 }
                }
                #expect(loop.run { ended == 8 && hangUps == 1 })
                source.close()
            }
        }
    }
}
