internal import Reactor

/// Delivers messages in order to a receiver on the same loop. They arrive at the end of the turn, never from inside the
/// call that sent them, so a ``Mailbox`` to another thread could replace it. Hub and worker exchange everything this
/// way except the byte budget and the ``PeerLog``, which they share while both run on one loop.
final class Post<Message: Sendable> {
    private let loop: EventLoop
    private var messages: [Message] = []
    private var receive: ((Message) -> Void)?

    init(loop: EventLoop) { self.loop = loop }

    /// Sets the receiver; messages that arrive without one are dropped.
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
