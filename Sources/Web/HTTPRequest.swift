/// What to ask a web server, and what to trust it with.
package struct HTTPRequest: Sendable {
    package enum Method: String, Sendable {
        case get = "GET"
        case head = "HEAD"
        case post = "POST"
        case put = "PUT"
        case patch = "PATCH"
        case delete = "DELETE"
    }

    package struct Field: Hashable, Sendable {
        package let name: String
        package let value: String

        package init(_ name: String, _ value: String) {
            self.name = name
            self.value = value
        }
    }

    package var method: Method
    /// `http://` or `https://`.
    package var url: String
    /// Header fields; they may hold secrets and appear in no log.
    package var fields: [Field] = []
    /// Sent by POST, PUT and PATCH, also when empty; by DELETE unless empty; by GET and HEAD never.
    package var body: [UInt8] = []
    /// Milliseconds for everything together, the wait for a free connection too.
    package var timeout: UInt64
    /// Milliseconds for the name's resolution, the connection and TLS.
    package var connectTimeout: UInt64
    /// Bytes that the answer's body may have. libcurl reads as long as there is something to be read (at least until
    /// 7.88), so this is also how much of a fast server's answer the loop may have to take in one turn.
    package var maxResponse = 64 * 1_024
    /// Names of the header fields that are wanted from the answer.
    package var wantedFields = ["Content-Type"]
    /// PEM: who may certify the server, instead of the system's authorities.
    package var authorityFile: String?
    /// PEM: our certificate, and its key without a passphrase.
    package var certificateFile: String?
    package var keyFile: String?
    /// Connects to this socket instead of the URL's host and port.
    package var unixSocket: String?

    package init(method: Method = .get, url: String, timeout: UInt64 = 10_000, connectTimeout: UInt64 = 5_000) {
        self.method = method
        self.url = url
        self.timeout = timeout
        self.connectTimeout = connectTimeout
    }

    var hasBody: Bool {
        switch self.method {
        case .get, .head: false
        case .post, .put, .patch: true
        case .delete: !self.body.isEmpty
        }
    }

    /// Why it must not be sent, or nil.
    var refusal: String? {
        let scheme = self.url.prefix(8).lowercased()
        guard scheme.hasPrefix("http://") || scheme == "https://" else { return "the URL is neither http nor https" }
        // RFC 3986, 2: neither controls nor blanks; a zero byte would end the text early.
        guard self.url.utf8.allSatisfy({ $0 > 0x20 && $0 != 0x7F }) else { return "the URL has a control or a blank" }
        for field in self.fields {
            guard field.isToken else { return "a header field's name is none" }
            // A line end would begin another field: the value may come from an agent.
            guard field.isText else { return "the header field \(field.name) has a control in its value" }
            guard !field.isFraming else { return "the header field \(field.name) is not the caller's to set" }
        }
        for path in [self.authorityFile, self.certificateFile, self.keyFile, self.unixSocket] {
            if let path, path.utf8.contains(0) { return "a file's path has a zero byte" }
        }
        return nil
    }
}

extension HTTPRequest.Field {
    /// RFC 9110, 5.6.2.
    fileprivate var isToken: Bool {
        !self.name.isEmpty
            && self.name.utf8.allSatisfy { byte in
                switch byte {
                case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
                    UInt8(ascii: "0")...UInt8(ascii: "9"):
                    true
                default: "!#$%&'*+-.^_`|~".utf8.contains(byte)
                }
            }
    }

    /// RFC 9110, 5.5: of the controls only the tabulator.
    fileprivate var isText: Bool { self.value.utf8.allSatisfy { ($0 >= 0x20 && $0 != 0x7F) || $0 == 0x09 } }

    /// RFC 9112, 6: they tell where the body ends, which is known from the body itself.
    fileprivate var isFraming: Bool { ["content-length", "transfer-encoding"].contains(self.name.lowercased()) }
}

/// A web server's answer, whatever its status is: redirects are not followed.
package struct HTTPResponse: Equatable, Sendable {
    package let status: Int
    package let body: [UInt8]
    /// Those of the wanted fields that came, by their names in lower case.
    package let fields: [String: String]

    package init(status: Int, body: [UInt8], fields: [String: String] = [:]) {
        self.status = status
        self.body = body
        self.fields = fields
    }

    package subscript(name: String) -> String? { self.fields[name.lowercased()] }
}

/// Why there is no answer. No description holds anything of the request but its host.
package enum HTTPFailure: Error, Equatable, Sendable, CustomStringConvertible {
    case timedOut
    /// The name is not known, or no program listens on this socket.
    case cannotConnect(String)
    /// The server did not show that it is the one that was meant, or did not take our certificate, or a file of
    /// certificates cannot be used.
    case tls(String)
    /// The answer is longer than it may be.
    case tooLarge
    case other(String)

    package var description: String {
        switch self {
        case .timedOut: "timed out"
        case .cannotConnect(let text): "cannot connect: \(text)"
        case .tls(let text): "TLS: \(text)"
        case .tooLarge: "the answer is too large"
        case .other(let text): text
        }
    }
}
