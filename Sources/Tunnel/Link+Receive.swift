internal import Bytes
package import Timing
internal import Wire

// MARK: - Events from the wire

extension Link {
    package mutating func nextEvent(_ batch: RawSpan, at offset: inout Int, now: Milliseconds) -> LinkEvent {
        while true {
            guard self.phase != .closed, let header = FrameHeader(batch, at: offset) else {
                if self.phase == .closed { offset = batch.byteCount }
                return .needMore
            }
            do throws(PeerViolation) {
                // Check the header alone: an illegal frame ends the link before its payload arrives.
                let type = try self.check(header)
                let end = offset + WireConstant.headerSize + header.length
                guard end <= batch.byteCount else { return .needMore }
                let start = offset + WireConstant.headerSize
                offset = end
                self.lastReceived = now
                self.statistics.framesReceived += 1
                if type?.isCounted ?? true {
                    self.lastCounted = now
                    self.acknowledgements.handled &+= UInt64(WireConstant.headerSize + header.length)
                }
                guard let type else {
                    self.statistics.unknownFrames += 1
                    try self.glitch(now: now)
                    continue
                }
                if type == .data {
                    if let event = try self.receivedData(header, start, now: now) { return event }
                } else if let event = try self.receivedControl(type, header, batch.extracting(start..<end), now: now) {
                    return event
                }
            } catch {
                self.goAway(error.code, retryAfterSeconds: 0, text: error.detail)
                self.phase = .closed
                return .violation(error)
            }
        }
    }

    /// Checks the eight bytes of a header. Returns nil for an unknown frame that may be skipped.
    private func check(_ header: FrameHeader) throws(PeerViolation) -> FrameType? {
        let maxPayload = self.phase.isPastLogin ? WireConstant.maximumPayload : WireConstant.maximumPayloadBeforeLogin
        guard header.length <= maxPayload else { throw .protocol("a frame of \(header.length) bytes") }
        guard let type = FrameType(rawValue: header.typeByte) else {
            guard header.flags & FrameFlag.ignorable != 0, self.phase.isPastLogin else {
                throw .protocol("a frame of unknown type \(header.typeByte)")
            }
            return nil
        }
        guard self.phase.allows(type, at: self.role) else {
            throw .protocol("a frame \(type) while \(self.phase)")
        }
        guard header.flags & ~type.knownFlags == 0 else { throw .protocol("unknown flags on \(type)") }
        guard type.isLinkFrame == (header.id == 0) else { throw .protocol("\(type) with the id \(header.id)") }
        if let fixed = type.fixedLength, fixed != header.length {
            throw .protocol("\(type) with \(header.length) bytes")
        }
        if type == .data, header.length == 0, header.flags & FrameFlag.fin == 0 {
            throw .protocol("an empty data frame without an end")
        }
        return type
    }

    private mutating func receivedData(
        _ header: FrameHeader, _ start: Int, now: Milliseconds
    ) throws(PeerViolation) -> LinkEvent? {
        guard let slot = try self.liveSlot(header.id, now: now) else { return nil }
        guard !self.streams[slot].isResetting else {
            try self.late(now: now)
            return nil
        }
        if self.role == .gateway, case .awaitingAccept = self.streams[slot].opening {
            throw .protocol("data on stream \(header.id) before it was accepted")
        }
        guard case .open = self.streams[slot].receive else {
            throw .protocol("data on stream \(header.id) after its end")
        }
        if self.streams[slot].receiveCredit.pending == 0 { self.streams[slot].lastProgress = now }
        guard self.streams[slot].receiveCredit.receive(header.length) else {
            throw PeerViolation(code: .flowControl, detail: "more on stream \(header.id) than was granted")
        }
        self.streams[slot].lastActivity = now
        self.statistics.bytesReceived &+= UInt64(header.length)
        let fin = header.flags & FrameFlag.fin != 0
        if fin {
            self.streams[slot].receive = .ended
            self.streams[slot].receiveCredit.close(budget: self.budget)
        }
        return .data(StreamKey(slot: slot, id: header.id), start..<(start + header.length), fin: fin)
    }

    /// The slot of a stream that can still receive frames. Nil if it is closed or reset: the frame may have crossed our
    /// RESET or FIN.
    private mutating func liveSlot(_ id: UInt32, now: Milliseconds) throws(PeerViolation) -> Int? {
        guard id <= self.lastOpened else { throw .protocol("a frame for stream \(id), which was never opened") }
        guard let slot = self.streams.slot(of: id), !self.streams[slot].isReset else {
            try self.late(now: now)
            return nil
        }
        return slot
    }

    /// Counts a frame for a stream that has ended here. More of them than can have been in flight are glitches.
    private mutating func late(now: Milliseconds) throws(PeerViolation) {
        self.statistics.lateFrames += 1
        guard self.lateAllowance == 0 else { return self.lateAllowance -= 1 }
        self.hits.lateFrames += 1
        try self.glitch(now: now)
    }

