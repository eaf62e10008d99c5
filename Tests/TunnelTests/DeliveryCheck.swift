import Tunnel

/// What two ends must agree on when all streams are over. Returns what is wrong.
func deliveryFailures(_ gateway: SimulatedEnd, _ agent: SimulatedEnd) -> [String] {
    var failures: [String] = []
    for id in gateway.finishedInOrder.intersection(agent.finishedInOrder) {
        for (receiver, sender) in [(gateway, Role.agent), (agent, .gateway)] {
            let (received, sent) = (receiver.receivedInAll[id, default: 0], agent.bytesToSend(id, sender))
            if received != sent { failures.append("stream \(id): \(received) of \(sent) bytes from the \(sender)") }
        }
    }
    return failures + resetFailures(from: gateway, to: agent) + resetFailures(from: agent, to: gateway)
}

/// A reset keeps its position: all bytes that an edge sent before it failed have arrived, followed by the reset.
private func resetFailures(from sender: SimulatedEnd, to receiver: SimulatedEnd) -> [String] {
    var failures: [String] = []
    for (id, sent) in sender.sentBeforeFailure where receiver.sentBeforeFailure[id] == nil {
        guard receiver.added.contains(id), !receiver.cut.contains(id), !sender.resetByPeer.contains(id) else {
            continue
        }
        let received = receiver.receivedInAll[id, default: 0]
        if received != sent { failures.append("stream \(id): \(received) of \(sent) bytes before the reset") }
        let isOver = receiver.resetByPeer.contains(id) || receiver.finishedInOrder.contains(id)
        if !isOver { failures.append("stream \(id): the reset did not arrive") }
    }
    return failures
}
