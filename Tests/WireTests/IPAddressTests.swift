import Bytes
import Testing
import Wire

private func ip(_ text: String) throws -> IPAddress {
    let address = try #require(WireAddress(host: Array(text.utf8), port: 0))
    return IPAddress(version: address.family == 4 ? .ip4 : .ip6, high: address.high, low: address.low)
}

@Suite("IP addresses")
struct IPAddressTests {
    @Test(
        "an IPv4-mapped address is treated as its IPv4 address in every rule",
        arguments: ["192.0.2.1", "127.0.0.1", "0.0.0.0", "255.255.255.255"])
    func mapped(_ text: String) throws {
        let (four, mapped) = (try ip(text), try ip("::ffff:\(text)"))
        #expect(mapped == four && mapped.version == .ip4)
        #expect(mapped.source == four.source && mapped.isLoopback == four.isLoopback && mapped.isAny == four.isAny)
    }

    @Test("two IPv4 peers of a dual-stack socket are two sources; two hosts of a /64 are one")
    func sources() throws {
        #expect(try ip("::ffff:192.0.2.1").source != ip("::ffff:192.0.2.2").source)
        #expect(try ip("2001:db8::1").source == ip("2001:db8::ffff:ffff").source)
        #expect(try ip("2001:db8::1").source != ip("2001:db8:0:1::1").source)
        // Addresses of a stateless translator (64:ff9b::/96) count as the IPv4 address they embed.
        #expect(try ip("64:ff9b::192.0.2.1").source == ip("192.0.2.1").source)
        #expect(try ip("64:ff9b:0:1::1").source == ip("64:ff9b:0:1::2").source)
    }

    @Test(
        "a source converts back to its first address and prefix length",
        arguments: [
            ("192.0.2.1", "192.0.2.1", 32), ("::ffff:192.0.2.1", "192.0.2.1", 32),
            ("64:ff9b::192.0.2.1", "192.0.2.1", 32), ("0.0.0.0", "0.0.0.0", 32),
            ("255.255.255.255", "255.255.255.255", 32), ("2001:db8::1:2", "2001:db8::", 64), ("::1", "::", 64),
            ("64:ff9b:0:1::1", "64:ff9b:0:1::", 64), ("64:ff9b::1:0:0", "64:ff9b::", 64),
        ])
    func networks(_ text: String, _ first: String, _ prefix: Int) throws {
        let found = IPAddress.network(ofSource: try ip(text).source)
        #expect(found.first == (try ip(first)) && found.prefix == prefix)
        let address = try #require(WireAddress(host: Array(text.utf8), port: 7))
        #expect(address.source == (try ip(text).source))
        #expect(WireAddress.network(ofSource: try ip(text).source).first.host == first)
    }

    @Test("only an address of a stateless translator is converted to IPv4")
    func untranslated() throws {
        let address = try #require(WireAddress(host: Array("64:ff9b::192.0.2.1".utf8), port: 7))
        #expect(address.untranslated == WireAddress(host: Array("192.0.2.1".utf8), port: 7))
        for text in ["64:ff9b::1:0:0", "64:ff9b:1::192.0.2.1", "2001:db8::1", "192.0.2.1"] {
            #expect(try ip(text).untranslated == ip(text))
        }
        #expect(WireAddress.none.untranslated == .none && WireAddress.none.source == nil)
    }

    @Test(
        "addresses that only resemble loopback are not loopback",
        arguments: [
            "::2", "::", "::127.0.0.1", "64:ff9b::127.0.0.1", "::fffe:127.0.0.1", "1::ffff:127.0.0.1", "128.0.0.1",
            "2002:7f00:1::",
        ])
    func remote(_ text: String) throws {
        #expect(try !ip(text).isLoopback)
        #expect(try #require(WireAddress(host: Array(text.utf8), port: 0)).isLoopback == false)
    }

    @Test("bytes after the first four of an IPv4 address are ignored")
    func dirty() throws {
        #expect(try IPAddress(version: .ip4, high: 0xC000_0201_FFFF_FFFF, low: .max) == ip("192.0.2.1"))
    }

    @Test("an IPv4 address survives the conversion to 16 bytes and back")
    func inSixteenBytes() throws {
        let four = try #require(WireAddress(host: Array("192.0.2.1".utf8), port: 7))
        #expect(four.mapped == WireAddress(host: Array("::ffff:192.0.2.1".utf8), port: 7))
        #expect(four.mapped.unmapped == four)
        let six = try #require(WireAddress(host: Array("2001:db8::1".utf8), port: 7))
        #expect(six.mapped == six && WireAddress.none.mapped == .none)
    }
}