    private mutating func receivedControl(
        _ type: FrameType, _ header: FrameHeader, _ payload: RawSpan, now: Milliseconds
    ) throws(PeerViolation) -> LinkEvent? {
        switch try self.decode(type, payload) {
        case .hello(let hello): return try self.receivedHello(hello)
        case .login(let login):
            self.phase = .authenticating
            return .login(.version2(login))
        case .welcome(let welcome):
            self.phase = .up
            _ = self.begin(welcome.session)
            self.sendPing(now: now)
            return .welcomed(welcome)
        case .resume(let resume):
            guard self.peer?.keeps != nil, self.limits.resumeWindow > 0 else {
                throw .protocol("RESUME, which the HELLOs do not allow")
            }
            guard !self.hasTriedToResume else { throw .protocol("a second RESUME") }
            self.hasTriedToResume = true
            return .resume(resume)
        case .resumed(let resumed):
            self.phase = .awaitingWelcome
            return .resumed(resumed)
        case .ack(let handled):
            try self.receivedAck(handled, now: now)
            return nil
        case .register(let register): return try self.receivedRegister(register, now: now)
        case .registered(let answer):
            if self.answersAwaited > 0 { self.answersAwaited -= 1 } else { try self.glitch(now: now) }
            return .registered(answer)
        case .unregister(let exposure):
            try self.spendRegister(now: now)
            return .unregister(exposure: exposure)
        case .open(let open): return try self.receivedOpen(header.id, open, now: now)
        case .accept(let limit): return try self.receivedAccept(header.id, limit: limit, now: now)
        case .window(let limit):
            try self.receivedWindow(header.id, limit: limit, now: now)
            return nil
        case .reset(let code): return try self.receivedReset(header.id, code, now: now)
        case .ping(let opaque):
            try self.receivedPing(opaque, now: now)
            return nil
        case .pong(let opaque):
            try self.receivedPong(opaque, now: now)
            return nil
        case .goAway(let goAway):
            if goAway.code != .drain || !self.phase.isPastLogin {
                self.phase = .closed
            } else if self.hasPeerLeft {
                try self.glitch(now: now)
            } else {
                self.hasPeerLeft = true
                if self.phase == .up { self.phase = .draining }
            }
            return .goAway(goAway)
        }
    }

    private func decode(_ type: FrameType, _ payload: RawSpan) throws(PeerViolation) -> ControlFrame {
        do throws(WireError) {
            return try ControlFrame(type, payload: payload)
        } catch {
            throw .protocol("\(type): \(error)")
        }
    }

    private mutating func receivedHello(_ hello: Hello) throws(PeerViolation) -> LinkEvent? {
        guard hello.lowest <= WireConstant.version, hello.highest >= WireConstant.version else {
            throw PeerViolation(
                code: .version,
                detail:
                    "the peer supports versions \(hello.lowest) to \(hello.highest), this program \(WireConstant.version)"
            )
        }
        self.peer = hello
        self.phase = self.role == .gateway ? .awaitingLogin : .awaitingWelcome
        return self.role == .agent ? .greeted(hello) : nil
    }

    private mutating func receivedRegister(_ register: Register, now: Milliseconds) throws(PeerViolation) -> LinkEvent?
    {
        try self.spendRegister(now: now)
        guard self.phase == .up else {
            Registered(exposure: register.exposure, code: .drain, port: 0, text: "the link is draining")
                .encode(into: &self.control)
            return nil
        }
        return .register(register)
    }

    private mutating func spendRegister(now: Milliseconds) throws(PeerViolation) {
        guard self.registerBucket.take(now: now) else {
            throw PeerViolation(code: .glitches, detail: "too many registrations in a short time")
        }
    }

    private mutating func receivedOpen(
        _ id: UInt32, _ open: Open, now: Milliseconds
    ) throws(PeerViolation) -> LinkEvent? {
        guard self.lastOpened < UInt32.max, id == self.lastOpened + 1 else {
            throw .protocol("stream \(id) opened after stream \(self.lastOpened)")
        }
        self.lastOpened = id
        // Each refused OPEN makes us owe a RESET. A gateway that opens streams without reading the RESETs is
        // disconnected.
        try self.checkOwed()
        // The gateway may free a stream just before we do, and may send OPEN before it reads our GOAWAY. Neither is a
        // violation.
        guard self.phase == .up, self.streams.count < self.limits.maximumStreams else {
            let code: ErrorCode = self.phase == .up ? .overloaded : .withdrawn
            NumberFrame.encode(.reset, id: id, code.rawValue, into: &self.control)
            self.statistics.resetsSent += 1
            self.expectLateFrames(bytes: self.limits.helloWindow)
            return nil
        }
        let stream = Stream(
            id: id, exposure: open.exposure, opening: .awaitingAccept(deadline: now + self.limits.acceptDeadline),
            sendCredit: SendCredit(limit: open.limit),
            receiveCredit: ReceiveCredit(window: self.limits.helloWindow, budget: self.budget, now: now),
            lastActivity: now, lastProgress: now)
        let slot = self.streams.insert(stream)
        self.beganOpening(open.exposure)
        self.statistics.streamsOpened += 1
        return .opened(StreamKey(slot: slot, id: id), open)
    }

