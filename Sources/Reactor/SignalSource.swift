internal import CUV
import Glibc

/// Calls a closure on the loop for each arrival of a signal. It does not keep the loop alive.
package final class SignalSource {
    /// The signals that a daemon reacts to.
    package enum Signal: Sendable {
        /// Ctrl-C.
        case interrupt
        /// The polite request to end.
        case terminate
        /// By convention: read the configuration anew.
        case hangUp

        fileprivate var number: CInt {
            switch self {
            case .interrupt: SIGINT
            case .terminate: SIGTERM
            case .hangUp: SIGHUP
            }
        }
    }

    private let raw: UnsafeMutablePointer<uv_signal_t>
    private var isOpen = true
    private var isClosed = false
    private var body: (() -> Void)?

    package init(loop: EventLoop, _ signal: Signal, _ body: @escaping () -> Void) throws(UVError) {
        self.raw = .allocate(capacity: 1)
        self.body = body
        do throws(UVError) { try check(uv_signal_init(loop.raw, self.raw)) } catch {
            self.raw.deallocate()
            self.isClosed = true
            throw error
        }
        self.raw.pointee.data = Unmanaged.passRetained(self).toOpaque()
        do throws(UVError) { try check(uv_signal_start(self.raw, onSignal, signal.number)) } catch {
            self.close()
            throw error
        }
        uv_unref(cuv_handle_of_signal(self.raw))
    }

    deinit {
        precondition(self.isClosed, "a signal source was dropped before its close callback")
    }

    /// Makes the process deaf to requests to stop, for its last moments: with its sources closed they would kill it.
    package static func ignoreStopSignals() {
        for number in [SIGTERM, SIGINT, SIGHUP] { signal(number, SIG_IGN) }
    }

    package func close() {
        guard self.isOpen else { return }
        self.isOpen = false
        self.body = nil
        uv_close(cuv_handle_of_signal(self.raw), onClose)
    }

    fileprivate func fire() {
        guard self.isOpen else { return }
        self.body?()
    }

    fileprivate func didClose() {
        self.raw.deallocate()
        self.isClosed = true
    }
}

private let onSignal: uv_signal_cb = { handle, _ in
    guard let data = handle?.pointee.data else { return }
    Unmanaged<SignalSource>.fromOpaque(data)._withUnsafeGuaranteedRef { $0.fire() }
}

private let onClose: uv_close_cb = { handle in
    guard let data = handle?.pointee.data else { return }
    Unmanaged<SignalSource>.fromOpaque(data).takeRetainedValue().didClose()
}
