package import Reactor

/// The current content of a document.
package struct Document: Equatable, Sendable {
    /// The response's Content-Type (RFC 9110, 8.3).
    package let contentType: String
    package let body: [UInt8]

    package init(contentType: String, body: [UInt8]) {
        self.contentType = contentType
        self.body = body
    }
}

/// Serves documents to the operator's programs over HTTP/1.1 (RFC 9112), with one request per connection. It has only
/// what a proxy that polls its configuration, or a metrics collector, needs.
///
/// The number of connections is limited, and each has a few seconds for everything. When the limit is reached, the
/// oldest connection is closed, so clients that hang cannot keep others out.
package final class DocumentServer {
    /// Calls `completion` once, immediately or later, with the document at a path, or nil without one. The path
    /// has no query and is untrusted input.
    package typealias Source = (_ path: String, _ completion: @escaping (Document?) -> Void) -> Void

    private static let maxConnections = 32
    private static let deadline: UInt64 = 5_000

    private let listener: SocketListener
    private let document: Source
    private let onFailure: (UVError) -> Void
    /// Oldest first.
    private var visits: [Visit] = []

    /// - Parameters:
    ///   - listener: TCP or unix; the server owns it from now on, and closes it in `close()`.
    ///   - document: returns the document at a path.
    ///   - onFailure: receives errors that keep the listener from accepting.
    package init(
        listener: SocketListener, document: @escaping Source, onFailure: @escaping (UVError) -> Void
    ) {
        self.listener = listener
        self.document = document
        self.onFailure = onFailure
        listener.delegate = self
    }

    package var place: SocketListener.Place { self.listener.place }

    package func close() {
        self.listener.close()
        for visit in self.visits { visit.end() }
    }

    private func ended(_ visit: Visit) { self.visits.removeAll { $0 === visit } }

    /// One request and its answer.
    private final class Visit: SocketStreamDelegate {
        private enum State {
            case reading
            /// Waiting for the document.
            case asked
            case answered
        }

        private let server: DocumentServer
        private let stream: SocketStream
        private let timer: LoopTimer
        private var head = RequestHead()
        private var state = State.reading
        /// The client has ended its direction, but data for it is still to be sent.
        private var isEnding = false

        init(_ stream: SocketStream, _ server: DocumentServer) {
            self.stream = stream
            self.server = server
            self.timer = LoopTimer(loop: stream.loop) { stream.reset() }
            self.timer.start(after: DocumentServer.deadline)
            stream.delegate = self
            stream.startReading()
        }

        func end() { self.stream.reset() }

        func readAllowance(_ stream: SocketStream) -> Int { RequestHead.maximum }

        func socketStream(_ stream: SocketStream, didRead bytes: UnsafeRawBufferPointer) {
            // Ignore anything after the request.
            guard self.state == .reading else { return }
            switch self.head.received(bytes) {
            case .needMore: break
            case .request(let request): self.answer(request)
            case .invalid: self.answer(nil)
            }
        }

        private func answer(_ request: RequestLine?) {
            self.state = .asked
            switch request?.method {
            case "GET", "HEAD":
                let isHead = request?.method == "HEAD"
                self.server.document(request?.path ?? "") { document in
                    self.send(document == nil ? "404 Not Found" : "200 OK", document, withBody: !isHead)
                }
            case .some: self.send("405 Method Not Allowed\r\nAllow: GET, HEAD")
            case nil: self.send("400 Bad Request")
            }
        }

        private func send(_ status: String, _ document: Document? = nil, withBody: Bool = true) {
            let answer =
                "HTTP/1.1 \(status)\r\n" + (document.map { "Content-Type: \($0.contentType)\r\n" } ?? "")
                + "Content-Length: \(document?.body.count ?? 0)\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n"
            let body = withBody ? document?.body ?? [] : []
            _ = (Array(answer.utf8) + body).withUnsafeBytes { self.stream.write($0) }
            self.state = .answered
            self.stream.shutdownWriting()
            if self.isEnding, self.stream.queuedByteCount == 0 { self.stream.close() }
        }

        func socketStreamDidReachEnd(_ stream: SocketStream) {
            // A client that ends its direction after the request still expects the response.
            if self.state != .asked, stream.queuedByteCount == 0 { stream.close() } else { self.isEnding = true }
        }

        func socketStream(_ stream: SocketStream, didWrite count: Int) {
            if self.isEnding, stream.queuedByteCount == 0 { stream.close() }
        }

        func socketStream(_ stream: SocketStream, didFail error: UVError) { stream.close() }

        func socketStreamDidClose(_ stream: SocketStream) {
            self.timer.close()
            self.server.ended(self)
        }
    }
}

extension DocumentServer: SocketListenerDelegate {
    package func listener(_ listener: SocketListener, didAccept stream: SocketStream) {
        // Visits in excess of the maximum are already closing and leave the list in this turn, so skip them.
        if self.visits.count >= Self.maxConnections { self.visits[self.visits.count - Self.maxConnections].end() }
        self.visits.append(Visit(stream, self))
    }

    package func listener(_ listener: SocketListener, didFail error: UVError) { self.onFailure(error) }
}
