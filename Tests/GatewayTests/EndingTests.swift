import Gateway
import Reactor
import Relay
import Testing
import Tunnel
import Wire

@Suite("Counted endings")
struct EndingTests {
    @Test("have a reason from a fixed set, whatever code a peer sends")
    func bounded() {
        let streams = Set(Ending.ofStreams)
        let links = Set(Ending.ofLinks)
        var others = 0
        var unknown: [Ending] = []
        for number in UInt16.min...UInt16.max {
            let code = ErrorCode(rawValue: number)
            for stream in [Ending(.resetByPeer(code)), Ending(StreamEnd.abandoned(code))] {
                guard !streams.contains(stream) else { continue }
                others += 1
                if !streams.contains(stream.other) { unknown.append(stream) }
            }
            let violation = PeerViolation(code: code, detail: "")
            for link in [
                Ending(.goAway(GoAway(code: code))), Ending(.ended(code, "")), Ending(.violation(violation)),
            ] {
                guard !links.contains(link) else { continue }
                others += 1
                if !links.contains(link.other) { unknown.append(link) }
            }
        }
        #expect(unknown.isEmpty)
        // The set must not contain all codes, or it would limit nothing.
        #expect(others > 5 * 65_000)
    }

    @Test("name the side that caused them")
    func sides() {
        #expect(Ending(.finished) == Ending(.both, "finished"))
        #expect(Ending(StreamEnd.failed(.connectionReset)) == Ending(.visitor, "socket-error"))
        #expect(Ending(.resetByPeer(.refused)) == Ending(.agent, "refused"))
        #expect(Ending(.abandoned(.dead)) == Ending(.gateway, "dead"))
        #expect(Ending(.closedByPeer) == Ending(.agent, "closed"))
        #expect(Ending(LinkEnd.failed(.timedOut)) == Ending(.network, "socket-error"))
        #expect(Ending(.otherProtocol(firstByte: 71)) == Ending(.gateway, "other-protocol"))
        #expect(Ending(.ended(.revoked, "text")) == Ending(.gateway, "revoked"))
        for known in [Ending(.finished), Ending(.abandoned(.dead)), Ending(.resetByPeer(.refused))] {
            #expect(Ending.ofStreams.contains(known))
        }
    }

    @Test("are listed once")
    func unique() {
        #expect(Set(Ending.ofStreams).count == Ending.ofStreams.count)
        #expect(Set(Ending.ofLinks).count == Ending.ofLinks.count)
    }
}
