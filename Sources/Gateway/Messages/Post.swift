internal import Reactor

/// Carries messages to a receiver on the same loop, in their order. They arrive at the end of the turn, never from
/// inside the call that sent them: a ``Mailbox`` to another thread may take its place. Exempt are
/// the byte budget and the ``PeerLog``, which both ends share as long as they run on one loop.
final class Post<Message: Sendable> {
    private let loop: EventLoop
    private var messages: [Message] = []
    private var receive: ((Message) -> Void)?

    init(loop: EventLoop) { self.loop = loop }

    /// From here on messages arrive; with nil they are dropped.
    func deliver(to receive: ((Message) -> Void)?) { self.receive = receive }

    func send(_ message: Message) {
        if self.messages.isEmpty { self.loop.atTurnEnd(self) }
        self.messages.append(message)
    }
}

extension Post: TurnEndHandler {
    func turnDidEnd() {
        let messages = self.messages
        self.messages = []
        for message in messages { self.receive?(message) }
    }
}
