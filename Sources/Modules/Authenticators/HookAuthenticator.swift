package import Reactor
internal import Secure
internal import Wire

/// Authenticates agents by a program or web service of the operator.
///
/// Identical requests share one call of the hook, and a refused login is remembered for a moment: clients that guess
/// credentials must not start a program for each attempt.
package final class HookAuthenticator: Authenticator {
    /// How long a refusal is remembered.
    private static let memoryMilliseconds: UInt64 = 5_000
    private static let maxRemembered = 1_024

    private let loop: EventLoop
    private let hook: any HookTransport
    private var refusals: [[UInt8]: (until: UInt64, reason: String)] = [:]
    private var flights: [[UInt8]: Flight] = [:]
    private var rightsChanged: (() -> Void)?

    package init(loop: EventLoop, hook: any HookTransport) {
        self.loop = loop
        self.hook = hook
    }

    /// A request to the hook, and the callers waiting for its answer.
    private final class Flight {
        var operation: (any Cancellable)?
        var waiting: [Waiter] = []
    }

    private final class Waiter: Cancellable {
        var completion: ((Result<HookAnswer, HookFailure>) -> Void)?
        /// Called on cancellation.
        var left: (() -> Void)?

        init(_ completion: @escaping (Result<HookAnswer, HookFailure>) -> Void) { self.completion = completion }

        func cancel() {
            guard self.completion != nil else { return }
            self.completion = nil
            self.left?()
        }
    }

    /// Joins a flight with the same request, or starts one. A flight is cancelled when no caller waits for it.
    private func ask(
        _ request: HookRequest, completion: @escaping (Result<HookAnswer, HookFailure>) -> Void
    ) -> Waiter {
        let key = Self.key(request)
        let waiter = Waiter(completion)
        waiter.left = { [weak self] in self?.waiterLeft(key) }
        if let flight = self.flights[key] {
            flight.waiting.append(waiter)
            return waiter
        }
        let flight = Flight()
        flight.waiting = [waiter]
        self.flights[key] = flight
        flight.operation = self.hook.ask(request) { [weak self] result in
            self?.flights[key] = nil
            // The operation retains this closure, which retains the flight: break the cycle.
            flight.operation = nil
            for waiter in flight.waiting {
                let completion = waiter.completion
                waiter.completion = nil
                completion?(result)
            }
        }
        return waiter
    }

    /// Equal for requests that can share an answer. The peer's port is left out, because it differs for each attempt.
    private static func key(_ request: HookRequest) -> [UInt8] {
        var request = request
        request.peer?.port = 0
        return SHA256.hash(request.line())
    }

    private func waiterLeft(_ key: [UInt8]) {
        guard let flight = self.flights[key], flight.waiting.allSatisfy({ $0.completion == nil }) else { return }
        self.flights[key] = nil
        flight.operation?.cancel()
        flight.operation = nil
    }

    package func authenticate(
        _ request: LoginRequest, completion: @escaping (LoginVerdict) -> Void
    ) -> (any Cancellable)? {
        var question = HookRequest(.authenticate)
        question.peer = HookRequest.Address(request.peer)
        question.pin = request.certificatePin
        switch request.credentials {
        case .version1(let token):
            question.protocolVersion = 1
            question.token = token
        case .version2(let login):
            question.protocolVersion = 2
            question.token = login.method == .token ? login.token : nil
            question.instance = Hex.text(SHA256.hash(login.instanceKey).prefix(16))
        }
        let key = Self.key(question)
        if let refusal = self.refusals[key], self.loop.now < refusal.until {
            completion(.refused(.loginRefused, reason: "\(refusal.reason) (remembered)"))
            return nil
        }
        return self.ask(question) { [weak self] result in
            guard let self else { return }
            switch result {
            case .success(let answer) where answer.ok:
                completion(self.grant(answer))
            case .success(let answer):
                let reason = "\(self.hook.label): \(PeerText.escaped(answer.reason ?? "no reason given"))"
                self.remember(key, reason)
                completion(.refused(.loginRefused, reason: reason))
            case .failure(let failure):
                // The hook decided nothing: the agent may log in again.
                completion(.refused(.overloaded, reason: "\(self.hook.label) \(failure)"))
            }
        }
    }

    private func grant(_ answer: HookAnswer) -> LoginVerdict {
        guard let identity = answer.identity, (1...128).contains(identity.utf8.count),
            identity.utf8.allSatisfy({ $0 > 0x20 && $0 < 0x7F })
        else {
            return .refused(
                .loginRefused, reason: "\(self.hook.label): the identity must have 1 to 128 printable ASCII characters")
        }
        let limits = AgentLimits(
            links: answer.limits?.links, names: answer.limits?.names, streams: answer.limits?.streams)
        return .granted(LoginGrant(identity: identity, limits: limits))
    }

    private func remember(_ key: [UInt8], _ reason: String) {
        let now = self.loop.now
        if self.refusals.count >= Self.maxRemembered {
            self.refusals = self.refusals.filter { $0.value.until > now }
            if self.refusals.count >= Self.maxRemembered { self.refusals.removeAll() }
        }
        self.refusals[key] = (now + Self.memoryMilliseconds, reason)
    }

    package func authorize(
        _ request: NameRequest, completion: @escaping (NameVerdict) -> Void
    ) -> (any Cancellable)? {
        var question = HookRequest(.authorize)
        question.peer = HookRequest.Address(request.peer)
        question.identity = request.identity
        question.name = request.name.text
        question.port = request.port
        return self.ask(question) { [weak self] result in
            guard let self else { return }
            switch result {
            case .success(let answer) where answer.ok:
                completion(.granted(ports: answer.ports ?? []))
            case .success(let answer):
                let reason = PeerText.escaped(answer.reason ?? "no reason given")
                completion(.refused(.nameNotAllowed, reason: "\(self.hook.label): \(reason)"))
            case .failure(let failure):
                // The hook decided nothing: the agent may request the name again.
                completion(.refused(.overloaded, reason: "\(self.hook.label) \(failure)"))
            }
        }
    }

    package func onChange(_ rightsChanged: @escaping () -> Void) { self.rightsChanged = rightsChanged }

    package func revocation(of grant: LoginGrant) -> Revocation? { nil }

    /// Forgets remembered refusals, and has every held name authorized again.
    package func reload() {
        self.refusals = [:]
        self.rightsChanged?()
    }

    package func close() {
        self.rightsChanged = nil
        for flight in self.flights.values {
            flight.operation?.cancel()
            flight.operation = nil
        }
        self.flights = [:]
        self.hook.close()
    }
}
