internal import Glibc
package import Reactor

/// Signal handling of a daemon: SIGTERM and SIGINT stop it. SIGHUP reloads its configuration, or stops it if its
/// controlling terminal has closed.
///
/// If SIGHUP was ignored when the program started, it stays ignored, as nohup(1) requires.
package final class DaemonSignals {
    /// Minimum time between two reloads.
    private static let reloadMilliseconds: UInt64 = 500
    /// How long to wait before checking for the terminal: the kernel sends SIGHUP shortly before the terminal is gone.
    private static let terminalMilliseconds: UInt64 = 100

    private let stop: () -> Void
    /// The controlling terminal. Closing it is one cause of SIGHUP.
    private enum Terminal {
        case none
        /// - Parameter misses: consecutive ticks that did not find the terminal.
        case present(misses: Int)
        /// SIGHUP arrived; its cause is determined after `terminalMilliseconds`.
        case hangingUp
    }

    private var terminal: Terminal
    private var sources: [SignalSource] = []
    private var reloads: Throttle?
    private var timer: LoopTimer?

    /// - Parameters:
    ///   - stop: called for each request to stop.
    ///   - reload: called for SIGHUP, at most once per `reloadMilliseconds`.
    /// - Throws: if a signal handler cannot be installed; the ones installed before it are removed.
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

    /// Notices a terminal that closed without SIGHUP, as after `disown`: a later SIGHUP then means a reload. Call it
    /// about once a second.
    package func tick() {
        guard case .present(let before) = self.terminal else { return }
        let misses = Self.hasTerminal ? 0 : before + 1
        // One tick may fall between the closing of the terminal and its SIGHUP.
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

    /// Removes the handlers. From now on the process ignores SIGTERM, SIGINT and SIGHUP.
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
