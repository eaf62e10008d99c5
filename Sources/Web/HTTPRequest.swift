/// A request to a web server, with the certificates to use.
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
    /// Header fields. They may hold secrets and must not be logged.
    package var fields: [Field] = []
    /// Sent with POST, PUT and PATCH even if empty, with DELETE unless empty, and never with GET and HEAD.
    package var body: [UInt8] = []
    /// Milliseconds for the whole request, including the wait for a free connection.
    package var timeout: UInt64
    /// Milliseconds for name resolution, connecting and the TLS handshake.
    package var connectTimeout: UInt64
    /// Maximum size of the response body in bytes. libcurl reads for as long as data is available (at least up to
    /// 7.88), so this is also how much of a fast server's response the loop may process in one turn.
    package var maxResponse = 64 * 1_024
    /// Header fields of the response to keep.
    package var wantedFields = ["Content-Type"]
    /// PEM file of the authorities that may certify the server, in place of the system's.
    package var authorityFile: String?
    /// PEM files: our certificate, and its key without a passphrase.
    package var certificateFile: String?
    package var keyFile: String?
    /// Connect to this unix socket instead of the URL's host and port.
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

    /// Why the request must not be sent; nil if it is valid.
    var refusal: String? {
        let scheme = self.url.prefix(8).lowercased()
        guard scheme.hasPrefix("http://") || scheme == "https://" else { return "the URL is neither http nor https" }
        // RFC 3986, 2: neither control characters nor blanks. A zero byte would truncate the C string.
        guard self.url.utf8.allSatisfy({ $0 > 0x20 && $0 != 0x7F }) else { return "the URL has a control or a blank" }
        for field in self.fields {
            guard field.isToken else { return "the name of a header field is not valid" }
            // A line break would start another field: the value may come from an agent.
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
    /// A token, RFC 9110, 5.6.2.
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

    /// RFC 9110, 5.5: the only control character allowed is the tab.
    fileprivate var isText: Bool { self.value.utf8.allSatisfy { ($0 >= 0x20 && $0 != 0x7F) || $0 == 0x09 } }

    /// RFC 9112, 6: these fields delimit the body, and libcurl sets them.
    fileprivate var isFraming: Bool { ["content-length", "transfer-encoding"].contains(self.name.lowercased()) }
}

/// A web server's response with any status; redirects are not followed.
package struct HTTPResponse: Equatable, Sendable {
    package let status: Int
    package let body: [UInt8]
    /// The wanted fields that were present, by lower-case name.
    package let fields: [String: String]

    package init(status: Int, body: [UInt8], fields: [String: String] = [:]) {
        self.status = status
        self.body = body
        self.fields = fields
    }

    package subscript(name: String) -> String? { self.fields[name.lowercased()] }
}

/// Why there is no response. Of the request, a description contains at most the host.
package enum HTTPFailure: Error, Equatable, Sendable, CustomStringConvertible {
    case timedOut
    /// The host is unknown, or the port does not accept connections.
    case cannotConnect(String)
    /// The server's certificate was not valid, the server rejected ours, or a certificate file is unusable.
    case tls(String)
    /// The response exceeds `maxResponse`.
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
