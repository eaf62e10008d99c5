import Agent
import Testing

@Suite("Listening sockets")
struct ListeningSocketsTests {
    private let header =
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"

    @Test(
        "are recognized by state, port and address",
        arguments: [
            ("0100007F:2328 00000000:0000 0A", true), ("00000000:2328 00000000:0000 0A", true),
            ("0200007F:2328 00000000:0000 0A", true), ("0101A8C0:2328 00000000:0000 0A", false),
            ("0100007F:2329 00000000:0000 0A", false), ("0100007F:2328 0100007F:D431 01", false),
            ("00000000000000000000000000000000:2328 00000000000000000000000000000000:0000 0A", true),
            ("00000000000000000000000001000000:2328 00000000000000000000000000000000:0000 0A", true),
            ("0000000000000000FFFF00000100007F:2328 00000000000000000000000000000000:0000 0A", true),
            ("B80D0120000000000000000001000000:2328 00000000000000000000000000000000:0000 0A", false), ("", false),
            ("0100007F", false), ("0100007F:xyz 0:0 0A", false),
        ])
    func tcp(_ line: String, _ isThere: Bool) {
        let list = self.header + "   0: 0100007F:0016 00000000:0000 0A 0:0\n   1: \(line) 00000000:00000000 00:0 0\n"
        #expect(ListeningSockets.loopbackPorts(in: list).contains(9_000) == isThere)
        #expect(ListeningSockets.loopbackPorts(in: self.header).isEmpty)
    }

    @Test("are recognized by path and flag if they are unix sockets")
    func unix() {
        let list = """
            Num       RefCount Protocol Flags    Type St Inode Path
            0000000000000000: 00000002 00000000 00010000 0001 01 17483 /run/a b.sock
            0000000000000000: 00000003 00000000 00000000 0001 03 17484 /run/c.sock
            0000000000000000: 00000003 00000000 00000000 0001 03 17485

            """
        #expect(ListeningSockets.hasUnix(path: "/run/a b.sock", in: list))
        #expect(!ListeningSockets.hasUnix(path: "/run/c.sock", in: list))
        #expect(!ListeningSockets.hasUnix(path: "/run/a", in: list))
    }
}
