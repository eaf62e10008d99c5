import Bytes
import Testing
import Tunnel
import Wire

/// Encodes a frame by hand, as a hostile peer could.
func frame(_ id: UInt32, _ type: UInt8, flags: UInt8 = 0, _ payload: [UInt8] = []) -> [UInt8] {
    var queue = ByteQueue()
    queue.append(id)
    queue.append(type)
    queue.append(flags)
    queue.append(UInt16(payload.count))
    queue.append(payload)
    return queue.withReadable { Array($0) }
}

func number(_ value: UInt64) -> [UInt8] { (0..<8).map { UInt8(truncatingIfNeeded: value >> (56 - 8 * $0)) } }

func connected(
    _ limits: LinkLimits = LinkLimits(), delay: UInt64 = 0,
    bytesToSend: @escaping (UInt32, Role) -> Int = { _, _ in 0 }
) -> TunnelPair {
    let pair = TunnelPair(gatewayLimits: limits, agentLimits: limits, bytesToSend: bytesToSend)
    pair.delay = delay
    pair.connect()
    return pair
}

/// A pair with one accepted stream, and the stream's keys at gateway and agent.
func withStream(
    _ limits: LinkLimits = LinkLimits(), delay: UInt64 = 0
) throws -> (TunnelPair, StreamKey, StreamKey) {
    let pair = connected(limits, delay: delay)
    let key = try #require(pair.open())
    pair.exchange()
    let there = try #require(pair.agent.awaitingAccept.first)
    pair.agent.accept(there, now: pair.now)
    pair.exchange()
    return (pair, key, there)
}

/// A pair whose gateway has closed the edge of a stream while bytes and FIN are still queued, and the stream's key.
func withOrphan() throws -> (TunnelPair, StreamKey) {
    let (pair, here, there) = try withStream()
    pair.agent.link.finish(there, now: 0)
    pair.exchange()
    pair.gateway.link.congestion(true, now: 0)
    pair.gateway.link.send(here, [1, 2, 3].span.bytes, now: 0)
    pair.gateway.link.finish(here, now: 0)
    pair.gateway.link.release(here)
    return (pair, here)
}