    private mutating func receivedAccept(
        _ id: UInt32, limit: UInt64, now: Milliseconds
    ) throws(PeerViolation) -> LinkEvent? {
        guard let slot = try self.liveSlot(id, now: now) else { return nil }
        guard case .awaitingAccept = self.streams[slot].opening else {
            throw .protocol("stream \(id) accepted twice")
        }
        self.endOpening(slot)
        self.streams[slot].lastActivity = now
        try self.raise(slot, id, limit)
        return .accepted(StreamKey(slot: slot, id: id))
    }

    private mutating func receivedWindow(_ id: UInt32, limit: UInt64, now: Milliseconds) throws(PeerViolation) {
        self.statistics.windowFramesReceived += 1
        let allowed =
            self.limits.windowFrameAllowance
            &+ self.limits.windowFramesPerData &* self.statistics.dataFramesSent
        if self.statistics.windowFramesReceived > allowed { try self.glitch(now: now) }
        guard let slot = try self.liveSlot(id, now: now) else { return }
        if limit &- self.streams[slot].sendCredit.limit < 4_096 { try self.glitch(now: now) }
        try self.raise(slot, id, limit)
    }

    private mutating func raise(_ slot: Int, _ id: UInt32, _ limit: UInt64) throws(PeerViolation) {
        guard self.streams[slot].sendCredit.raise(to: limit) else {
            throw PeerViolation(code: .flowControl, detail: "the limit of stream \(id) was lowered")
        }
        self.creditGrew(slot)
    }

    /// Bytes received before the RESET are still written to the edge. Bytes queued for the peer are dropped, because
    /// the peer ignores them.
    private mutating func receivedReset(
        _ id: UInt32, _ code: ErrorCode, now: Milliseconds
    ) throws(PeerViolation) -> LinkEvent? {
        self.statistics.resetsReceived += 1
        guard let slot = try self.liveSlot(id, now: now) else { return nil }
        if self.role == .agent, case .awaitingAccept = self.streams[slot].opening,
            !self.withdrawnOpens.take(now: now)
        {
            try self.glitch(now: now)
        }
        let isResetting = self.streams[slot].isResetting
        self.endSending(slot)
        self.streams[slot].receiveCredit.close(budget: self.budget)
        self.streams[slot].receive = .reset
        guard !self.streams[slot].isOrphan else {
            self.remove(slot)
            return nil
        }
        // The edge has already failed.
        guard !isResetting else { return nil }
        return .reset(StreamKey(slot: slot, id: id), code)
    }

    private mutating func receivedPing(_ opaque: UInt64, now: Milliseconds) throws(PeerViolation) {
        self.statistics.pingsReceived += 1
        // The first PINGs measure the round trip: each is sent as soon as the PONG of the last one arrives.
        self.carrierPings.received += 1
        let isMeasuring = self.carrierPings.received <= self.limits.roundTripSamples
        if !isMeasuring, let last = self.lastPingReceived, now - last < 1_000 { try self.glitch(now: now) }
        self.lastPingReceived = now
        NumberFrame.encode(.pong, opaque, into: &self.urgent)
        self.acknowledgements.request()
        try self.checkOwed()
    }

    private mutating func receivedPong(_ opaque: UInt64, now: Milliseconds) throws(PeerViolation) {
        guard let ping = self.ping, ping.opaque == opaque else {
            try self.glitch(now: now)
            return
        }
        self.ping = nil
        self.deadline = nil
        let sample = now - ping.sentAt
        self.roundTrip = self.hasMeasured ? min(self.roundTrip, sample) : sample
        self.hasMeasured = true
        if self.carrierPings.sent < self.limits.roundTripSamples { self.sendPing(now: now) }
    }

    /// Disconnects a peer that does not read the control frames we owe it.
    private func checkOwed() throws(PeerViolation) {
        guard self.control.count + self.urgent.count <= self.limits.owedControl + self.exemptControl else {
            throw PeerViolation(code: .owed, detail: "reads its answers too slowly")
        }
    }

    mutating func glitch(now: Milliseconds) throws(PeerViolation) {
        self.statistics.glitches += 1
        self.hits.glitches += 1
        guard self.glitchBucket.take(now: now) else {
            throw PeerViolation(code: .glitches, detail: "too many needless frames")
        }
    }
}
