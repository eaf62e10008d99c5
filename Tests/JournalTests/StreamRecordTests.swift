import Reactor
import Records
import Relay
import Testing
import Wire

/// A way in which a stream can end, and the side that each program must record as its cause.
struct Ending: Sendable, CustomTestStringConvertible {
    let end: StreamEnd
    var first: EndingSide?
    var link: LinkEnd?
    let atGateway: StreamRecord.Side
    let atAgent: StreamRecord.Side

    var testDescription: String {
        "\(self.end), first \(self.first.map { "\($0)" } ?? "-"), link \(self.link.map { "\($0)" } ?? "-")"
    }

    static let all: [Ending] = [
        Ending(end: .finished, first: .socket, atGateway: .visitor, atAgent: .backend),
        Ending(end: .finished, first: .link, atGateway: .backend, atAgent: .visitor),
        Ending(end: .finished, first: .here, atGateway: .gateway, atAgent: .agent),
        Ending(end: .failed(.connectionReset), first: .link, atGateway: .visitor, atAgent: .backend),
        Ending(end: .resetByPeer(.aborted), atGateway: .backend, atAgent: .visitor),
        Ending(end: .resetByPeer(.refused), atGateway: .backend, atAgent: .gateway),
        Ending(end: .resetByPeer(.timeout), atGateway: .backend, atAgent: .gateway),
        Ending(end: .resetByPeer(.unreachable), atGateway: .backend, atAgent: .gateway),
        Ending(end: .resetByPeer(.overloaded), atGateway: .agent, atAgent: .gateway),
        Ending(end: .resetByPeer(.revoked), atGateway: .agent, atAgent: .gateway),
        Ending(end: .abandoned(.refused), atGateway: .gateway, atAgent: .backend),
        Ending(end: .abandoned(.timeout), atGateway: .gateway, atAgent: .backend),
        Ending(end: .abandoned(.idle), atGateway: .gateway, atAgent: .agent),
        Ending(end: .abandoned(.dead), link: .closedByPeer, atGateway: .agent, atAgent: .gateway),
        Ending(end: .abandoned(.dead), link: .failed(.connectionReset), atGateway: .agent, atAgent: .gateway),
        Ending(end: .abandoned(.dead), link: .ended(.drain, ""), atGateway: .gateway, atAgent: .agent),
        Ending(end: .abandoned(.withdrawn), link: .ended(.dead, ""), atGateway: .agent, atAgent: .gateway),
        Ending(end: .abandoned(.withdrawn), link: .ended(.revoked, ""), atGateway: .gateway, atAgent: .agent),
        Ending(
            end: .abandoned(.dead), link: .goAway(GoAway(code: .drain, text: "")), atGateway: .agent,
            atAgent: .gateway),
    ]
}

@Suite("A stream record")
struct StreamRecordTests {
    @Test("names the side that ended the stream", arguments: Ending.all)
    func sides(_ ending: Ending) {
        #expect(StreamRecord.side(ending.end, first: ending.first, at: .gateway, link: ending.link) == ending.atGateway)
        #expect(StreamRecord.side(ending.end, first: ending.first, at: .agent, link: ending.link) == ending.atAgent)
    }
}
