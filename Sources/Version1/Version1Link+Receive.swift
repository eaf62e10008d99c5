internal import Bytes
package import Timing
package import Tunnel
internal import Wire

// MARK: - Events from the wire

extension Version1Link {
    /// Delivers payload bytes as they arrive, so frames are never reassembled.
    package mutating func nextEvent(_ batch: RawSpan, at offset: inout Int, now: Milliseconds) -> LinkEvent {
        self.clock = now
        while true {
            // After a refusal or the end of the link all bytes are ignored.
            if self.refusal != nil || self.isClosed {
                offset = batch.byteCount
                return .needMore
            }
            if self.payload.remaining > 0 {
                guard offset < batch.byteCount else { return .needMore }
                let start = offset
                offset += min(self.payload.remaining, batch.byteCount - offset)
                self.payload.remaining -= offset - start
                if let key = self.payload.key, self.received(key, offset - start) {
                    return .data(key, start..<offset, fin: false)
                }
                continue
            }
            guard let header = FrameHeader(batch, at: offset) else { return .needMore }
            do throws(PeerViolation) {
                let kind = try self.check(header)
                self.framesReceived += 1
                if kind == .payload {
                    if let event = self.receivedPayload(header) { return event }
                    offset += FrameHeader.size
                    continue
                }
                let start = offset + FrameHeader.size
                guard start + header.length <= batch.byteCount else { return .needMore }
                offset = start + header.length
                if let event = try self.received(kind, header, batch.extracting(start..<offset)) { return event }
            } catch {
                if self.role == .gateway { self.append(.error, text: Self.words(for: error)) }
                self.stage = .closed
                return .violation(error)
            }
        }
    }

    private var isClosed: Bool {
        if case .closed = self.stage { true } else { false }
    }

    private static let secondName = PeerViolation.protocol("a second name")
    private static let noName = PeerViolation.protocol("no name")

    /// The texts of the original.
    private static func words(for violation: PeerViolation) -> String {
        switch violation {
        case self.secondName: "only one name registration is allowed"
        case self.noName: "missing name registration"
        default: "received unexpected message"
        }
    }

    /// Checks a header, so that an illegal frame ends the link before its payload arrives.
    private func check(_ header: FrameHeader) throws(PeerViolation) -> FrameKind {
        guard let kind = FrameKind(rawValue: header.kind) else {
            throw .protocol("a frame of the unknown kind \(header.kind)")
        }
        switch (kind, self.role, self.stage) {
        case (.payload, _, .open), (.payload, _, .leaving), (.close, _, .open), (.close, _, .leaving): break
        case (.login, .gateway, .login), (.register, .gateway, .name), (.finishRegister, .gateway, .finish): break
        case (.register, .gateway, .finish), (.register, .gateway, .open): throw Self.secondName
        case (.finishRegister, .gateway, .name): throw Self.noName
        case (.ok, .agent, .login), (.ok, .agent, .naming): break
        case (.error, .agent, _), (.terminate, .agent, _): break
        default: throw .protocol("a frame \(kind) at the wrong time")
        }
        guard kind == .payload || header.length <= FrameHeader.maximumControl else {
            throw .protocol("a frame \(kind) of \(header.length) bytes")
        }
        return kind
    }

    /// Finds the stream of a payload. If the payload opens a stream, returns the event; the header is then read again.
    private mutating func receivedPayload(_ header: FrameHeader) -> LinkEvent? {
        self.payload = (nil, header.length)
        if let slot = self.index[header.id] {
            self.payload.key = self.streams[slot].key
            return nil
        }
        guard self.role == .agent, header.length > 0 else { return nil }
        guard case .open = self.stage, !self.closed.holds(header.id, now: self.clock), !self.isFull else {
            // The bytes are late or the stream cannot be accepted. If the gateway means a new stream, Close refuses it.
            if self.outbox.count < self.limits.owedControl { self.append(.close, id: header.id) }
            return nil
        }
        self.payload.remaining = 0
        return .opened(self.insert(header.id, .open), Open(exposure: 0, limit: 0, visitor: .none, local: .none))
    }

    /// Counts bytes for an edge. Returns false if they arrive too late.
    private mutating func received(_ key: StreamKey, _ count: Int) -> Bool {
        guard self.contains(key), self.streams[key.slot].isOnWire else { return false }
        if self.streams[key.slot].pending == 0 { self.streams[key.slot].lastProgress = self.clock }
        self.streams[key.slot].pending += count
        self.streams[key.slot].lastActivity = self.clock
        self.streams[key.slot].hasAnswer = true
        if case .waiting = self.streams[key.slot].state { self.streams[key.slot].state = .open }
        self.budget.take(count)
        self.judge(key.slot)
        return true
    }

    private mutating func received(
        _ kind: FrameKind, _ header: FrameHeader, _ payload: RawSpan
    ) throws(PeerViolation) -> LinkEvent? {
        switch kind {
        case .login:
            self.stage = .authenticating
            return .login(.version1(token: try self.text(payload)))
        case .register:
            let registration = UInt16(truncatingIfNeeded: header.id)
            self.stage = .naming(registration: registration)
            return .register(Register(exposure: registration, port: 0, name: try self.text(payload)))
        case .finishRegister:
            if case .finish(let registration) = self.stage { self.ids = StreamIDs(registration: registration) }
            self.stage = .open
            return .ready
        case .ok:
            guard case .naming(let registration) = self.stage else {
                self.stage = .name
                return .welcomed(Welcome(linkID: 0, maximumNames: 1))
            }
            self.append(.finishRegister)
            self.stage = .open
            return .registered(Registered(exposure: registration, code: .none, port: 0, text: ""))
        case .error:
            let text = try self.text(payload)
            let code = Self.code(of: text)
            if case .naming(let registration) = self.stage {
                // The link has no other use. Either the gateway closes it or this end does.
                self.refusal = code
                return .registered(Registered(exposure: registration, code: code, port: 0, text: text))
            }
            self.stage = .closed
            return .goAway(GoAway(code: code, text: text))
        case .terminate:
            self.stage = .closed
            return .goAway(GoAway(code: .none, text: "the gateway ends the connection"))
        case .close: return self.receivedClose(header.id)
        case .payload: preconditionFailure("a payload is handed on as it comes")
        }
    }

    private func text(_ payload: RawSpan) throws(PeerViolation) -> String {
        let bytes = payload.withUnsafeBytes { Array($0) }
        guard let text = String(validating: bytes, as: UTF8.self) else { throw .protocol("a text that is not UTF-8") }
        return text
    }

    /// Bytes received before still reach the edge, then its end.
    private mutating func receivedClose(_ id: UInt32) -> LinkEvent? {
        guard let slot = self.index[id] else {
            self.closed.remove(id)
            return nil
        }
        self.streams[slot].lastActivity = self.clock
        if case .halfClosed = self.streams[slot].state {
            self.leaveWire(slot, .over)
        } else {
            self.leaveWire(slot, .closedByPeer)
        }
        return .data(self.streams[slot].key, 0..<0, fin: true)
    }
}
