internal import CUV
internal import Glibc

/// Reports changes of this machine's addresses and routes (rtnetlink(7)).
package final class NetworkWatch {
    /// A change comes in many messages. In milliseconds.
    private static let settle: UInt64 = 100
    /// Messages that are read before the loop goes on. The rest follows in its next turn.
    private static let maxAtOnce = 64

    private let descriptor: CInt
    private var poll: DescriptorPoll?
    private var timer: LoopTimer?
    private var changed: (() -> Void)?
    private var isSettling = false

    /// - Parameter changed: called a moment after the first of the messages that belong together.
    /// - Throws: if the system has no such socket, or a sandbox forbids it.
    package init(loop: EventLoop, _ changed: @escaping () -> Void) throws(UVError) {
        self.descriptor = cuv_watch_network()
        try check(self.descriptor)
        self.changed = changed
        do throws(UVError) {
            self.poll = try DescriptorPoll(loop: loop, descriptor: self.descriptor) { [unowned self] _ in self.read() }
        } catch {
            Glibc.close(self.descriptor)
            throw error
        }
        self.timer = LoopTimer(loop: loop) { [unowned self] in
            self.isSettling = false
            self.changed?()
        }
        self.poll?.watch(.readable)
    }

    private func read() {
        // The content does not matter. ENOBUFS means that messages were lost: that is a change too.
        var buffer = [UInt8](repeating: 0, count: 8_192)
        for _ in 0..<Self.maxAtOnce where recv(self.descriptor, &buffer, buffer.count, 0) <= 0 { break }
        guard !self.isSettling else { return }
        self.isSettling = true
        self.timer?.start(after: Self.settle)
    }

    package func close() {
        guard self.poll != nil else { return }
        self.changed = nil
        self.poll?.close()
        self.poll = nil
        self.timer?.close()
        self.timer = nil
        Glibc.close(self.descriptor)
    }
}
