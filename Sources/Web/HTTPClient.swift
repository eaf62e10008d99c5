internal import CCurl
package import Reactor

/// Sends requests to web servers: libcurl's multi interface on the loop (libcurl-multi(3), "multi_socket").
///
/// libcurl says which sockets it waits for (`onSocket`) and when it wants to be called at the latest (`onTimer`); the
/// loop calls `curl_multi_socket_action` then, and finished transfers are collected behind each such call. So nobody's
/// completion runs inside libcurl, which does not bear being called from its own callbacks.
///
/// Connections are kept for later requests to the same server with the same files. Names are resolved on threads of
/// libcurl's own.
///
/// ## Lifetime
/// Whoever made a client closes it. libcurl's callbacks borrow it, from `init` to the `curl_multi_cleanup` in
/// `close()`, behind which none of them comes; `deinit` traps when it was not closed.
package final class HTTPClient {
    /// Connections to one server; what goes beyond waits. Eight web requests in their ten seconds are more than an
    /// authenticator can use, and few enough for a small server.
    private static let maxConnectionsPerHost = 8
    /// Connections together, so that the descriptors of visitors are not used up.
    private static let maxConnections = 64
    /// Requests under way or waiting: of 16 KiB each or so, 16 MiB.
    private static let maxTasks = 1_024

    private let loop: EventLoop
    /// RFC 9110, 10.1.5.
    let userAgent: String
    /// Nil after `close()`.
    private var multi: UnsafeMutableRawPointer?
    private var timer: LoopTimer?
    private var polls: [curl_socket_t: DescriptorPoll] = [:]
    private var tasks: [UnsafeMutableRawPointer: HTTPTask] = [:]
    /// Could not be sent, and will be told so at the end of the turn.
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
        // Those that rest and wait for another request.
        _ = ccurl_multi_set_long(multi, CURLMOPT_MAXCONNECTS, Self.maxConnectionsPerHost)
    }

    deinit {
        precondition(self.multi == nil, "an HTTP client was dropped before close()")
    }

    /// Sends `request`; `completion` is called once, and never from inside this call.
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

    /// Calls off what is under way, whose completions will not be called, and closes every connection.
    package func close() {
        guard let multi = self.multi else { return }
        for task in self.failing + Array(self.tasks.values) { task.cancel() }
        self.multi = nil
        // Before libcurl closes their descriptors.
        for poll in self.polls.values { poll.close() }
        self.polls = [:]
        self.timer?.close()
        self.timer = nil
        curl_multi_cleanup(multi)
    }

    /// A task is over; afterwards its handle can be freed.
    func remove(_ easy: UnsafeMutableRawPointer) {
        guard let multi = self.multi, self.tasks.removeValue(forKey: easy) != nil else { return }
        curl_multi_remove_handle(multi, easy)
    }

    /// A task's failure was told, or needs to be no more.
    func forget(_ task: HTTPTask) { self.failing.removeAll { $0 === task } }

    // MARK: - libcurl and the loop

    /// Lets libcurl work on a descriptor, or on what is due, and tells of the transfers that ended by it.
    private func act(_ descriptor: curl_socket_t, _ events: CInt) {
        guard let multi = self.multi else { return }
        var running: CInt = 0
        curl_multi_socket_action(multi, descriptor, events, &running)
        var code = CURLE_OK
        // A completion may send, cancel and close: each round asks anew.
        while let multi = self.multi, let easy = ccurl_next_done(multi, &code) {
            self.tasks[easy]?.transferred(code)
        }
    }

    private func ready(_ descriptor: curl_socket_t, _ events: DescriptorPoll.Events) {
        var flags: CInt = 0
        // libcurl takes CURL_CSELECT_ERR for the end, though the answer may lie before the error, and a connection
        // that died while it rested is no failure: reading and writing tell it what the error is.
        if !events.isDisjoint(with: [.readable, .failed]) { flags |= CURL_CSELECT_IN }
        if !events.isDisjoint(with: [.writable, .failed]) { flags |= CURL_CSELECT_OUT }
        let poll = self.polls[descriptor]
        self.act(descriptor, flags)
        // An error has ended the watch. If libcurl still wants it, it goes on; the task's deadline bounds that.
        if events.contains(.failed), let poll, self.polls[descriptor] === poll { poll.watch(poll.events) }
    }

    /// libcurl waits for something else at `descriptor`.
    fileprivate func wants(_ what: CInt, at descriptor: curl_socket_t) {
        guard self.multi != nil else { return }
        if what == CURL_POLL_REMOVE {
            self.polls.removeValue(forKey: descriptor)?.close()
            return
        }
        let known = self.polls[descriptor]
        // It fails for want of memory only, and then the task's deadline ends it.
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

    /// libcurl wants to be called in `milliseconds`, or with -1 not at all.
    fileprivate func wantsCall(in milliseconds: Int) {
        if milliseconds < 0 { self.timer?.stop() } else { self.timer?.start(after: UInt64(milliseconds)) }
    }
}

/// curl_global_init(3), once a process.
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
