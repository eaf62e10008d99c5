internal import GatewayCore
internal import Modules
internal import Reactor
internal import Wire

/// What sessions and names need of the gateway.
extension GatewayServer {
    func authenticate(
        _ request: LoginRequest, completion: @escaping (LoginVerdict) -> Void
    ) -> any Cancellable {
        DeadlinedOperation(
            loop: self.loop, milliseconds: moduleDeadline,
            late: .refused(.overloaded, reason: "the authenticator did not answer in time"),
            start: { self.authenticator.authenticate(request, completion: $0) },
            completion: self.metrics.timing(.login, completion))
    }
}

extension GatewayServer: NameHost {
    func session(_ link: LinkID) -> AgentSession? { self.sessions[link] }

    func makeExposure(_ id: ExposureID, _ request: PortRequest, _ listeners: NameListeners) -> Exposure {
        Exposure(id, request, listeners, gateway: self)
    }
}
