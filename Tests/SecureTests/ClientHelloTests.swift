import Bytes
import Secure
import Testing

@Suite("ClientHello")
struct ClientHelloTests {
    /// A message of type `type` with `size` bytes, in records of `pieces` bytes.
    private func hello(_ size: Int, pieces: Int = 1 << 14, type: UInt8 = 1) -> [UInt8] {
        let message: [UInt8] =
            [type, UInt8(size >> 16 & 255), UInt8(size >> 8 & 255), UInt8(size & 255)]
            + [UInt8](repeating: 7, count: size)
        var bytes: [UInt8] = []
        for start in stride(from: 0, to: message.count, by: pieces) {
            let piece = message[start..<min(start + pieces, message.count)]
            bytes += [22, 3, 1, UInt8(piece.count >> 8), UInt8(piece.count & 255)] + piece
        }
        return bytes
    }

    private func state(_ bytes: [UInt8]) -> ClientHello.State { ClientHello.state(of: bytes.span.bytes) }

    @Test(
        "is complete with its last byte, and not earlier",
        arguments: [(0, 1 << 14), (1, 5), (300, 1 << 14), (300, 7), (16_380, 1_000)])
    func whole(_ size: Int, _ pieces: Int) {
        let bytes = hello(size, pieces: pieces)
        for count in 0..<bytes.count {
            let isWaiting = state(Array(bytes[..<count])) == .needMore
            #expect(isWaiting, "after \(count) bytes")
            if !isWaiting { return }
        }
        #expect(state(bytes) == .whole)
        #expect(state(bytes + [1, 2, 3]) == .whole)
    }

    @Test("is refused at the first byte that no TLS client sends")
    func invalid() {
        #expect(state([0x47, 0x45, 0x54]) == .invalid, "GET")
        #expect(state([22, 2]) == .invalid, "not version 3.x")
        #expect(state([22, 3, 1, 0, 0]) == .invalid, "an empty record")
        #expect(state([22, 3, 1, 0x40, 1]) == .invalid, "a record of more than 16 KiB")
        #expect(state(Array(hello(10, type: 2)[..<9])) == .invalid, "another message")
        #expect(state(Array(hello(16_381)[..<9])) == .tooLarge, "more than 16 KiB")
        #expect(state(Array(hello(300, pieces: 10)[..<15]) + [23]) == .invalid, "another record in between")
        #expect(state(hello(300, pieces: 2)) == .tooLarge, "more than 64 records")
    }

    @Test("is complete when sent by OpenSSL")
    func real() throws {
        let context = try TLSContext.client(identity: nil, trustsSystemRoots: false, applicationProtocol: "diglett/2")
        let session = try TLSSession(context: context, serverName: "gateway.example.com")
        var output = ByteQueue()
        try session.start(output: &output)
        let bytes = output.withReadable { Array($0) }
        #expect(state(bytes) == .whole)
        #expect(state(bytes.dropLast()) == .needMore)
    }
}
