import Settings
import Testing
import Wire

private func address(_ text: String) -> WireAddress {
    guard let address = WireAddress(host: Array(text.utf8), port: 4_711) else {
        Issue.record("'\(text)' is not an address")
        return .none
    }
    return address
}

private func error(_ text: String) -> String {
    do throws(SettingsError) {
        _ = try Network(text, place: "x")
        return ""
    } catch { return error.description }
}

@Suite("Networks")
struct NetworkTests {
    struct Row: Sendable {
        let text: String
        let shown: String
        let inside: [String]
        let outside: [String]
    }

    @Test(
        "contain the addresses with their prefix",
        arguments: [
            Row(
                text: "10.0.0.0/8", shown: "10.0.0.0/8", inside: ["10.0.0.0", "10.255.255.255", "::ffff:10.1.2.3"],
                outside: ["9.255.255.255", "11.0.0.0", "::10.0.0.0", "a00::"]),
            Row(
                text: "127.0.0.1", shown: "127.0.0.1/32", inside: ["127.0.0.1", "::ffff:127.0.0.1"],
                outside: ["127.0.0.2", "126.0.0.1", "::1"]),
            Row(
                text: "192.0.2.128/25", shown: "192.0.2.128/25", inside: ["192.0.2.128", "192.0.2.255"],
                outside: ["192.0.2.127", "192.0.3.128"]),
            Row(
                text: "0.0.0.0/0", shown: "0.0.0.0/0", inside: ["0.0.0.0", "255.255.255.255", "::ffff:1.2.3.4"],
                outside: ["::", "::1"]),
            Row(
                text: "192.0.2.1/32", shown: "192.0.2.1/32", inside: ["192.0.2.1"], outside: ["192.0.2.0", "192.0.2.3"]),
            Row(text: "::1", shown: "::1/128", inside: ["::1"], outside: ["::", "::2", "1::1", "127.0.0.1"]),
            Row(text: "::/0", shown: "::/0", inside: ["::", "ffff::1"], outside: ["1.2.3.4", "::ffff:1.2.3.4"]),
            Row(
                text: "2001:db8::/32", shown: "2001:db8::/32", inside: ["2001:db8::", "2001:db8:ffff::1"],
                outside: ["2001:db7:ffff::", "2001:db9::"]),
            Row(
                text: "2001:db8::/64", shown: "2001:db8::/64", inside: ["2001:db8::ffff:0:0:1"],
                outside: ["2001:db8:0:1::"]),
            Row(
                text: "2001:db8::8000:0:0:0/65", shown: "2001:db8:0:0:8000::/65", inside: ["2001:db8::8000:0:0:1"],
                outside: ["2001:db8::7fff:0:0:1"]),
            Row(
                text: "::ffff:10.0.0.0/104", shown: "10.0.0.0/8", inside: ["10.1.2.3", "::ffff:10.1.2.3"],
                outside: ["11.0.0.0", "::a00:0"]),
            Row(text: "::ffff:192.0.2.1", shown: "192.0.2.1/32", inside: ["192.0.2.1"], outside: ["192.0.2.2"]),
            Row(text: "::ffff:0:0/96", shown: "0.0.0.0/0", inside: ["1.2.3.4"], outside: ["::1"]),
        ])
    func contains(_ row: Row) throws {
        let network = try Network(row.text, place: "x")
        #expect(network.description == row.shown)
        for inside in row.inside { #expect(network.contains(address(inside)), "\(inside)") }
        for outside in row.outside { #expect(!network.contains(address(outside)), "\(outside)") }
        #expect(!network.contains(.none))
    }

    @Test("with host bits set are refused with a suggestion")
    func hostBits() {
        #expect(
            error("10.1.2.3/8")
                == "x: '10.1.2.3/8' has bits after the first 8: write 10.0.0.0/8 for the network, "
                + "or 10.1.2.3 for the single address")
        #expect(error("2001:db8::1/32").contains("write 2001:db8::/32 for the network, or 2001:db8::1 for"))
        #expect(error("1.0.0.0/0").contains("write 0.0.0.0/0"))
        #expect(error("::1/127").contains("write ::/127"))
        #expect(error("192.0.2.1/31").contains("write 192.0.2.0/31"))
    }

    @Test(
        "are refused if malformed",
        arguments: [
            "", "/", "/8", "10.0.0.0/", "10.0.0.0/33", "10.0.0.0/-1", "10.0.0.0/08", "10.0.0.0/8/8", "10.0.0/8", "10/8",
            "::/129", "::1/ 8", "example.com", "[::1]", "127.0.0.1:80", "fe80::1%eth0", "10.0.0.0/255.0.0.0", "a\nb",
        ])
    func bad(_ text: String) {
        let shown = error(text)
        #expect(shown.hasPrefix("x: '"), "\(shown)")
        #expect(shown.contains("is not a network") && !shown.contains("\n"), "\(shown)")
    }
}
