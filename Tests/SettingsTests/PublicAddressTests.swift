import Testing

@testable import Settings

@Suite("Public addresses")
struct PublicAddressTests {
    @Test(
        "are HOST:PORT or web URLs",
        arguments: [
            "127.0.0.1:33605", "gateway.example.com:1", "my_gateway:65535", "a:80", "[2001:db8::1]:443", "[::1]:1",
            "[::ffff:192.0.2.1]:80", "xn--mller-kva.example:80",
            "1.example:80", "http://example.gateway.test", "https://example.gateway.test/",
            "https://gateway.test:8443/example", "http://[2001:db8::1]:80/x", "https://a.test/~b/c-d_e.f/%2F%c3%bc@1",
            "HOST:80",
        ])
    func good(_ text: String) {
        #expect(PublicAddress(text)?.description == text)
    }

    @Test(
        "are refused if a shell, a program's options or another parser could misread them",
        arguments: [
            "", ":80", "a", "a:", "a:0", "a:65536", "a:080", "a:+80", "a:8 0", "a: 80", " a:80", "a:80 ", "a:80\n",
            "-oProxyCommand=x:22", "$(id):80", "`id`:80", "a;id:80", "a|b:80", "a&b:80", "a>b:80", "a b:80", "a\"b:80",
            "a'b:80", "a*b:80", "~:80", "a\\b:80", "é:80", "a..b:80", ".a:80", "a.:80", "a-:80", "a.-b:80", "a%20b:80",
            "127.1:80", "1:80", "0x7f000001:80", "0x7f.1:80", "127.0.0.01:80", "256.0.0.1:80", "1.2.3.4.5:80",
            "2001:db8::1:80", "[2001:db8::1]", "[2001:db8::g]:80", "[fe80::1%eth0]:80", "[a]:80", "[1.2.3.4]:80",
            "[::1:80", "::1]:80", "user@a:80", "a/b:80", "unix:/run/x.sock", "file:///etc/passwd", "ftp://a/",
            "tcp://a:80",
            "javascript:alert(1)", "HTTP://a.test", "http:/a.test", "http://", "http:///x", "https://u:p@a.test",
            "https://a.test@b.test", "https://-a.test", "https://127.1/", "https://a.test:0", "https://a.test:080",
            "https://a.test:99999", "https://a.test/$(id)", "https://a.test/`id`", "https://a.test/a b",
            "https://a.test/'", "https://a.test/\"", "https://a.test/;id", "https://a.test/&id", "https://a.test/|id",
            "https://a.test/<x>", "https://a.test/%", "https://a.test/%2", "https://a.test/%zz", "https://a.test/\\",
            "https://a.test?x=1", "https://a.test/#x", "https://a.test/!x", "https://a.test/(x)", "https://a.test/*",
            "behind the gateway's proxy", "\u{202E}a:80", "a\u{0}:80", String(repeating: "a", count: 64) + ":80",
            "https://a.test/" + String(repeating: "x", count: 512),
        ])
    func bad(_ text: String) {
        #expect(PublicAddress(text) == nil)
    }

    @Test("a gateway that listens on all addresses is reached at the dialled address")
    func seen() {
        func seen(_ text: String, _ gateway: String) -> String? { PublicAddress(text)?.seen(from: gateway) }
        #expect(seen("0.0.0.0:80", "gw.test") == "gw.test:80")
        #expect(seen("[::]:80", "2001:db8::1") == "[2001:db8::1]:80")
        #expect(seen("[::ffff:0.0.0.0]:80", "gw.test") == "gw.test:80")
        #expect(seen("127.0.0.1:80", "localhost") == "localhost:80")
        #expect(seen("127.0.0.1:80", "gw.test") == "127.0.0.1:80")
        #expect(seen("192.0.2.1:80", "localhost") == "192.0.2.1:80")
        #expect(seen("http://0.0.0.0:80", "gw.test") == "http://0.0.0.0:80")
    }
}

@Suite("Loopback hosts")
struct LoopbackHostTests {
    @Test(
        "are recognized alike in every setting",
        arguments: zip(
            [
                "localhost", "LOCALHOST", "127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1", "::ffff:7f00:1",
                "192.0.2.1", "2001:db8::1", "::ffff:192.0.2.1", "0.0.0.0", "127.1", "127.0.0.1.example", "::127.0.0.1",
                "localhost.example",
            ],
            [
                true, true, true, true, true, true, true, false, false, false, false, false, false, false, false,
            ]))
    func agree(_ host: String, _ isLoopback: Bool) throws {
        let hostPort = HostPort(host: host, port: 80)
        #expect(hostPort.isLoopback == isLoopback)
        #expect(try WebURL("http://\(hostPort)").isLoopback == isLoopback)
    }

    @Test("an IPv4-mapped address and its IPv4 address cannot both be listened on")
    func excludes() throws {
        let four = HostPort(host: "127.0.0.1", port: 80)
        #expect(four.excludes(HostPort(host: "::ffff:127.0.0.1", port: 80)))
        #expect(four.excludes(HostPort(host: "::ffff:0.0.0.0", port: 80)))
        #expect(!four.excludes(HostPort(host: "::1", port: 80)))
        #expect(try WebURL("http://[::ffff:127.0.0.1]:2019").target == WebURL("http://localhost:2019").target)
    }
}
