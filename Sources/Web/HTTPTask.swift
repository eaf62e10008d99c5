internal import CCurl
internal import Reactor

/// A request in progress.
///
/// From `start` to `end` it owns one easy handle of libcurl and the memory that the handle points to: the list of
/// header fields, the buffer for error texts, and itself as the receiver of the response. This is safe because the
/// client retains the task as long as the task has the handle.
package final class HTTPTask {
    private let request: HTTPRequest
    private var client: HTTPClient?
    private var completion: ((Result<HTTPResponse, HTTPFailure>) -> Void)?
    private(set) var easy: UnsafeMutableRawPointer?
    private var fields: UnsafeMutablePointer<curl_slist>?
    private let errorText: UnsafeMutablePointer<CChar>
    private var timer: LoopTimer?
    private var body: [UInt8] = []
    private var isTooLarge = false
    /// Reported at the end of the turn.
    private var earlyFailure: HTTPFailure?

    init(
        client: HTTPClient, _ request: HTTPRequest,
        completion: @escaping (Result<HTTPResponse, HTTPFailure>) -> Void
    ) {
        self.client = client
        self.request = request
        self.completion = completion
        self.errorText = .allocate(capacity: Int(CURL_ERROR_SIZE))
        self.errorText.initialize(repeating: 0, count: Int(CURL_ERROR_SIZE))
    }

    deinit {
        precondition(self.easy == nil && self.timer == nil, "an HTTP task was dropped before its end")
        self.errorText.deallocate()
    }

    /// Cancels the request; its completion is not called.
    package func cancel() {
        guard self.completion != nil else { return }
        self.completion = nil
        self.end()
    }

    /// Creates the handle. Throws if the request cannot be sent.
    func start(loop: EventLoop) throws(HTTPFailure) -> UnsafeMutableRawPointer {
        if let refusal = self.request.refusal { throw .other(refusal) }
        guard let easy = curl_easy_init() else { throw .other("out of memory") }
        self.easy = easy
        try self.configure(easy)
        // Not CURLOPT_TIMEOUT_MS, which excludes the wait for a free connection.
        let timer = LoopTimer(loop: loop) { [unowned self] in self.finish(.failure(.timedOut)) }
        timer.start(after: self.request.timeout)
        self.timer = timer
        return easy
    }

    /// Fails at the end of the turn, so the completion is not called from inside `send`.
    func failLater(_ failure: HTTPFailure, loop: EventLoop) {
        self.earlyFailure = failure
        loop.atTurnEnd(self)
    }

    /// libcurl has finished the transfer.
    func transferred(_ code: CURLcode) {
        guard let easy = self.easy else { return }
        guard code == CURLE_OK else { return self.finish(.failure(self.failure(code))) }
        var fields: [String: String] = [:]
        for name in self.request.wantedFields {
            var header: UnsafeMutablePointer<curl_header>?
            // Fields of the last response (-1): an informational one may have come before.
            guard curl_easy_header(easy, name, 0, UInt32(CURLH_HEADER), -1, &header) == CURLHE_OK,
                let value = header?.pointee.value
            else { continue }
            fields[name.lowercased()] = String(cString: value)
        }
        let response = HTTPResponse(status: ccurl_status(easy), body: self.body, fields: fields)
        self.finish(.success(response))
    }

    private func finish(_ result: Result<HTTPResponse, HTTPFailure>) {
        guard let completion = self.completion else { return }
        self.completion = nil
        self.end()
        completion(result)
    }

    private func end() {
        self.timer?.close()
        self.timer = nil
        let client = self.client
        self.client = nil
        if self.earlyFailure != nil { client?.forget(self) }
        self.earlyFailure = nil
        guard let easy = self.easy else { return }
        self.easy = nil
        client?.remove(easy)
        curl_easy_cleanup(easy)
        curl_slist_free_all(self.fields)
        self.fields = nil
    }

    /// - Returns: how many of `count` bytes were accepted. Fewer make libcurl abort the transfer
    ///   (CURLOPT_WRITEFUNCTION).
    fileprivate func received(_ bytes: UnsafeMutablePointer<CChar>?, _ count: Int) -> Int {
        guard self.body.count + count <= self.request.maxResponse else {
            self.isTooLarge = true
            return 0
        }
        self.body += UnsafeRawBufferPointer(start: bytes, count: count)
        return count
    }

    // MARK: - Failures

    private func failure(_ code: CURLcode) -> HTTPFailure {
        if self.isTooLarge { return .tooLarge }
        let text = self.text(code)
        switch code {
        case CURLE_OPERATION_TIMEDOUT: return .timedOut
        case CURLE_COULDNT_CONNECT, CURLE_COULDNT_RESOLVE_HOST: return .cannotConnect(text)
        case CURLE_SSL_CONNECT_ERROR, CURLE_PEER_FAILED_VERIFICATION, CURLE_SSL_CERTPROBLEM, CURLE_SSL_CIPHER,
            CURLE_SSL_CACERT_BADFILE, CURLE_SSL_ISSUER_ERROR, CURLE_SSL_CLIENTCERT:
            return .tls(text)
        // In TLS 1.3 the server rejects a missing certificate only when the connection is already open (RFC 8446,
        // 4.4.2.4).
        case CURLE_RECV_ERROR, CURLE_SEND_ERROR: return text.contains("SSL") ? .tls(text) : .other(text)
        default: return .other(text)
        }
    }

    /// libcurl's error text for the log. It may quote data from the server.
    private func text(_ code: CURLcode) -> String {
        var text = String(cString: self.errorText)
        if text.isEmpty { text = String(cString: curl_easy_strerror(code)) }
        return String(text.unicodeScalars.map { $0.properties.generalCategory == .control ? " " : Character($0) })
    }

    // MARK: - Options

    private func configure(_ easy: UnsafeMutableRawPointer) throws(HTTPFailure) {
        let request = self.request
        func check(_ code: CURLcode) throws(HTTPFailure) {
            if code != CURLE_OK { throw .other(String(cString: curl_easy_strerror(code))) }
        }
        func set(_ option: CURLoption, _ value: Int) throws(HTTPFailure) {
            try check(ccurl_set_long(easy, option, value))
        }
        func set(_ option: CURLoption, _ value: String?) throws(HTTPFailure) {
            try check(ccurl_set_string(easy, option, value))
        }
        try check(ccurl_set_pointer(easy, CURLOPT_ERRORBUFFER, self.errorText))
        try check(ccurl_set_write(easy, onWrite, Unmanaged.passUnretained(self).toOpaque()))
        try set(CURLOPT_URL, request.url)
        try set(CURLOPT_PROTOCOLS_STR, "http,https")
        try set(CURLOPT_HTTP_VERSION, CURL_HTTP_VERSION_1_1)
        try set(CURLOPT_USERAGENT, self.client?.userAgent)
        try set(CURLOPT_FOLLOWLOCATION, 0)
        try set(CURLOPT_UNIX_SOCKET_PATH, request.unixSocket)
        try set(CURLOPT_CONNECTTIMEOUT_MS, max(1, Int(clamping: min(request.connectTimeout, request.timeout))))
        // Ignore proxies of the environment (http_proxy), and do not use signals (SIGALRM).
        try set(CURLOPT_NOPROXY, "*")
        try set(CURLOPT_NOSIGNAL, 1)
        // When a request is cancelled, do not wait for the thread that resolves its name.
        try set(CURLOPT_QUICK_EXIT, 1)

        try set(CURLOPT_SSL_VERIFYPEER, 1)
        try set(CURLOPT_SSL_VERIFYHOST, 2)
        try set(CURLOPT_SSLVERSION, CURL_SSLVERSION_TLSv1_2)
        // Without this, the directory of the system's authorities would be trusted in addition to the given file. It
        // also enables the cache of the parsed file; ten minutes, because the file may change.
        try set(CURLOPT_CAPATH, nil)
        try set(CURLOPT_CA_CACHE_TIMEOUT, 600)
        if let file = request.authorityFile { try set(CURLOPT_CAINFO, file) }
        try set(CURLOPT_SSLCERT, request.certificateFile)
        try set(CURLOPT_SSLKEY, request.keyFile)
        // Otherwise OpenSSL would prompt for a passphrase on the terminal.
        try set(CURLOPT_KEYPASSWD, "")

        if request.method == .head { try set(CURLOPT_NOBODY, 1) }
        if request.hasBody {
            try set(CURLOPT_POST, 1)
            try check(ccurl_set_offset(easy, CURLOPT_POSTFIELDSIZE_LARGE, curl_off_t(request.body.count)))
            let code = request.body.withUnsafeBytes { body in
                // libcurl takes a null pointer as no body at all.
                let empty: StaticString = ""
                return ccurl_set_pointer(
                    easy, CURLOPT_COPYPOSTFIELDS,
                    UnsafeMutableRawPointer(mutating: body.baseAddress ?? UnsafeRawPointer(empty.utf8Start)))
            }
            try check(code)
        }
        if request.method != .get, request.method != .head { try set(CURLOPT_CUSTOMREQUEST, request.method.rawValue) }
        try self.add(easy)
    }

    private func add(_ easy: UnsafeMutableRawPointer) throws(HTTPFailure) {
        // `Name:` without a value keeps libcurl from adding the field (CURLOPT_HTTPHEADER): no "Expect", and no default
        // "Content-Type" of a form. `Name;` sends the field with an empty value.
        var lines = ["Expect:"]
        let names = Set(self.request.fields.map { $0.name.lowercased() })
        if !names.contains("content-type") { lines.append("Content-Type:") }
        lines += self.request.fields.map { $0.value.isEmpty ? "\($0.name);" : "\($0.name): \($0.value)" }
        for line in lines {
            guard let longer = curl_slist_append(self.fields, line) else { throw .other("out of memory") }
            self.fields = longer
        }
        guard ccurl_set_list(easy, CURLOPT_HTTPHEADER, self.fields) == CURLE_OK else { throw .other("out of memory") }
    }
}

extension HTTPTask: TurnEndHandler {
    package func turnDidEnd() {
        guard let failure = self.earlyFailure else { return }
        self.finish(.failure(failure))
    }
}

private let onWrite: ccurl_write_callback = { bytes, size, count, context in
    guard let context else { return 0 }
    return Unmanaged<HTTPTask>.fromOpaque(context)._withUnsafeGuaranteedRef { $0.received(bytes, size * count) }
}
