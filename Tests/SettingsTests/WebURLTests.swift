import Testing

@testable import Settings

@Suite("A web service URL")
struct WebURLTests {
    @Test(
        "is parsed into its parts",
        arguments: [
            ("https://host", "https", "host", 443, false, false),
            ("http://localhost/", "http", "localhost", 80, true, true),
            ("https://Host.Example.:8443/a@b?c@d#e", "https", "host.example.", 8443, true, false),
            ("http://LOCALHOST:1?x", "http", "localhost", 1, true, true),
            ("http://127.0.0.2:65535#x", "http", "127.0.0.2", 65_535, true, true),
            ("http://[::1]:80", "http", "::1", 80, false, true),
            ("https://[2001:DB8::1]/", "https", "2001:db8::1", 443, true, false),
            ("http://192.0.2.1", "http", "192.0.2.1", 80, false, false),
            ("http://[::ffff:127.0.0.1]", "http", "::ffff:127.0.0.1", 80, false, true),
            // Host names, however a resolver interprets them.
            ("http://127.0.0.1.evil", "http", "127.0.0.1.evil", 80, false, false),
            ("http://127.1", "http", "127.1", 80, false, false),
            ("http://127.0.0.01", "http", "127.0.0.01", 80, false, false),
            ("http://localhost.", "http", "localhost.", 80, false, false),
            ("http://1277.0.0.1", "http", "1277.0.0.1", 80, false, false),
        ])
    func parts(_ text: String, _ scheme: String, _ host: String, _ port: UInt16, _ hasPath: Bool, _ isLoopback: Bool)
        throws
    {
        let url = try WebURL(text)
        #expect(url.scheme.rawValue == scheme && url.host == host && url.port == port)
        #expect(url.hasPath == hasPath && url.isLoopback == isLoopback)
    }

    @Test(
        "is refused if it is ambiguous or malformed",
        arguments: [
            ("http://localhost:x@127.0.0.2:1/", "user or password"), ("http://127.0.0.1:80@evil/", "user or password"),
            ("https://u@host", "user or password"), ("https://@host", "user or password"),
            ("http://localhost\\@evil/", "user or password"),
            ("http://localhost\\evil/", "not a host name or an address"),
            ("https://", "host is missing"), ("https:///x", "host is missing"), ("https://?x", "host is missing"),
            ("https://:80/", "host is missing"), ("https://a b/", "%20"), ("https://a/b c", "%20"),
            ("https://a\u{0}/", "%20"), ("https://a/\n", "%20"), ("https://a/\r\n", "%20"), ("https://a/\u{7F}", "%20"),
            ("https://ä/", "%20"), ("https://a/ä", "%20"), ("https://a\u{301}/", "%20"),
            ("https://x:99999/", "only ':' and a port from 1 to 65535"),
            ("https://x:0/", "only ':' and a port from 1 to 65535"),
            ("https://x:/", "only ':' and a port from 1 to 65535"),
            ("https://x:8a/", "only ':' and a port from 1 to 65535"),
            ("https://x:+1/", "only ':' and a port from 1 to 65535"),
            ("https://x:1:2/", "only ':' and a port from 1 to 65535"), ("https://::1/", "host is missing"),
            ("https://[::1", "not closed"), ("https://[::1/]", "not closed"),
            ("https://[::1]8/", "only ':' and a port from 1 to 65535"),
            ("https://[::1]x/", "only ':' and a port from 1 to 65535"),
            ("https://[]/", "in brackets is not an IPv6 address"),
            ("https://[127.0.0.1]/", "in brackets is not an IPv6 address"),
            ("https://[fe80::1%25eth0]/", "in brackets is not an IPv6 address"),
            ("https://a%2eb/", "not a host name or an address"), ("https://-a/", "not a host name or an address"),
            ("https://a]/", "not a host name or an address"),
            ("ftp://x/", "must begin with https:// or http://"), ("HTTPS://x/", "must begin with https:// or http://"),
            ("https:/x", "must begin with https:// or http://"),
            ("", "must begin with https:// or http://"),
        ])
    func refused(_ text: String, _ reason: String) {
        let error = #expect(throws: WebURL.Mistake.self) { try WebURL(text) }
        #expect(error?.reason.contains(reason) == true, "\(String(describing: error))")
    }

    @Test("has one canonical form of its target")
    func target() throws {
        for text in ["http://LOCALHOST", "http://localhost:80/x", "http://127.0.0.1:80"] {
            #expect(try WebURL(text).target == "http://127.0.0.1:80")
        }
        #expect(try WebURL("https://[2001:DB8::1]/").target == "https://[2001:db8::1]:443")
    }
}
