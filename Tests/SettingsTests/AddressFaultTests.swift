import Testing

@testable import Settings

@Suite("An error about an address")
struct AddressFaultTests {
    private static let backendForm = "HOST:PORT, PORT or unix:PATH"
    private static let gatewayForm = "HOST, HOST:PORT or diglett://TOKEN@HOST:PORT#sha256/PIN"
    private static let folderReason =
        "a folder needs a web server that serves it, for example 'python3 -m http.server 9000'; then write '9000'"

    @Test(
        "about a backend explains what to write",
        arguments: [
            ("", "write \(Self.backendForm)"), ("a b:1", "write \(Self.backendForm)"),
            ("a\u{7}:1", "write \(Self.backendForm)"),
            ("localhost", "the port is missing, write 'localhost:PORT'"),
            ("localhost:", "the port after ':' is missing"), (":", "the port after ':' is missing"),
            ("localhost:http", "'http' is not a port, use 1 to 65535"), ("a:-1", "'-1' is not a port, use 1 to 65535"),
            ("localhost:0", "'0' is not a port, use 1 to 65535"), ("0", "'0' is not a port, use 1 to 65535"),
            ("65536", "'65536' is not a port, use 1 to 65535"),
            (":9000", "the host is missing, write HOST:9000, 9000 or unix:PATH"),
            ("http://localhost:9000", "leave out 'http://', write 'localhost:9000'"),
            (
                "https://localhost:9000/x?y#z",
                "leave out 'https://', write 'localhost:9000'; visitors must speak TLS to it"
            ),
            ("http://", "leave out 'http://', write \(Self.backendForm)"),
            ("::1", "write an IPv6 address in brackets, '[::1]:PORT'"),
            ("::1:80", "write an IPv6 address in brackets, '[::1]:80'"),
            ("2001:db8::1:9000", "write an IPv6 address in brackets, '[2001:db8::1]:9000'"),
            ("a:b:1", "it has several colons; write an IPv6 address in brackets, '[::1]:PORT'"),
            ("[::1", "the bracket '[' is not closed"), ("[::1]", "the port is missing, write '[::1]:PORT'"),
            ("[::1]9000", "write \(Self.backendForm)"), ("[::1]:", "the port after ':' is missing"),
            ("[::1]:x", "'x' is not a port, use 1 to 65535"), ("[::1]:0", "'0' is not a port, use 1 to 65535"),
            ("[x]:1", "write \(Self.backendForm)"),
            ("/nonexistent/x", "for a unix socket write 'unix:/nonexistent/x'"),
            ("x.sock", "for a unix socket write 'unix:x.sock'"), (".", Self.folderReason), ("..", Self.folderReason),
            ("~", Self.folderReason), ("/", Self.folderReason),
        ])
    func backend(_ text: String, _ reason: String) {
        let shown = SettingsError("f:1", "'\(text)' is not a backend: \(reason)").description
        #expect(message { try BackendAddress(text, place: "f:1") } == shown)
    }

