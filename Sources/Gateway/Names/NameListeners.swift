internal import Reactor

/// The listeners of one name: its public port, on one or several addresses, its unix socket, or both.
struct NameListeners: Sendable {
    let tcp: [ListenerSocket]
    let unix: ListenerSocket?

    var all: [ListenerSocket] { self.tcp + (self.unix.map { [$0] } ?? []) }

    /// The first public address; nil if the name has no public port.
    var address: SocketAddress? { self.tcp.first?.address }

    /// The path of the unix socket.
    var socket: String? {
        if case .unix(let path) = self.unix?.place { path } else { nil }
    }

    var byKind: [(StoredName.Kind, [ListenerSocket])] {
        [(.tcp, self.tcp), (.unix, self.unix.map { [$0] } ?? [])].filter { !$0.1.isEmpty }
    }
}
