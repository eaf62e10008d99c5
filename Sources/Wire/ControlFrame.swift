/// Any frame except DATA, decoded.
package enum ControlFrame: Equatable, Sendable {
    case hello(Hello)
    case login(Login)
    case welcome(Welcome)
    case register(Register)
    case registered(Registered)
    case unregister(exposure: UInt16)
    case open(Open)
    case accept(limit: UInt64)
    case window(limit: UInt64)
    case reset(ErrorCode)
    case ping(opaque: UInt64)
    case pong(opaque: UInt64)
    case goAway(GoAway)
    case resume(Resume)
    case resumed(Resumed)
    case ack(handled: UInt64)

    /// Decodes exactly one payload.
    ///
    /// - Precondition: `type` is not `.data`, whose payload is the stream's bytes.
    package init(_ type: FrameType, payload: RawSpan) throws(WireError) {
        switch type {
        case .hello: self = .hello(try Hello(payload: payload))
        case .login: self = .login(try Login(payload: payload))
        case .welcome: self = .welcome(try Welcome(payload: payload))
        case .register: self = .register(try Register(payload: payload))
        case .registered: self = .registered(try Registered(payload: payload))
        case .unregister: self = .unregister(exposure: try NumberFrame.read(payload, .exposure))
        case .open: self = .open(try Open(payload: payload))
        case .accept: self = .accept(limit: try NumberFrame.read(payload, .limit))
        case .window: self = .window(limit: try NumberFrame.read(payload, .limit))
        case .reset: self = .reset(ErrorCode(rawValue: try NumberFrame.read(payload, .code)))
        case .ping: self = .ping(opaque: try NumberFrame.read(payload, .opaque))
        case .pong: self = .pong(opaque: try NumberFrame.read(payload, .opaque))
        case .goAway: self = .goAway(try GoAway(payload: payload))
        case .resume: self = .resume(try Resume(payload: payload))
        case .resumed: self = .resumed(try Resumed(payload: payload))
        case .ack: self = .ack(handled: try NumberFrame.read(payload, .handled))
        case .data: preconditionFailure("a data frame is not a control frame")
        }
    }
}
