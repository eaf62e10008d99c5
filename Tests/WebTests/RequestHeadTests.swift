import Testing
import Web

@Suite("Request head")
struct RequestHeadTests {
    /// The outcome of parsing `text` when it arrives in pieces of `size` bytes.
    private func outcome(_ text: String, size: Int) -> RequestHead.Progress {
        var head = RequestHead()
        let bytes = Array(text.utf8)
        for start in stride(from: 0, to: bytes.count, by: size) {
            let piece = Array(bytes[start..<min(start + size, bytes.count)])
            let progress = piece.withUnsafeBytes { head.received($0) }
            if progress != .needMore { return progress }
        }
        return .needMore
    }

    @Test(
        "is parsed the same for every piece size",
        arguments: [
            ("GET /a HTTP/1.1\r\nHost: x\r\n\r\n", "GET", "/a"), ("HEAD /a?b=c HTTP/1.0\n\n", "HEAD", "/a"),
            ("POST http://host:1/p/q HTTP/1.1\r\n\r\nbody", "POST", "/p/q"),
            ("GET https://host HTTP/1.1\r\n\r\n", "GET", "/"),
        ])
    func requests(_ text: String, _ method: String, _ path: String) {
        for size in [1, 2, 3, 7, 1_000] {
            guard case .request(let line) = self.outcome(text, size: size) else {
                Issue.record("\(self.outcome(text, size: size)) in pieces of \(size)")
                continue
            }
            #expect(line.method == method)
            #expect(line.path == path)
        }
    }

    @Test(
        "is refused if malformed",
        arguments: [
            "\n\n", "GET\n\n", "GET /\n\n", "GET / HTTP/2\n\n", "GET a HTTP/1.1\n\n", " / HTTP/1.1\n\n",
            "GET  / HTTP/1.1\n\n", "GET / HTTP/1.1 \n\n",
        ])
    func invalid(_ text: String) {
        #expect(self.outcome(text, size: 1) == .invalid)
        #expect(self.outcome(text, size: 1_000) == .invalid)
    }

    @Test("is limited to 8 KiB")
    func length() {
        let line = "GET / HTTP/1.1\r\n"
        #expect(self.outcome(line + "X: " + String(repeating: "x", count: 8_000), size: 100) == .needMore)
        #expect(self.outcome(line + "X: " + String(repeating: "x", count: 9_000), size: 100) == .invalid)
    }
}
