internal import CUV
import Glibc

/// Runs a program with the given arguments and input, and reports how it ended and what it wrote.
///
/// ## What the program gets
/// - Its arguments as they are, without a shell, and the environment of its ``ChildCommand``.
/// - `/` as its working directory, and pipes for standard input, output and error. With ``ChildCommand/isUsersOwn`` it
///   gets our working directory, only standard input is a pipe, and its output goes to our standard error.
/// - No other descriptors.
/// - Its own session and process group (setsid(2)).
/// - Default signal actions, and no blocked signals. uv_spawn resets them; otherwise SIGPIPE would stay ignored across
///   execve(2).
/// - Our resource limits (RLIMIT_NOFILE), user and umask.
///
/// ## The end
/// The outcome is known when the program has exited *and* no process holds its standard output and error open. On
/// timeout, on too much output and on ``cancel()`` its whole process group is killed. Processes that have left the
/// group with setsid(2) survive, but their output is no longer read. If the program exits normally, background
/// processes that do not hold these descriptors are left alone. A killed program may not exit at once, for example in
/// uninterruptible I/O or if it runs as another user. Code that limits the number of programs must therefore wait for
/// `whenGone`.
///
/// ## Lifetime
/// The process handle lives from `uv_spawn` to its close callback, like every ``LoopHandle``. It is not closed until
/// the process has been reaped, even if the completion has already run: libuv reaps only processes with open handles,
/// and others would stay zombies. The loop therefore keeps running until a killed program is gone.
package final class ChildProcess: LoopHandle {
    private enum Phase {
        /// uv_spawn was not called yet, so no handle exists.
        case unborn
        /// Started and not yet reaped.
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
    /// Reported at the end of the turn.
    private var startFailure: UVError?
    private var timer: LoopTimer?
    private var pipes: [ChildPipe] = []
    /// How many of standard output and standard error have not ended yet.
    private var openOutputs = 2
    private var standardOutput: [UInt8] = []
    private var standardError: [UInt8] = []

    /// Starts `command`.
    ///
    /// - Parameters:
    ///   - completion: called once unless cancelled, never from inside this call.
    ///   - whenGone: called once, even after ``cancel()``, when the program has been reaped or could not be started.
    ///     Never called from inside this call or ``cancel()``.
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

    /// The program's process and group ID, for logs and tests; nil before the start and after reaping.
    package var processID: Int32? {
        if case .running = self.phase { self.raw.pointee.pid } else { nil }
    }

    /// Kills the program. The completion will not be called, but `whenGone` will.
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
        // Close the child's ends: the child has its own copies. Our ends belong to the `ChildPipe`s.
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
        // Even if uv_spawn fails, the handle is initialised and must be closed.
        self.opened()
        self.phase = .running
        guard code != 0 else {
            self.loop.children.insert(self.raw.pointee.pid)
            return
        }
        self.bury()
        throw UVError(code: code)
    }

    /// The environment of this process (environ(7)).
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

    /// Closes the timer and the pipes, and kills the process group if the program still runs or a process holds our
    /// pipes.
    private func tearDown() {
        self.timer?.close()
        self.timer = nil
        for pipe in self.pipes { pipe.close() }
        self.pipes = []
        switch self.phase {
        case .running: self.killGroup()
        case .reaped:
            // A group ID can be reused once the group's last process is gone. Here a process still holds our pipes, so
            // the group most likely exists. IDs are assigned in sequence, so a free one would not be reused this soon.
            if self.openOutputs > 0 { self.killGroup() }
            self.bury()
        case .unborn, .over: break
        }
    }

    /// Never hits our own group: uv_spawn returns after execve(2), so the program has already called setsid(2), and a
    /// session leader cannot leave its group.
    private func killGroup() {
        let group = self.raw.pointee.pid
        guard group > 1 else { return }
        // Ignore ESRCH: the group is already gone. Ignore EPERM: the program changed its user; at least its pipes are
        // closed.
        kill(-group, SIGKILL)
    }

    private func bury() {
        self.phase = .over
        self.closeHandle()
    }

    override func didClose() {
        // If the program could not be started, `turnDidEnd` reports the failure first.
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

/// Calls `body` with `strings` in the form that execve(2) requires: an array of C strings, ended by a null pointer.
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
