internal import Logging
internal import Reactor
internal import Settings

/// Serves one document to programs of this machine, over HTTP/1.1 (RFC 9112), a connection for each request: what a
/// proxy that polls its configuration needs, and no more.
final class DocumentServer {
    private static let mostConnections = 32
    private static let mostHead = 8 * 1024
    private static let deadline: UInt64 = 5_000

    private let loop: EventLoop
    private let listener: SocketListener
    private let body: () -> [UInt8]
    private let logger: Logger
    private var connections: [ObjectIdentifier: Visit] = [:]

    /// - Parameter body: the document as it is now, in JSON.
    init(
        loop: EventLoop, address: HostPort, logger: Logger, body: @escaping () -> [UInt8]
    ) throws(RegistrarError) {
        self.loop = loop
        self.body = body
        self.logger = logger
        guard let socket = SocketAddress(address.host == "localhost" ? "127.0.0.1" : address.host, port: address.port)
        else { throw RegistrarError(reason: "'\(address.host)' is no address") }
        do throws(UVError) { self.listener = try SocketListener(loop: loop, address: socket) } catch {
            throw RegistrarError(reason: "cannot listen on \(socket): \(error)")
        }
        self.listener.delegate = self
        logger.info("serving Traefik's HTTP provider at http://\(self.listener.place)/")
    }

    func close() {
        self.listener.close()
        for visit in self.connections.values { visit.end() }
    }

    private func ended(_ visit: Visit) { self.connections[ObjectIdentifier(visit)] = nil }

    /// One request and its answer.
    private final class Visit: SocketStreamDelegate {
        private let server: DocumentServer
        private let stream: SocketStream
        private let timer: LoopTimer
        private var head: [UInt8] = []

        init(_ stream: SocketStream, _ server: DocumentServer) {
            self.stream = stream
            self.server = server
            self.timer = LoopTimer(loop: stream.loop) { stream.reset() }
            self.timer.start(after: DocumentServer.deadline)
            stream.delegate = self
            stream.startReading()
        }

        func end() { self.stream.reset() }

        func readAllowance(_ stream: SocketStream) -> Int { DocumentServer.mostHead }

        func socketStream(_ stream: SocketStream, didRead bytes: UnsafeRawBufferPointer) {
            // What comes after the request is of no interest.
            guard self.head.count < DocumentServer.mostHead else { return }
            self.head += bytes
            let text = String(decoding: self.head, as: UTF8.self)
            if text.contains("\r\n\r\n") {
                self.answer(text)
            } else if self.head.count >= DocumentServer.mostHead {
                self.answer("")
            }
        }

        private func answer(_ head: String) {
            self.head = [UInt8](repeating: 0, count: DocumentServer.mostHead)
            let words = head.prefix { $0 != "\r\n" }.split(separator: " ")
            let status: String
            var body: [UInt8] = []
            switch (words.first, words.count) {
            case ("GET", 3), ("HEAD", 3):
                status = "200 OK"
                body = self.server.body()
            case (_, 3): status = "405 Method Not Allowed"
            default: status = "400 Bad Request"
            }
            let answer =
                "HTTP/1.1 \(status)\r\nContent-Type: application/json\r\nContent-Length: \(body.count)\r\n"
                + "Connection: close\r\n\r\n"
            let bytes = Array(answer.utf8) + (words.first == "HEAD" ? [] : body)
            _ = bytes.withUnsafeBytes { self.stream.write($0) }
            self.stream.shutdownWriting()
        }

        func socketStreamDidReachEnd(_ stream: SocketStream) { stream.close() }

        func socketStream(_ stream: SocketStream, didWrite count: Int) {}

        func socketStream(_ stream: SocketStream, didFail error: UVError) { stream.close() }

        func socketStreamDidClose(_ stream: SocketStream) {
            self.timer.close()
            self.server.ended(self)
        }
    }
}

extension DocumentServer: SocketListenerDelegate {
    func listener(_ listener: SocketListener, didAccept stream: SocketStream) {
        guard self.connections.count < Self.mostConnections else { return stream.reset() }
        let visit = Visit(stream, self)
        self.connections[ObjectIdentifier(visit)] = visit
    }

    func listener(_ listener: SocketListener, didFail error: UVError) {
        self.logger.error("Traefik's HTTP provider: \(error)")
    }
}
