internal import CUV
import Glibc

/// A program that runs with given arguments and input, and tells how it ended and what it wrote.
///
/// ## What the program gets
/// The arguments as they are, never a shell; the environment of its ``ChildCommand``; `/` as its working directory; a
/// pipe for each of standard input, output and error (unless it ``ChildCommand/isUsersOwn``), and no other descriptor; a session and process group of its own
/// (setsid(2)); every signal with its default effect and none blocked (uv_spawn resets them, else SIGPIPE would stay
/// ignored across execve(2)). Limits (RLIMIT_NOFILE), user and umask are ours.
///
/// ## The end
/// The outcome is known when the program has ended *and* nobody holds its standard output and error any more. On the
/// deadline, on too much output and on `cancel()` its whole process group is killed; what has left the group by a
/// setsid(2) of its own is only no longer listened to. What a program leaves running in the background with other
/// descriptors is left alone when it ends in order. A killed program may not exit at once (one in
/// uninterruptible I/O, or one that runs as another user), so code that limits the number of programs waits for
/// `whenGone`.
///
/// ## Lifetime
/// The process handle lives from `uv_spawn` to its close callback like every ``LoopHandle``, and is not closed before the process was reaped, even if the completion ran before: libuv waits only for processes
/// whose handle is open, others would stay zombies. So the loop runs on until a killed program is gone.
package final class ChildProcess: LoopHandle {
    private enum Phase {
        /// uv_spawn was not reached; there is no handle.
        case unborn
        /// Not reaped.
        case running
        /// Reaped; its output may still be open.
        case reaped(ChildOutcome.End)
        /// Reaped, and the handle is closing or closed.
        case over
    }

    private var raw: UnsafeMutablePointer<uv_process_t> { self.memory.assumingMemoryBound(to: uv_process_t.self) }
    private let maxOutput: Int
    private var phase = Phase.unborn
    private var completion: ((Result<ChildOutcome, ChildFailure>) -> Void)?
    private var whenGone: (() -> Void)?
    /// Told at the end of the turn.
    private var startFailure: UVError?
    private var timer: LoopTimer?
    private var pipes: [ChildPipe] = []
    /// Of standard output and error, those that have not ended.
    private var openOutputs = 2
    private var standardOutput: [UInt8] = []
    private var standardError: [UInt8] = []

    /// Runs `command`.
    ///
    /// - Parameters:
    ///   - completion: called once, unless it is cancelled, and never from inside this call.
    ///   - whenGone: called once, cancelled or not, when the program was reaped or could not be started; never from
    ///     inside this call or ``cancel()``.
    package static func run(
        loop: EventLoop, _ command: ChildCommand,
        completion: @escaping (Result<ChildOutcome, ChildFailure>) -> Void, whenGone: (() -> Void)? = nil
    ) -> ChildProcess {
        loop.assertOnLoop()
        let child = ChildProcess(
            loop: loop, maxOutput: command.maxOutput, completion: completion, whenGone: whenGone)
        do throws(UVError) { try child.start(command) } catch {
            child.startFailure = error
            loop.atTurnEnd(child)
        }
        return child
    }

    private init(
        loop: EventLoop, maxOutput: Int, completion: @escaping (Result<ChildOutcome, ChildFailure>) -> Void,
        whenGone: (() -> Void)?
    ) {
        self.maxOutput = maxOutput
        self.completion = completion
        self.whenGone = whenGone
        super.init(loop: loop, uv_process_t.self)
    }

    /// The program's process and group number, for logs and tests; nil before it started and after it was reaped.
    package var processID: Int32? {
        if case .running = self.phase { self.raw.pointee.pid } else { nil }
    }

    /// Kills the program; the completion will not be called.
    package func cancel() {
        self.loop.assertOnLoop()
        guard self.completion != nil else { return }
        self.completion = nil
        self.tearDown()
    }

    // MARK: - The start

    private func start(_ command: ChildCommand) throws(UVError) {
        guard command.isPassable else { throw .invalidArgument }
        var theirs: [CInt] = []
        // Ours belong to their pipes; the child has copies of its own.
        defer { for descriptor in theirs { Glibc.close(descriptor) } }
        do throws(UVError) {
            for oursReads in command.isUsersOwn ? [false] : [false, true, true] {
                let ends = try ChildPipe.make(oursReads: oursReads)
                theirs.append(oursReads ? ends.writing : ends.reading)
                self.pipes.append(
                    try ChildPipe(loop: self.loop, descriptor: oursReads ? ends.reading : ends.writing))
            }
            try check(cuv_close_all_on_exec())
            try self.spawn(command, command.isUsersOwn ? [theirs[0], STDERR_FILENO, STDERR_FILENO] : theirs)
        } catch {
            for pipe in self.pipes { pipe.close() }
            self.pipes = []
            throw error
        }
        if let timeout = command.timeout {
            let timer = LoopTimer(loop: self.loop) { [unowned self] in self.finish(.failure(.timedOut)) }
            timer.start(after: timeout)
            self.timer = timer
        }
        self.pipes[0].writeAndClose(command.input)
        guard !command.isUsersOwn else {
            self.openOutputs = 0
            return
        }
        self.pipes[1].read {
            self.append($0, to: \.standardOutput)
        } didEnd: {
            self.outputEnded()
        }
        self.pipes[2].read {
            self.append($0, to: \.standardError)
        } didEnd: {
            self.outputEnded()
        }
    }

    private func spawn(_ command: ChildCommand, _ descriptors: [CInt]) throws(UVError) {
        let ours = Self.environment.filter {
            command.isUsersOwn ? !ChildCommand.secrets.contains($0.key) : ChildCommand.inherited.contains($0.key)
        }
        let environment = ours.merging(command.environment) { $1 }
        var stdio = descriptors.map { descriptor in
            var container = uv_stdio_container_t()
            container.flags = UV_INHERIT_FD
            container.data.fd = descriptor
            return container
        }
        var options = uv_process_options_t()
        options.exit_cb = onExit
        options.flags = UInt32(UV_PROCESS_DETACHED.rawValue)
        let directory: String? = command.isUsersOwn ? nil : "/"
        options.stdio_count = CInt(stdio.count)
        let code = withStrings(command.arguments) { arguments in
            withStrings(environment.map { "\($0)=\($1)" }) { variables in
                withOptionalString(directory) { directory in
                    stdio.withUnsafeMutableBufferPointer { stdio in
                        options.file = UnsafePointer(arguments[0])
                        options.args = arguments
                        options.env = variables
                        options.cwd = directory
                        options.stdio = stdio.baseAddress
                        return uv_spawn(self.loop.raw, self.raw, &options)
                    }
                }
            }
        }
        // The handle is initialised whatever uv_spawn says, and must be closed.
        self.opened()
        self.phase = .running
        guard code != 0 else {
            self.loop.children.insert(self.raw.pointee.pid)
            return
        }
        self.bury()
        throw UVError(code: code)
    }

    /// environ(7)
    private static var environment: [String: String] {
        var result: [String: String] = [:]
        var next = environ
        while let entry = next.pointee {
            let text = String(cString: entry)
            if let equals = text.firstIndex(of: "=") {
                result[String(text[..<equals])] = String(text[text.index(after: equals)...])
            }
            next = next.advanced(by: 1)
        }
        return result
    }

    // MARK: - Events

    private func append(_ bytes: UnsafeRawBufferPointer, to output: ReferenceWritableKeyPath<ChildProcess, [UInt8]>) {
        guard self[keyPath: output].count + bytes.count <= self.maxOutput else {
            return self.finish(.failure(.tooMuchOutput))
        }
        self[keyPath: output] += bytes
    }

    private func outputEnded() {
        self.openOutputs -= 1
        self.finishIfOver()
    }

    fileprivate func exited(_ status: Int64, _ signal: CInt) {
        self.loop.children.remove(self.raw.pointee.pid)
        self.phase = .reaped(signal == 0 ? .exited(code: Int(status)) : .signalled(number: Int(signal)))
        if self.completion == nil { self.bury() } else { self.finishIfOver() }
    }

    private func finishIfOver() {
        guard case .reaped(let end) = self.phase, self.openOutputs == 0 else { return }
        self.finish(
            .success(
                ChildOutcome(end: end, standardOutput: self.standardOutput, standardError: self.standardError)))
    }

    private func finish(_ result: Result<ChildOutcome, ChildFailure>) {
        guard let completion = self.completion else { return }
        self.completion = nil
        self.tearDown()
        completion(result)
    }

    // MARK: - The end

    /// Closes everything, and kills what still runs or holds our pipes.
    private func tearDown() {
        self.timer?.close()
        self.timer = nil
        for pipe in self.pipes { pipe.close() }
        self.pipes = []
        switch self.phase {
        case .running: self.killGroup()
        case .reaped:
            // The group's number is free for others once its last process is gone. Somebody holds our pipes, so most
            // likely it is not; and numbers are given out in turn, so it would not come back within a deadline.
            if self.openOutputs > 0 { self.killGroup() }
            self.bury()
        case .unborn, .over: break
        }
    }

    /// uv_spawn returns when the program was executed, so it has left our group before (setsid(2)), and the leader of
    /// a session cannot leave its group.
    private func killGroup() {
        let group = self.raw.pointee.pid
        guard group > 1 else { return }
        // ESRCH: it is gone already. EPERM: it has become another user, and its pipes are closed at least.
        kill(-group, SIGKILL)
    }

    private func bury() {
        self.phase = .over
        self.closeHandle()
    }

    override func didClose() {
        // Of a program that could not be started, that comes first.
        if self.startFailure == nil { self.isGone() }
    }

    private func isGone() {
        let whenGone = self.whenGone
        self.whenGone = nil
        whenGone?()
    }
}

extension ChildProcess: TurnEndHandler {
    package func turnDidEnd() {
        guard let error = self.startFailure else { return }
        self.startFailure = nil
        self.finish(.failure(.cannotStart(error)))
        self.isGone()
    }
}

/// Calls `body` with `strings` as execve(2) wants them: C strings, and a null pointer behind the last.
private func withStrings<R>(
    _ strings: [String], _ body: (UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>) -> R
) -> R {
    let array = UnsafeMutableBufferPointer<UnsafeMutablePointer<CChar>?>.allocate(capacity: strings.count + 1)
    array.initialize(repeating: nil)
    for (index, string) in strings.enumerated() { array[index] = strdup(string) }
    defer {
        for string in array { free(string) }
        array.deallocate()
    }
    guard let base = array.baseAddress else { preconditionFailure("an allocation has an address") }
    return body(base)
}

private func withOptionalString<R>(_ string: String?, _ body: (UnsafePointer<CChar>?) -> R) -> R {
    guard let string else { return body(nil) }
    return string.withCString { body($0) }
}

private let onExit: uv_exit_cb = { process, status, signal in
    borrow(process?.pointee.data) { (child: ChildProcess) in child.exited(status, signal) }
}
