internal import Glibc
package import Reactor

/// What signals mean to a daemon: SIGTERM and SIGINT ask for its end. SIGHUP asks it to read its configuration again, or,
/// when the terminal that it was started from has closed, for its end as well.
///
/// A SIGHUP that was ignored at the start stays ignored, as nohup(1) wants it.
package final class DaemonSignals {
    /// Between two reloads at least.
    private static let reloadMilliseconds: UInt64 = 500
    /// The kernel sends SIGHUP a moment before the terminal is gone.
    private static let terminalMilliseconds: UInt64 = 100

    private let stop: () -> Void
    /// There is a terminal whose end would be a reason for SIGHUP.
    private var hadTerminal: Bool
    /// Looks in a row at which there was none.
    private var misses = 0
    private var isDeciding = false
    private var sources: [SignalSource] = []
    private var reloads: Throttle?
    private var timer: LoopTimer?

    /// - Throws: when a signal cannot be handled; those before it then are.
    package init(loop: EventLoop, stop: @escaping () -> Void, reload: @escaping () -> Void) throws(UVError) {
        self.stop = stop
        self.hadTerminal = Self.hasTerminal
        do throws(UVError) {
            for signal in [SignalSource.Signal.terminate, .interrupt] {
                self.sources.append(try SignalSource(loop: loop, signal, stop))
            }
            guard !Self.isHangUpIgnored else { return }
            self.reloads = Throttle(loop: loop, milliseconds: Self.reloadMilliseconds, reload)
            self.timer = LoopTimer(loop: loop) { [unowned self] in self.decide() }
            self.sources.append(try SignalSource(loop: loop, .hangUp) { [unowned self] in self.hungUp() })
        } catch {
            self.closeHandles()
            throw error
        }
    }

    /// A terminal that went without SIGHUP, as after `disown`, is not the reason of a later one; call it about once a
    /// second.
    package func tick() {
        guard self.hadTerminal, !self.isDeciding else { return }
        self.misses = Self.hasTerminal ? 0 : self.misses + 1
        // One look may come between the end of the terminal and its signal.
        if self.misses > 1 { self.hadTerminal = false }
    }

    private func hungUp() {
        guard self.hadTerminal else { return self.decide() }
        self.isDeciding = true
        self.timer?.start(after: Self.terminalMilliseconds)
    }

    private func decide() {
        self.isDeciding = false
        if self.hadTerminal, !Self.hasTerminal { self.stop() } else { self.reloads?.request() }
    }

    /// Whether this process has a controlling terminal (tty(4)).
    private static var hasTerminal: Bool {
        let descriptor = open("/dev/tty", O_RDONLY | O_NOCTTY | O_CLOEXEC | O_NONBLOCK)
        guard descriptor >= 0 else { return false }
        Glibc.close(descriptor)
        return true
    }

    private static var isHangUpIgnored: Bool {
        var action = sigaction()
        guard sigaction(SIGHUP, nil, &action) == 0 else { return false }
        return unsafeBitCast(action.__sigaction_handler.sa_handler, to: Int.self)
            == unsafeBitCast(SIG_IGN, to: Int.self)
    }

    /// Nothing is heard any more, and the process is deaf to requests to stop.
    package func close() {
        self.closeHandles()
        SignalSource.ignoreStopSignals()
    }

    private func closeHandles() {
        for source in self.sources { source.close() }
        self.sources = []
        self.reloads?.close()
        self.reloads = nil
        self.timer?.close()
        self.timer = nil
    }
}
