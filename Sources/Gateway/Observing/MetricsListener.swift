internal import Journal
internal import Logging
internal import Reactor
internal import Settings
internal import Web

/// The listener for metrics.
enum MetricsListener {
    /// Opens the listener and serves `/metrics`. Replaces a stale unix socket.
    static func open(_ settings: MetricsSettings, _ gateway: GatewayServer) throws(GatewayError) -> DocumentServer {
        let listener: SocketListener
        switch settings.place {
        case .tcp(let hostPort):
            guard let address = SocketAddress(numeric: hostPort) else {
                throw GatewayError(.configuration, "metrics: \(self.advice(hostPort))")
            }
            do throws(UVError) { listener = try SocketListener(loop: gateway.loop, address: address) } catch {
                throw GatewayError(.listen, "metrics: cannot listen on \(address): \(error)")
            }
        case .unix(let path): listener = try self.listener(path, gateway.loop)
        }
        let isPerName = settings.isPerName
        return DocumentServer(
            listener: listener,
            document: { [unowned gateway] path, completion in
                switch path {
                case "/metrics":
                    gateway.worker.census { [weak gateway] census in
                        guard let gateway else { return completion(nil) }
                        let text = gateway.metrics.exposition(
                            gateway.figures(census.figures), ProcessFigures(), isPerName: isPerName)
                        completion(Document(contentType: GatewayMetrics.contentType, body: text))
                    }
                case "/":
                    let text = "metrics are at /metrics\n"
                    completion(Document(contentType: "text/plain; charset=utf-8", body: Array(text.utf8)))
                default: completion(nil)
                }
            },
            onFailure: { [unowned gateway] in
                let error = $0
                gateway.peerLog.write(.error, .detail, of: .readers, "metrics: \(error)", .about([.error: error]))
            })
    }

    private static func listener(_ path: String, _ loop: EventLoop) throws(GatewayError) -> SocketListener {
        guard !UnixSocketFile.isAlive(path) else {
            throw GatewayError(.listen, "metrics: another program listens on \(path)")
        }
        guard UnixSocketFile.removeDead(path) else {
            throw GatewayError(.listen, "metrics: \(path) already exists and is not a socket: remove it")
        }
        do throws(UVError) {
            // Access for the gateway's own user and group.
            return try SocketListener(
                loop: loop, path: path, access: SocketListener.Access(mode: 0o660, group: nil))
        } catch { throw GatewayError(.listen, "metrics: cannot listen on \(path): \(error)") }
    }

    /// Why `SocketAddress(numeric:)` returned nil.
    static func advice(_ hostPort: HostPort) -> String {
        "'\(hostPort.host)' is not an address: write 127.0.0.1, [::1] or localhost"
    }
}

extension SocketAddress {
    /// Nil if the host is a name other than `localhost`.
    init?(numeric hostPort: HostPort) {
        self.init(hostPort.host == "localhost" ? "127.0.0.1" : hostPort.host, port: hostPort.port)
    }
}