    @Test("about a unix socket contains the longest path")
    func path() {
        let long = "unix:/" + String(repeating: "a", count: 107)
        for text in ["unix:", long] {
            #expect(
                message { try BackendAddress(text, place: "f:1") }
                    == "f:1: '\(text)' is not a backend: the path of a unix socket has 1 to 107 bytes")
        }
    }

    @Test(
        "about a gateway explains what to write, and hides the token",
        arguments: [
            ("", "''", "write \(Self.gatewayForm)"), ("gw:", "'gw:'", "the port after ':' is missing"),
            ("gw:x", "'gw:x'", "'x' is not a port, use 1 to 65535"),
            ("gw:0", "'gw:0'", "'0' is not a port, use 1 to 65535"),
            (
                ":20001", "':20001'",
                "the host is missing, write HOST, HOST:20001 or diglett://TOKEN@HOST:20001#sha256/PIN"
            ),
            ("https://gw.example/", "'https://gw.example/'", "leave out 'https://', write 'gw.example'"),
            ("::1", "'::1'", "write an IPv6 address in brackets, '[::1]:PORT'"),
            ("[::1", "'[::1'", "the bracket '[' is not closed"), ("[x]", "'[x]'", "write \(Self.gatewayForm)"),
            ("diglett://secret@gw:x#sha256/A", "'gw:x'", "'x' is not a port, use 1 to 65535"),
            ("diglett://secret@", "''", "write \(Self.gatewayForm)"),
        ])
    func gateway(_ text: String, _ shown: String, _ reason: String) {
        #expect(
            message { try GatewayAddress(text, defaultPort: 20_000, place: "option --gateway") }
                == "option --gateway: \(shown) is not a gateway address: \(reason)")
    }

    @Test(
        "about a listener explains what to write; port 0 is allowed",
        arguments: [
            ("20000", "the host is missing, write 0.0.0.0:20000 for IPv4, [::]:20000 for IPv6 or localhost:20000"),
            (":20000", "the host is missing, write 0.0.0.0:20000 for IPv4, [::]:20000 for IPv6 or localhost:20000"),
            ("0", "the host is missing, write 0.0.0.0:0 for IPv4, [::]:0 for IPv6 or localhost:0"),
            ("70000", "'70000' is not a port, use 0 to 65535"), ("a:x", "'x' is not a port, use 0 to 65535"),
            ("localhost", "the port is missing, write 'localhost:PORT'"),
            ("tcp://0.0.0.0:1", "leave out 'tcp://', write '0.0.0.0:1'"),
            (":::1", "write an IPv6 address in brackets, '[::]:1'"),
        ])
    func listener(_ text: String, _ reason: String) {
        var options = CommandOptions()
        options["state-dir"] = ["/nonexistent"]
        options["listen"] = [text]
        let found = GatewaySettings.examine(options).problems.map(\.description)
        #expect(found == ["option --listen: '\(text)' is not an address to listen on: \(reason)"])
    }
}

@Suite("An error about a pin")
struct PinTextTests {
    private static let hash = String(repeating: "A", count: 43)

    @Test(
        "names the faulty part",
        arguments: [
            ("", "a pin begins with 'sha256/', as 'diglett-server' and 'diglett key' print it"),
            ("sha1/\(Self.hash)=", "a pin begins with 'sha256/', as 'diglett-server' and 'diglett key' print it"),
            ("SHA256/\(Self.hash)=", "a pin begins with 'sha256/', as 'diglett-server' and 'diglett key' print it"),
            ("sha256/\(Self.hash)", "the last character '=' is missing"),
            ("sha256/", "the part after 'sha256/' must have 44 characters, it has 0; copy all of it"),
            ("sha256/short", "the part after 'sha256/' must have 44 characters, it has 5; copy all of it"),
            ("sha256/\(Self.hash)==", "the part after 'sha256/' must have 44 characters, it has 45; copy all of it"),
            (
                "sha256/\(Self.hash.dropLast())=",
                "the part after 'sha256/' must have 44 characters, it has 43; copy all of it"
            ),
            // Unused bits that are set, another alphabet, and 33 bytes.
            (
                "sha256/\(Self.hash.dropLast())B=",
                "the part after 'sha256/' is not Base64 of 32 bytes, copy it again"
            ),
            (
                "sha256/\(Self.hash.dropLast())_=",
                "the part after 'sha256/' is not Base64 of 32 bytes, copy it again"
            ),
            ("sha256/\(Self.hash)A", "the part after 'sha256/' is not Base64 of 32 bytes, copy it again"),
        ])
    func fault(_ text: String, _ reason: String) {
        #expect(PinText.fault(of: text) == "'\(text)' is not a pin: \(reason)")
    }

    @Test("is nil for a pin, and shows at most 100 characters of another text")
    func shown() {
        #expect(PinText.fault(of: "sha256/\(Self.hash)=") == nil)
        let long = PinText.fault(of: String(repeating: "\n", count: 300)) ?? ""
        #expect(long.hasPrefix("'\\u{A}") && !long.contains("\n") && long.count < 700, "\(long)")
    }
}
