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
    /// The controlling terminal, whose end is a reason for SIGHUP.
    private enum Terminal {
        case none
        /// - Parameter misses: consecutive ticks without it.
        case present(misses: Int)
        /// SIGHUP arrived; its reason is decided in a moment.
        case hangingUp
    }

    private var terminal: Terminal
    private var sources: [SignalSource] = []
    private var reloads: Throttle?
    private var timer: LoopTimer?

    /// - Throws: when a signal cannot be handled; those before it then are.
    package init(loop: EventLoop, stop: @escaping () -> Void, reload: @escaping () -> Void) throws(UVError) {
        self.stop = stop
        self.terminal = Self.hasTerminal ? .present(misses: 0) : .none
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
        guard case .present(let before) = self.terminal else { return }
        let misses = Self.hasTerminal ? 0 : before + 1
        // One tick may fall between the end of the terminal and its signal.
        self.terminal = misses > 1 ? .none : .present(misses: misses)
    }

    private func hungUp() {
        switch self.terminal {
        case .none: self.reloads?.request()
        case .present:
            self.terminal = .hangingUp
            self.timer?.start(after: Self.terminalMilliseconds)
        case .hangingUp: break
        }
    }

    private func decide() {
        guard Self.hasTerminal else { return self.stop() }
        self.terminal = .present(misses: 0)
        self.reloads?.request()
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
