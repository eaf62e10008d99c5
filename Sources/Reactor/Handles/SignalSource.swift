internal import CUV
import Glibc

/// Calls a closure on the loop each time a signal arrives. Does not keep the loop alive.
package final class SignalSource: LoopHandle {
    /// The signals that a daemon reacts to.
    package enum Signal: Sendable {
        /// Sent by Ctrl-C.
        case interrupt
        /// Requests an orderly shutdown.
        case terminate
        /// By convention: reload the configuration.
        case hangUp

        fileprivate var number: CInt {
            switch self {
            case .interrupt: SIGINT
            case .terminate: SIGTERM
            case .hangUp: SIGHUP
            }
        }
    }

    private var raw: UnsafeMutablePointer<uv_signal_t> { self.memory.assumingMemoryBound(to: uv_signal_t.self) }
    private var body: (() -> Void)?

    package init(loop: EventLoop, _ signal: Signal, _ body: @escaping () -> Void) throws(UVError) {
        self.body = body
        super.init(loop: loop, uv_signal_t.self)
        try check(uv_signal_init(loop.raw, self.raw))
        self.opened()
        do throws(UVError) { try check(uv_signal_start(self.raw, onSignal, signal.number)) } catch {
            self.close()
            throw error
        }
        uv_unref(cuv_handle(self.memory))
    }

    /// Makes the process ignore SIGTERM, SIGINT and SIGHUP. Call it after closing the sources: these signals would kill
    /// the process during the rest of its shutdown.
    package static func ignoreStopSignals() {
        for number in [SIGTERM, SIGINT, SIGHUP] { signal(number, SIG_IGN) }
    }

    package func close() {
        self.body = nil
        self.closeHandle()
    }

    fileprivate func fire() {
        guard self.isOpen else { return }
        self.body?()
    }
}

private let onSignal: uv_signal_cb = { handle, _ in
    borrow(handle?.pointee.data) { (source: SignalSource) in source.fire() }
}
