internal import Reactor

/// Where visitors of one name come in: its public port, on one or several addresses, its unix socket, or both.
struct NameListeners {
    let tcp: [SocketListener]
    let unix: SocketListener?

    private var all: [SocketListener] { self.tcp + (self.unix.map { [$0] } ?? []) }

    /// The first one.
    var address: SocketAddress? { self.tcp.first?.address }

    var socket: String? {
        if case .unix(let path) = self.unix?.place { path } else { nil }
    }

    func setDelegate(_ delegate: any SocketListenerDelegate) {
        for listener in self.all { listener.delegate = delegate }
    }

    func pause() {
        for listener in self.all { listener.pause() }
    }

    /// - Parameter hasRoom: asked before each: a resumed listener may bring a visitor at once.
    func resume(while hasRoom: () -> Bool) {
        for listener in self.all where hasRoom() { listener.resume() }
    }

    var byKind: [(StoredName.Kind, [SocketListener])] {
        [(.tcp, self.tcp), (.unix, self.unix.map { [$0] } ?? [])].filter { !$0.1.isEmpty }
    }
}
