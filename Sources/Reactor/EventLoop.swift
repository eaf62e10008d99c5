internal import CUV
import Glibc

/// Runs at the end of a turn, before the loop waits again, for example to send everything the turn has collected in one
/// write.
package protocol TurnEndHandler: AnyObject {
    func turnDidEnd()
}

/// libuv's event loop, one per thread.
///
/// ## Turns
/// A turn is everything between two waits for the kernel: the callbacks of timers and sockets, then the handlers that
/// were registered with ``atTurnEnd(_:)``.
///
/// ## Lifetimes
/// A handle (listener, stream, timer, ...) keeps itself alive from its initialiser to its close callback, and traps in
/// `deinit` if it was not closed. To make leaks visible, ``close()`` traps with a census of the handles that are still
/// open.
///
/// ## Isolation
/// A loop and its handles belong to the thread that created them and are not `Sendable`. Other threads post messages to
/// a ``Mailbox``.
package final class EventLoop {
    let raw: UnsafeMutablePointer<uv_loop_t>
    /// The read buffer shared by all sockets of this loop, so that reads do not allocate. Reads happen one after the
    /// other, and receivers use or copy the bytes before they return.
    let readBuffer: UnsafeMutableRawBufferPointer
    let chunks = ChunkPool()
    private let prepare: UnsafeMutablePointer<uv_prepare_t>
    private var turnEnd: [any TurnEndHandler] = []
    /// The number of the current turn. Sockets use it to read only once per turn.
    package private(set) var turn: UInt64 = 0
    private var isClosed = false
    private var isStopped = false
    /// Resolves host names.
    package private(set) lazy var names = NameCache(loop: self)
    /// Number of name resolutions on the thread pool. Once running they cannot be cancelled (uv_cancel, UV_EBUSY).
    var resolutionCount = 0
    /// Process IDs of programs that were started and not yet reaped.
    var children: Set<Int32> = []
    private let thread = pthread_self()

    /// Maximum number of bytes per read: large enough to make the cost of the system call negligible, small enough to
    /// stay in a core's L2 cache.
    package static let readBufferSize = 256 * 1024

    package init() throws(UVError) {
        self.raw = .allocate(capacity: 1)
        do throws(UVError) { try check(uv_loop_init(self.raw)) } catch {
            self.raw.deallocate()
            throw error
        }
        self.readBuffer = .allocate(byteCount: Self.readBufferSize, alignment: 64)
        self.prepare = .allocate(capacity: 1)
        // These cannot fail on an initialised loop: libuv documents no errors for them.
        uv_prepare_init(self.raw, self.prepare)
        self.prepare.pointee.data = Unmanaged.passUnretained(self).toOpaque()
        uv_prepare_start(self.prepare, onPrepare)
        uv_unref(cuv_handle(self.prepare))
        // libuv writes with write(2). Without this, writing to a closed connection would kill the process.
        signal(SIGPIPE, SIG_IGN)
    }

    deinit {
        precondition(self.isClosed, "an event loop was dropped before close()")
        // A running name resolution will still write to the loop's memory, so leak it.
        guard self.resolutionCount == 0 else { return }
        self.prepare.deallocate()
        self.readBuffer.deallocate()
        self.raw.deallocate()
    }

    /// The monotonic clock in milliseconds, read at the start of this turn.
    package var now: UInt64 { uv_now(self.raw) }

    /// The same clock in nanoseconds, read at the time of the call.
    package static var nanoseconds: UInt64 { uv_hrtime() }

    /// Milliseconds that the machine has been suspended since boot: CLOCK_BOOTTIME minus CLOCK_MONOTONIC.
    package static var suspendedMilliseconds: Int64 {
        func read(_ clock: clockid_t) -> Int64 {
            var time = timespec()
            clock_gettime(clock, &time)
            return Int64(time.tv_sec) * 1_000 + Int64(time.tv_nsec) / 1_000_000
        }
        return read(CLOCK_BOOTTIME) - read(CLOCK_MONOTONIC)
    }

    /// Runs until no handle keeps the loop alive, or until ``stop()``.
    package func run() {
        self.assertOnLoop()
        self.isStopped = false
        while true {
            uv_run(self.raw, UV_RUN_DEFAULT)
            // Turn-end handlers may be left over from the callback that closed the last handle.
            guard !self.turnEnd.isEmpty, !self.isStopped else { return }
            self.endTurn()
        }
    }

    /// Runs turn by turn until `condition` holds, or for at most a minute. Returns whether the condition holds.
    ///
    /// For tests: the limit keeps a failing test from blocking the others.
    package func run(until condition: () -> Bool) -> Bool {
        var isLate = false
        let deadline = LoopTimer(loop: self, keepsLoopAlive: false) { isLate = true }
        deadline.start(after: 60_000)
        defer { deadline.close() }
        while !condition() {
            if isLate { return false }
            guard uv_run(self.raw, UV_RUN_ONCE) == 0 else { continue }
            if self.turnEnd.isEmpty { return condition() }
            self.endTurn()
        }
        return true
    }

    /// Makes ``run()`` return after this turn.
    package func stop() {
        self.isStopped = true
        uv_stop(self.raw)
    }

    /// Calls `handler` once, before the loop waits again.
    package func atTurnEnd(_ handler: any TurnEndHandler) {
        self.turnEnd.append(handler)
    }

    fileprivate func endTurn() {
        self.turn &+= 1
        // A handler may register another one, for example a flush that closes a stream. The loop terminates because
        // handlers register only when they have new work.
        while !self.turnEnd.isEmpty {
            let handlers = self.turnEnd
            self.turnEnd.removeAll(keepingCapacity: true)
            for handler in handlers { handler.turnDidEnd() }
        }
    }

    /// Runs the pending close callbacks and closes the loop.
    ///
    /// Does not wait for running name resolutions, which may take half a minute. The loop's memory is leaked then, and
    /// the process should exit with ``endProcess(_:)``.
    ///
    /// - Precondition: every handle was closed. Otherwise the process traps with a census of the open handles.
    package func close() {
        precondition(!self.isClosed, "an event loop is closed once")
        if self.resolutionCount > 0 {
            // Close callbacks run in the turn after uv_close. Two more turns allow them to close further handles.
            for _ in 0..<3 {
                uv_run(self.raw, UV_RUN_NOWAIT)
                self.endTurn()
            }
            self.isClosed = self.resolutionCount > 0
            if self.isClosed { return uv_close(cuv_handle(self.prepare), nil) }
        }
        // Turn-end handlers may close the last handles.
        repeat {
            self.endTurn()
            uv_run(self.raw, UV_RUN_DEFAULT)
        } while !self.turnEnd.isEmpty
        uv_close(cuv_handle(self.prepare), nil)
        uv_run(self.raw, UV_RUN_DEFAULT)
        let code = uv_loop_close(self.raw)
        precondition(code == 0, "handles are open at the end of the loop: \(self.census())")
        self.chunks.drain()
        self.isClosed = true
    }

    /// Exits the process at once if a name resolution is still running: libuv's clean-up at exit would wait for it.
    /// Otherwise does nothing.
    ///
    /// Call it after `close()`, as the last step.
    package func endProcess(_ code: Int32) {
        if self.resolutionCount > 0 { _exit(code) }
    }

    /// The number of open handles of each kind, without the loop's own.
    package func census() -> [String: Int] {
        var counts: [String: Int] = [:]
        withUnsafeMutablePointer(to: &counts) { uv_walk(self.raw, onWalk, UnsafeMutableRawPointer($0)) }
        counts["prepare", default: 1] -= 1
        return counts.filter { $0.value > 0 }
    }

    func assertOnLoop() {
        assert(pthread_equal(pthread_self(), self.thread) != 0, "a loop was used from another thread")
    }
}

private let onPrepare: uv_prepare_cb = { handle in
    guard let data = handle?.pointee.data else { return }
    Unmanaged<EventLoop>.fromOpaque(data)._withUnsafeGuaranteedRef { $0.endTurn() }
}

private let onWalk: uv_walk_cb = { handle, argument in
    guard let handle, let argument else { return }
    let name = uv_handle_type_name(handle.pointee.type).map { String(cString: $0) } ?? "unknown"
    argument.assumingMemoryBound(to: [String: Int].self).pointee[name, default: 0] += 1
}
