import GatewayCore
import Journal
import Reactor
import Settings
import Testing

@testable import Gateway

@Suite("Sources")
struct SourceTests {
    private func address(_ text: String) throws -> SocketAddress { try #require(SocketAddress(text, port: 7)) }

    @Test(
        "have the same text in the log and for the operator",
        arguments: [
            ("192.0.2.1", "192.0.2.1"), ("64:ff9b::c000:201", "192.0.2.1"), ("::ffff:192.0.2.1", "192.0.2.1"),
            ("2001:db8::1:2", "2001:db8::/64"), ("::1", "::/64"),
        ])
    func texts(_ text: String, _ expected: String) throws {
        let address = try self.address(text)
        #expect(Source(key: address.source).text == expected)
        #expect(PeerSource.stranger(address) == .stranger(expected))
    }

    @Test(
        "are matched by each of their addresses and by the networks around them",
        arguments: [
            (
                "64:ff9b::c000:201",
                ["64:ff9b::c000:201", "192.0.2.1", "192.0.2.0/24", "::ffff:192.0.2.1", "64:ff9b::/96"]
            ),
            ("192.0.2.1", ["64:ff9b::c000:201", "192.0.2.1", "192.0.2.0/24", "64:ff9b::c000:200/120"]),
            ("2001:db8::1:2", ["2001:db8::1:2", "2001:db8::3", "2001:db8::/64", "2001:db8::/32"]),
        ])
    func reached(_ text: String, _ networks: [String]) throws {
        let source = Source(key: try self.address(text).source)
        for network in networks { #expect(source.isReached(by: try Network(network, place: "")), "\(network)") }
        for other in ["192.0.2.2", "64:ff9b::c000:202", "64:ff9b::c000:300/120", "2001:db8:0:1::1", "198.51.100.0/24"] {
            #expect(!source.isReached(by: try Network(other, place: "")), "\(other)")
        }
    }

    @Test("are banned by each of their addresses, and an IPv4 ban does not match other IPv6 addresses")
    func banned() throws {
        var bans = BanList()
        let native = try Network("192.0.2.1", place: "")
        #expect(bans.add(native, until: nil) == true)
        for text in ["192.0.2.1", "::ffff:192.0.2.1", "64:ff9b::c000:201"] {
            #expect(bans.contains(try self.address(text)), "\(text)")
        }
        for text in ["192.0.2.2", "64:ff9b::c000:202", "64:ff9b:0:1::c000:201", "2001:db8::c000:201"] {
            #expect(!bans.contains(try self.address(text)), "\(text)")
        }
        bans = BanList()
        let translated = try Network("64:ff9b::c000:201", place: "")
        #expect(bans.add(translated, until: nil) == true)
        #expect(bans.contains(try self.address("64:ff9b::c000:201")))
        #expect(!bans.contains(try self.address("192.0.2.1")), "a client without a translator")
    }
}
