internal import CUV
import Glibc

/// Wants to run once more before the loop waits again: to send in one write what a turn has collected.
package protocol TurnEndHandler: AnyObject {
    func turnDidEnd()
}

/// libuv's event loop, one per thread.
///
/// ## Turns
/// A turn is everything between two waits for the kernel: the callbacks of timers and sockets, then, once, the
/// handlers that asked for the turn's end with ``atTurnEnd(_:)``.
///
/// ## Lifetimes
/// A handle (listener, stream, timer, ...) keeps itself alive from its initialiser to its close callback, and traps in
/// `deinit` if it was not closed. ``close()`` traps, with a census of the offenders, if a handle is still open: a leak
/// cannot go unnoticed.
///
/// ## Isolation
/// A loop and its handles belong to the thread that made them and are not `Sendable`; ``Mailbox`` is the way in for
/// other threads.
package final class EventLoop {
    let raw: UnsafeMutablePointer<uv_loop_t>
    /// Where all sockets of this loop read to. Reads follow one another, and whoever is handed the bytes uses them up
    /// before returning, so one buffer serves all and no read allocates.
    let readBuffer: UnsafeMutableRawBufferPointer
    let chunks = ChunkPool()
    private let prepare: UnsafeMutablePointer<uv_prepare_t>
    private var turnEnd: [any TurnEndHandler] = []
    /// Counts the turns, so that a socket can tell whether it has read in this one.
    package private(set) var turn: UInt64 = 0
    private var isClosed = false
    private var isStopped = false
    /// Where names of hosts are looked up.
    package private(set) lazy var names = NameCache(loop: self)
    /// Name resolutions on the thread pool. They cannot be called off once they run (uv_cancel, UV_EBUSY).
    var resolutionCount = 0
    /// Programs that were started and not yet reaped.
    var children: Set<Int32> = []
    private let thread = pthread_self()

    /// Bytes that one read may bring: large enough that the cost of a call to the kernel vanishes beside the copying,
    /// small enough to stay in a core's second-level cache.
    package static let readBufferSize = 256 * 1024

    package init() throws(UVError) {
        self.raw = .allocate(capacity: 1)
        do throws(UVError) { try check(uv_loop_init(self.raw)) } catch {
            self.raw.deallocate()
            throw error
        }
        self.readBuffer = .allocate(byteCount: Self.readBufferSize, alignment: 64)
        self.prepare = .allocate(capacity: 1)
        // These cannot fail on an initialised loop; libuv's documentation gives them no error.
        uv_prepare_init(self.raw, self.prepare)
        self.prepare.pointee.data = Unmanaged.passUnretained(self).toOpaque()
        uv_prepare_start(self.prepare, onPrepare)
        uv_unref(cuv_handle(self.prepare))
        // libuv writes with write(2); a peer that went away must be an error, not the end of the process.
        signal(SIGPIPE, SIG_IGN)
    }

    deinit {
        precondition(self.isClosed, "an event loop was dropped before close()")
        // The thread pool still writes into a loop that was left to it.
        guard self.resolutionCount == 0 else { return }
        self.prepare.deallocate()
        self.readBuffer.deallocate()
        self.raw.deallocate()
    }

    /// Milliseconds of the monotonic clock, as of the start of this turn.
    package var now: UInt64 { uv_now(self.raw) }

    /// Nanoseconds of the same clock, as of now.
    package static var nanoseconds: UInt64 { uv_hrtime() }

    /// Milliseconds that the machine has slept since it booted: CLOCK_BOOTTIME less CLOCK_MONOTONIC.
    package static var suspendedMilliseconds: Int64 {
        func read(_ clock: clockid_t) -> Int64 {
            var time = timespec()
            clock_gettime(clock, &time)
            return Int64(time.tv_sec) * 1_000 + Int64(time.tv_nsec) / 1_000_000
        }
        return read(CLOCK_BOOTTIME) - read(CLOCK_MONOTONIC)
    }

    /// Runs until no handle is left that keeps the loop alive, or ``stop()``.
    package func run() {
        self.assertOnLoop()
        self.isStopped = false
        while true {
            uv_run(self.raw, UV_RUN_DEFAULT)
            // The last handle may have closed with something left to do at the end of the turn.
            guard !self.turnEnd.isEmpty, !self.isStopped else { return }
            self.endTurn()
        }
    }

    /// Runs turn by turn until `condition` holds; returns whether it does. For tests: one that waits in vain for a minute
    /// fails, instead of holding all others up.
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
        // A handler may ask for another round (a flush that closed a stream); what it asks for is finite, as each
        // handler asks only when it has something new to do.
        while !self.turnEnd.isEmpty {
            let handlers = self.turnEnd
            self.turnEnd.removeAll(keepingCapacity: true)
            for handler in handlers { handler.turnDidEnd() }
        }
    }

    /// Runs the close callbacks that are due and frees the loop.
    ///
    /// A name resolution that still runs is not waited for, as that may take half a minute: the loop is then left to
    /// it, and the process should end by ``endProcess(_:)``.
    ///
    /// - Precondition: every handle was closed; else the process stops with the census of those that are open.
    package func close() {
        precondition(!self.isClosed, "an event loop is closed once")
        if self.resolutionCount > 0 {
            // Close callbacks run in the turn after uv_close; two more let them close what they like.
            for _ in 0..<3 {
                uv_run(self.raw, UV_RUN_NOWAIT)
                self.endTurn()
            }
            self.isClosed = self.resolutionCount > 0
            if self.isClosed { return uv_close(cuv_handle(self.prepare), nil) }
        }
        // What is still to be done at the end of a turn may close the last handles.
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

    /// Ends the process at once if a name resolution still runs, which libuv's own clean-up would wait for.
    ///
    /// Call it after `close()`, as the last act.
    package func endProcess(_ code: Int32) {
        if self.resolutionCount > 0 { _exit(code) }
    }

    /// How many handles of each kind are alive, the loop's own left out.
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
