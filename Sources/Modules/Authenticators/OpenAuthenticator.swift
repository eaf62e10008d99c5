internal import Reactor
internal import Secure
internal import Wire

/// Accepts every agent and grants every name.
///
/// The identity of an agent is its instance key, a random secret in the agent's state directory. So no other agent can
/// take a name that it holds, and it gets the name back after a restart. An agent of version 1 has no such key: its
/// identity is its address, and it shares its names with all version 1 agents at that address.
package final class OpenAuthenticator: Authenticator {
    /// Whether agents on other machines are accepted too (explicit `--auth open`).
    private let acceptsStrangers: Bool

    package init(acceptsStrangers: Bool) {
        self.acceptsStrangers = acceptsStrangers
    }

    package func authenticate(
        _ request: LoginRequest, completion: @escaping (LoginVerdict) -> Void
    ) -> (any Cancellable)? {
        if self.acceptsStrangers || request.isFromLoopback {
            completion(.granted(LoginGrant(identity: self.identity(request), identityIsFree: true)))
        } else {
            completion(.refused(.notLoopback, reason: "this gateway accepts only agents on its own machine"))
        }
        return nil
    }

    private func identity(_ request: LoginRequest) -> String {
        switch request.credentials {
        case .version1: return "version1-\(request.peer.host)"
        case .version2(let login):
            // Hashed, so the key itself is neither logged nor stored. At 128 bits a second key with this hash is
            // infeasible.
            return "instance-" + Hex.text(SHA256.hash(login.instanceKey).prefix(16))
        }
    }

    package func authorize(
        _ request: NameRequest, completion: @escaping (NameVerdict) -> Void
    ) -> (any Cancellable)? {
        completion(.granted(ports: []))
        return nil
    }

    package func onChange(_ rightsChanged: @escaping () -> Void) {}

    package func revocation(of grant: LoginGrant) -> Revocation? { nil }

    package func reload() {}

    package func close() {}
}
