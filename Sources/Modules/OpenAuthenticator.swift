internal import Reactor
internal import Wire

/// Takes every agent and grants every name.
///
/// An agent's identity is its instance key, a random value that it keeps in its state directory and nobody else knows:
/// a name once held is safe from others, and returns to its agent after a restart.
package final class OpenAuthenticator: Authenticator {
    /// Whether agents from other machines are taken as well (`--auth open` written out).
    private let acceptsStrangers: Bool
    private let fingerprint: ([UInt8]) -> [UInt8]

    /// - Parameter fingerprint: a one-way hash, so that the key itself is neither logged nor kept.
    package init(acceptsStrangers: Bool, fingerprint: @escaping ([UInt8]) -> [UInt8]) {
        self.acceptsStrangers = acceptsStrangers
        self.fingerprint = fingerprint
    }

    package func authenticate(
        _ request: LoginRequest, completion: @escaping (LoginVerdict) -> Void
    ) -> (any Cancellable)? {
        if self.acceptsStrangers || request.peer.isLoopback {
            // 128 bits: nobody finds a key with the same.
            let digits = self.fingerprint(request.login.instanceKey).prefix(16).map { byte in
                let text = String(byte, radix: 16)
                return text.count == 1 ? "0\(text)" : text
            }
            completion(.granted(identity: "instance-" + digits.joined()))
        } else {
            completion(.refused(.notLoopback, reason: "an open gateway takes agents from loopback addresses only"))
        }
        return nil
    }

    package func authorize(
        _ request: NameRequest, completion: @escaping (NameVerdict) -> Void
    ) -> (any Cancellable)? {
        completion(.granted)
        return nil
    }

    package func onChange(_ rightsChanged: @escaping () -> Void) {}

    package func close() {}
}
