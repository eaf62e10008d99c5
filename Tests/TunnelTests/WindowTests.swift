import TestSupport
import Testing
import Tunnel
import Wire

/// A download over a long path: how soon the window is at its maximum, whatever the bursts in which bytes arrive.
@Suite("Windows")
struct WindowTests {
    struct Way: CustomTestStringConvertible {
        let roundTrip: UInt64
        /// Bytes that arrive together, on a path that carries twice the largest window per round trip; 0 for
        /// everything sent at once.
        let burst: Int
        /// The maximum delay of a burst, in milliseconds.
        let jitter: UInt64

        var testDescription: String { "\(self.roundTrip) ms, bursts of \(self.burst), jitter \(self.jitter)" }
    }

    static let ways: [Way] = [1, 5, 30, 100, 300].flatMap { roundTrip in
        [1_024, 65_536, 0].flatMap { burst in
            [0, roundTrip / 4].map { Way(roundTrip: roundTrip, burst: burst, jitter: $0) }
        }
    }

    /// The agent sends without end, and the gateway consumes at once. Frames are in flight for half a round trip.
    @Test("reach 90 % of the largest window's rate within 2 s", arguments: Self.ways)
    func growth(way: Way) throws {
        var limits = LinkLimits()
        limits.roundTripSamples = 1
        let pair = TunnelPair(gatewayLimits: limits, agentLimits: limits)
        pair.delay = way.roundTrip / 2
        // Half a round trip in each direction, so that the first PONG measures a whole one.
        pair.connect()
        let key = try #require(pair.open())
        pair.exchange()
        let there = try #require(pair.agent.awaitingAccept.first)
        pair.agent.accept(there, now: pair.now)
        pair.exchange()
        let window = pair.gateway.roundTrip == 0 ? limits.nearWindow : limits.maxWindow
        var run = Run(pair: pair, key: key, there: there, way: way)
        let took = run.milliseconds(toFill: window, atMost: 2_000)
        #expect(took != nil, "the window is \(run.largest) bytes after 2 s, not \(window)")
    }

    /// Runs in steps of a millisecond. The content of the bytes does not matter, so it is not checked.
    private struct Run {
        let pair: TunnelPair
        let key: StreamKey
        let there: StreamKey
        let way: Way
        var largest = 0
        private var generator = SeededGenerator(seed: 7)
        /// Bytes by the time of their arrival.
        private var toGateway: [UInt64: [UInt8]] = [:]
        private var toAgent: [UInt64: [UInt8]] = [:]
        private var held: [UInt8] = []
        /// In microseconds.
        private var lastArrival: UInt64 = 0
        private let chunk = [UInt8](repeating: 0, count: 1 << 20)

        init(pair: TunnelPair, key: StreamKey, there: StreamKey, way: Way) {
            self.pair = pair
            self.key = key
            self.there = there
            self.way = way
        }

        /// Milliseconds until 90 % of `window` is granted at once; nil if that takes more than `atMost`.
        mutating func milliseconds(toFill window: Int, atMost: UInt64) -> UInt64? {
            let start = self.pair.now
            while self.pair.now - start <= atMost {
                self.step()
                if self.largest * 10 >= window * 9 { return self.pair.now - start }
                self.pair.now += 1
            }
            return nil
        }

        private mutating func step() {
            let now = self.pair.now
            if let bytes = self.toAgent.removeValue(forKey: now) { self.pair.agent.feed(bytes, now: now) }
            while true {
                let allowance = min(self.pair.agent.link.sendAllowance(self.there), self.chunk.count)
                guard allowance > 0 else { break }
                self.pair.agent.link.send(self.there, self.chunk.span.bytes.extracting(0..<allowance), now: now)
                self.held += self.pair.agent.output(atMost: 64 << 20, now: now)
            }
            self.dispatch(now)
            if let bytes = self.toGateway.removeValue(forKey: now) {
                self.pair.gateway.receiveUnchecked(bytes, now: now)
            }
            let answer = self.pair.gateway.output(atMost: 64 << 20, now: now)
            self.largest = max(self.largest, self.pair.gateway.grantedBytes)
            self.toAgent[now + (self.way.roundTrip + 1) / 2, default: []] += answer
        }

        /// Sends the agent's output on its way, in pieces of the burst's size.
        private mutating func dispatch(_ now: UInt64) {
            let all = self.held.count
            let size = self.way.burst == 0 ? all : self.way.burst
            for offset in stride(from: 0, to: all, by: max(size, 1)) {
                let late = self.way.jitter == 0 ? 0 : UInt64.random(in: 0...self.way.jitter, using: &self.generator)
                let earliest = (now + self.way.roundTrip / 2 + late) * 1_000
                let turn = self.way.burst == 0 ? 0 : UInt64(size) * self.way.roundTrip * 1_000 / (8 << 20)
                self.lastArrival = max(self.lastArrival + turn, earliest)
                let piece = self.held[offset..<min(offset + size, all)]
                self.toGateway[max(self.lastArrival / 1_000, now), default: []] += piece
            }
            self.held = []
        }
    }

    @Test("a slow reader's window does not grow")
    func slowReader() throws {
        let (pair, here, there) = try withStream(delay: 10)
        let piece = [UInt8](repeating: 0, count: 16_384)
        // 1.6 MB/s on a round trip of 20 ms: 32 KiB of the window of 256 KiB.
        for _ in 0..<300 {
            pair.agent.link.send(there, piece.span.bytes, now: pair.now)
            let bytes = pair.agent.output(atMost: 1 << 20, now: pair.now)
            pair.gateway.receiveUnchecked(bytes, now: pair.now)
            pair.agent.feed(pair.gateway.output(atMost: 1 << 20, now: pair.now), now: pair.now)
            pair.now += 10
        }
        _ = here
        #expect(pair.gateway.grantedBytes <= LinkLimits().startWindow)
    }
}
