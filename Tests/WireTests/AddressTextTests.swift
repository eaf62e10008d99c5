import Testing
import Wire

private func read(_ text: String) -> WireAddress? { WireAddress(host: Array(text.utf8), port: 7) }

@Suite("IP addresses in text form")
struct AddressTextTests {
    @Test(
        "are parsed in every form and printed in canonical form",
        arguments: zip(
            [
                "0.0.0.0", "255.255.255.255", "192.0.2.1", "::", "::1", "1::", "2001:DB8::0:1", "0:0:0:0:0:0:0:0",
                "1:2:3:4:5:6:7:8", "1:2:3:4:5:6:7::", "::2:3:4:5:6:7:8", "1::3:4:5:6:7:8", "::ffff:192.0.2.1",
                "1:2:3:4:5:6:1.2.3.4", "64:ff9b::192.0.2.33", "ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255",
            ],
            [
                "0.0.0.0", "255.255.255.255", "192.0.2.1", "::", "::1", "1::", "2001:db8::1", "::", "1:2:3:4:5:6:7:8",
                "1:2:3:4:5:6:7:0", "0:2:3:4:5:6:7:8", "1:0:3:4:5:6:7:8", "::ffff:c000:201", "1:2:3:4:5:6:102:304",
                "64:ff9b::c000:221", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
            ]))
    func good(_ text: String, _ shown: String) {
        #expect(read(text)?.host == shown)
        #expect(read(text)?.port == 7)
        #expect(read(shown) == read(text))
    }

    @Test(
        "are refused if malformed",
        arguments: [
            "", ".", "1.2.3", "1.2.3.4.5", "1.2.3.256", "01.2.3.4", "1.2.3.", ".1.2.3", "1..2.3", "1.2.3.4 ",
            "+1.2.3.4",
            "a.b.c.d", "localhost", ":", ":::", "1:", ":1", "1:2:3:4:5:6:7", "1:2:3:4:5:6:7:8:9", "1::2::3", "12345::",
            "g::", "::1%lo", "[::1]", "::1.2.3", "::1.2.3.4.5", "1.2.3.4::", "::1.2.3.4:5", "1:2:3:4:5:6:7:1.2.3.4",
            "1:2:3:4:5:6:7:8::", "::1:2:3:4:5:6:7:8", "1:2:3:4::5:6:7:8", ":1:2:3:4:5:6:7:8", "1:2:3:4:5:6:7:8:",
            String(repeating: "1", count: 46), String(repeating: ":", count: 65_536),
        ])
    func bad(_ text: String) {
        #expect(read(text) == nil)
    }

    @Test("an IPv4-mapped address unmaps to its IPv4 address")
    func unmapped() {
        #expect(read("::ffff:192.0.2.1")?.unmapped == read("192.0.2.1"))
        for other in ["192.0.2.1", "::1", "::fffe:192.0.2.1", "1::ffff:192.0.2.1", "::192.0.2.1"] {
            #expect(read(other)?.unmapped == read(other))
        }
    }
}
