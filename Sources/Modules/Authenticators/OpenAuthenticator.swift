internal import Reactor
internal import Secure
internal import Wire

/// Takes every agent and grants every name.
///
/// An agent's identity is its instance key, a random value that it keeps in its state directory and nobody else knows:
/// a name once held is safe from others, and returns to its agent after a restart. An agent of version 1 has no such
/// key; it is known by its address, and shares its names with the others there.
package final class OpenAuthenticator: Authenticator {
    /// Whether agents from other machines are taken as well (`--auth open` written out).
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
            // A hash, so that the key itself is neither logged nor kept; 128 bits: nobody finds a key with the same.
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

    package func revocation(of grant: LoginGrant) -> String? { nil }

    package func reload() {}

    package func close() {}
}
