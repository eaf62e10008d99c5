internal import Reactor
internal import Wire

/// Reports to a program or web service of the operator which names are reachable, and at which listener.
package final class HookRegistrar: Registrar {
    package var label: String { self.hook.label }
    /// A hook that is a program runs at most this many at once; a web service handles at least as many requests.
    package let maxAtOnce: Int? = ExecHook.maxRunning
    /// A hook receives no `keeping`: it removes all names.
    package let resetKeepsNames = false
    private let hook: any HookTransport

    package init(hook: any HookTransport) { self.hook = hook }

    /// Reports all of `keeping` as missing, because the hook removes all names.
    package func reset(
        keeping: [PublicExposure], completion: @escaping (Result<[PublicExposure], RegistrarError>) -> Void
    ) -> (any Cancellable)? {
        self.tell(.reset) { result in completion(result.map { keeping }) }
    }

    package func publish(
        _ exposure: PublicExposure, completion: @escaping (Result<Void, RegistrarError>) -> Void
    ) -> (any Cancellable)? {
        self.tell(self.request(.publish, exposure), completion)
    }

    package func withdraw(
        _ exposure: PublicExposure, completion: @escaping (Result<Void, RegistrarError>) -> Void
    ) -> (any Cancellable)? {
        self.tell(self.request(.withdraw, exposure), completion)
    }

    private func request(_ action: HookRequest.Action, _ exposure: PublicExposure) -> HookRequest {
        var request = HookRequest(action)
        request.name = exposure.name.text
        request.identity = exposure.identity
        request.address = exposure.address.map { HookRequest.Address($0) }
        request.socket = exposure.socket
        return request
    }

    private func tell(
        _ request: HookRequest, _ completion: @escaping (Result<Void, RegistrarError>) -> Void
    ) -> any Cancellable {
        self.hook.ask(request) { result in
            switch result {
            case .success(let answer) where answer.ok: completion(.success(()))
            case .success(let answer):
                completion(.failure(RegistrarError(reason: PeerText.escaped(answer.reason ?? "no reason given"))))
            case .failure(let failure): completion(.failure(RegistrarError(reason: failure.description)))
            }
        }
    }

    package func close() { self.hook.close() }
}
