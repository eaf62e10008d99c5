internal import CCurl
package import Reactor

/// Sends requests to web servers: libcurl's multi interface on the loop (libcurl-multi(3), "multi_socket").
///
/// libcurl reports the sockets it waits for (`onSocket`) and the latest time of its next call (`onTimer`). The loop
/// then calls `curl_multi_socket_action`, and collects finished transfers after each such call. So completions never
/// run inside libcurl, which does not allow calls from its own callbacks.
///
/// Connections are reused for requests to the same server with the same certificate files. libcurl resolves names on
/// threads of its own.
///
/// ## Lifetime
/// The creator of a client must close it; `deinit` traps otherwise. libcurl's callbacks hold an unretained reference
/// from `init` until `close()` has called `curl_multi_cleanup`; no callback comes after that.
package final class HTTPClient {
    /// Connections to one server; further requests wait. Eight requests at once, of up to ten seconds each, are more
    /// than an authenticator needs, and few enough for a small server.
    private static let maxConnectionsPerHost = 8
    /// Connections to all servers, so that enough descriptors remain for visitors.
    private static let maxConnections = 64
    /// Running and waiting requests. At about 16 KiB each, this is 16 MiB.
    private static let maxTasks = 1_024

    private let loop: EventLoop
    /// The User-Agent field, RFC 9110, 10.1.5.
    let userAgent: String
    /// Nil after `close()`.
    private var multi: UnsafeMutableRawPointer?
    private var timer: LoopTimer?
    private var polls: [curl_socket_t: DescriptorPoll] = [:]
    private var tasks: [UnsafeMutableRawPointer: HTTPTask] = [:]
    /// Requests that could not be sent; their completions are called at the end of the turn.
    private var failing: [HTTPTask] = []

    package init(loop: EventLoop, userAgent: String) {
        self.loop = loop
        self.userAgent = userAgent
        guard isLibraryReady, let multi = curl_multi_init() else {
            preconditionFailure("libcurl cannot be initialised")
        }
        self.multi = multi
        self.timer = LoopTimer(loop: loop) { [unowned self] in self.act(ccurl_socket_timeout, 0) }
        ccurl_multi_set_callbacks(multi, onSocket, onTimer, Unmanaged.passUnretained(self).toOpaque())
        _ = ccurl_multi_set_long(multi, CURLMOPT_MAX_HOST_CONNECTIONS, Self.maxConnectionsPerHost)
        _ = ccurl_multi_set_long(multi, CURLMOPT_MAX_TOTAL_CONNECTIONS, Self.maxConnections)
        // Idle connections to keep for reuse.
        _ = ccurl_multi_set_long(multi, CURLMOPT_MAXCONNECTS, Self.maxConnectionsPerHost)
    }

    deinit {
        precondition(self.multi == nil, "an HTTP client was dropped before close()")
    }

    /// Sends `request`. `completion` is called once unless the task is cancelled, never from inside this call.
    package func send(
        _ request: HTTPRequest, completion: @escaping (Result<HTTPResponse, HTTPFailure>) -> Void
    ) -> HTTPTask {
        let task = HTTPTask(client: self, request, completion: completion)
        do throws(HTTPFailure) {
            guard let multi = self.multi else { throw .other("the client is closed") }
            guard self.tasks.count < Self.maxTasks else { throw .other("\(Self.maxTasks) requests wait already") }
            let easy = try task.start(loop: self.loop)
            self.tasks[easy] = task
            guard curl_multi_add_handle(multi, easy) == CURLM_OK else { throw .other("out of memory") }
        } catch {
            self.failing.append(task)
            task.failLater(error, loop: self.loop)
        }
        return task
    }

    /// Cancels all requests without calling their completions, and closes all connections.
    package func close() {
        guard let multi = self.multi else { return }
        for task in self.failing + Array(self.tasks.values) { task.cancel() }
        self.multi = nil
        // Must come before libcurl closes the descriptors.
        for poll in self.polls.values { poll.close() }
        self.polls = [:]
        self.timer?.close()
        self.timer = nil
        curl_multi_cleanup(multi)
    }

    /// A task has ended; after this call its handle can be freed.
    func remove(_ easy: UnsafeMutableRawPointer) {
        guard let multi = self.multi, self.tasks.removeValue(forKey: easy) != nil else { return }
        curl_multi_remove_handle(multi, easy)
    }

    /// A task's failure was reported, or the task was cancelled.
    func forget(_ task: HTTPTask) { self.failing.removeAll { $0 === task } }

    // MARK: - libcurl and the loop

    /// Lets libcurl handle a descriptor or its timeout, then completes the transfers that have ended.
    private func act(_ descriptor: curl_socket_t, _ events: CInt) {
        guard let multi = self.multi else { return }
        var running: CInt = 0
        curl_multi_socket_action(multi, descriptor, events, &running)
        var code = CURLE_OK
        // A completion may send, cancel or close, so check the client in each round.
        while let multi = self.multi, let easy = ccurl_next_done(multi, &code) {
            self.tasks[easy]?.transferred(code)
        }
    }

    private func ready(_ descriptor: curl_socket_t, _ events: DescriptorPoll.Events) {
        var flags: CInt = 0
        // CURL_CSELECT_ERR would make libcurl end the transfer, although a response may precede the error, and an idle
        // connection that died is not a failure. By reading and writing libcurl finds the actual error.
        if !events.isDisjoint(with: [.readable, .failed]) { flags |= CURL_CSELECT_IN }
        if !events.isDisjoint(with: [.writable, .failed]) { flags |= CURL_CSELECT_OUT }
        let poll = self.polls[descriptor]
        self.act(descriptor, flags)
        // An error ends the watch. Restart it if libcurl still wants it; the task's deadline bounds the repetition.
        if events.contains(.failed), let poll, self.polls[descriptor] === poll { poll.watch(poll.events) }
    }

    /// libcurl changes what it waits for on `descriptor`.
    fileprivate func wants(_ what: CInt, at descriptor: curl_socket_t) {
        guard self.multi != nil else { return }
        if what == CURL_POLL_REMOVE {
            self.polls.removeValue(forKey: descriptor)?.close()
            return
        }
        let known = self.polls[descriptor]
        // This fails only for lack of memory; then the task ends at its deadline.
        guard
            let poll = known
                ?? (try? DescriptorPoll(loop: self.loop, descriptor: descriptor) { [unowned self] in
                    self.ready(descriptor, $0)
                })
        else { return }
        self.polls[descriptor] = poll
        var events: DescriptorPoll.Events = []
        if what & CURL_POLL_IN != 0 { events.insert(.readable) }
        if what & CURL_POLL_OUT != 0 { events.insert(.writable) }
        poll.watch(events)
    }

    /// libcurl wants to be called in `milliseconds`, or not at all for -1.
    fileprivate func wantsCall(in milliseconds: Int) {
        if milliseconds < 0 { self.timer?.stop() } else { self.timer?.start(after: UInt64(milliseconds)) }
    }
}

/// curl_global_init(3), once per process.
private let isLibraryReady = curl_global_init(ccurl_global_default) == CURLE_OK

private let onSocket: curl_socket_callback = { _, descriptor, what, context, _ in
    guard let context else { return 0 }
    Unmanaged<HTTPClient>.fromOpaque(context)._withUnsafeGuaranteedRef { $0.wants(what, at: descriptor) }
    return 0
}

private let onTimer: curl_multi_timer_callback = { _, milliseconds, context in
    guard let context else { return 0 }
    Unmanaged<HTTPClient>.fromOpaque(context)._withUnsafeGuaranteedRef { $0.wantsCall(in: milliseconds) }
    return 0
}
