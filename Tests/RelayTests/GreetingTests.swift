import ProxyProtocol
import Reactor
import Secure
import Testing
import Wire

@testable import Relay

@Suite("Greeting")
struct GreetingTests {
    /// A record with the beginning of a ClientHello: a message of four bytes.
    private static let hello: [UInt8] = [22, 3, 1, 0, 8, 1, 0, 0, 4, 3, 3, 0, 0]
    private static let line = Array("PROXY TCP4 192.0.2.1 203.0.113.7 5 6\r\n".utf8)
    private static let header = ProxyHeader.proxied(
        source: WireAddress(family: 4, bytes: (0xC000_0201_0000_0000, 0), port: 5),
        destination: WireAddress(family: 4, bytes: (0xCB00_7107_0000_0000, 0), port: 6))

    private static func greeting() throws -> Greeting {
        let context = try TLSContext.client(identity: nil, trustsSystemRoots: false, applicationProtocol: "x")
        return Greeting(.version2(context, serverName: nil))
    }

    /// Feeds the bytes in pieces of `size`. Returns the header, if there was one, and the last progress.
    private func judge(_ bytes: [UInt8], by size: Int, _ greeting: Greeting) -> (ProxyHeader?, Greeting.Progress) {
        var header: ProxyHeader?
        var progress = Greeting.Progress.needMore
        for start in stride(from: 0, to: bytes.count, by: size) {
            progress = bytes[start..<min(start + size, bytes.count)].withUnsafeBytes { greeting.received($0) }
            if case .header(let found) = progress {
                header = found
                progress = greeting.next()
            }
            guard progress == .needMore else { break }
        }
        return (header, progress)
    }

    private func handshake(_ greeting: Greeting) -> [UInt8] {
        var bytes: [UInt8] = []
        greeting.withHandshake { bytes = Array($0) }
        return bytes
    }

    @Test(
        "reads an optional header and the first message, in pieces of any size", arguments: [1, 2, 3, 7, 1_000])
    func pieces(size: Int) throws {
        let binary = Self.header.encoded(.v2)
        for (bytes, header) in [
            (Self.hello, nil), (Self.line + Self.hello, Self.header), (binary + Self.hello, Self.header),
            (ProxyHeader.local.encoded(.v2) + Self.hello, .local),
        ] {
            let greeting = try Self.greeting()
            let (found, progress) = self.judge(bytes, by: size, greeting)
            #expect(found == header)
            #expect(progress == .whole)
            #expect(self.handshake(greeting) == Self.hello)
        }
    }

    @Test("a header alone does not complete the greeting, and a second header is refused", arguments: [1, 1_000])
    func headersOnly(size: Int) throws {
        #expect(self.judge(Self.line, by: size, try Self.greeting()) == (Self.header, .needMore))
        let (header, progress) = self.judge(Self.line + Self.line, by: size, try Self.greeting())
        #expect(header == Self.header)
        #expect(progress == .failed(.otherProtocol(firstByte: 0x50)))
    }

    @Test("another protocol is reported by its first byte, and a broken header by its fault", arguments: [1, 1_000])
    func others(size: Int) throws {
        for text in ["GET / HTTP/1.1", "POST / HTTP/1.1", "\r\n", "SSH-2.0"] {
            let (header, progress) = self.judge(Array(text.utf8), by: size, try Self.greeting())
            #expect(header == nil)
            let first = try #require(text.utf8.first)
            let isBeginning = text == "\r\n"
            #expect(progress == (isBeginning ? .needMore : .failed(.otherProtocol(firstByte: first))), "\(text)")
        }
        let broken = Array("PROXY TCP4 192.0.2.1 x 5 6\r\n".utf8)
        guard case (nil, .failed(.security(let error))) = self.judge(broken, by: size, try Self.greeting()) else {
            return _ = Issue.record("not refused")
        }
        #expect(error.description == ProxyFault.badAddress.description)
        let large: [UInt8] = [22, 3, 1, 64, 0, 1, 1, 0, 0] + [UInt8](repeating: 0, count: 100)
        #expect(self.judge(large, by: size, try Self.greeting()).1 == .tooLarge)
    }

    @Test("an agent of version 1 can connect through a proxy")
    func version1() {
        #expect(self.judge(Self.line + Array("digl".utf8), by: 3, Greeting(.version1)).0 == Self.header)
    }
}
