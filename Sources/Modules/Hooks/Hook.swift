import FoundationEssentials
internal import Reactor
internal import Wire

/// A request to a hook, version 1 of the schema (`docs/hooks.md`): one JSON object, on one line.
package struct HookRequest: Encodable, Equatable {
    package enum Action: String, Encodable {
        case authenticate, authorize, publish, withdraw, reset
    }

    package struct Address: Encodable, Equatable {
        let host: String
        var port: UInt16
        /// ``HookQueue`` schedules logins by it; not sent.
        let source: UInt64

        private enum CodingKeys: String, CodingKey { case host, port }

        init(_ address: SocketAddress) {
            self.host = address.host
            self.port = address.port
            self.source = address.source
        }
    }

    let version = 1
    let action: Action
    /// The agent's address.
    var peer: Address?
    /// 1 or 2.
    var protocolVersion: Int?
    package var token: String?
    /// `sha256/...` of the key of the agent's certificate.
    var pin: String?
    /// Distinguishes installations of the agent. Not a secret: it is a hash of the instance key.
    var instance: String?
    var identity: String?
    package var name: String?
    /// The requested public port, or 0 for any.
    var port: UInt16?
    /// The listener for the name's visitors.
    var address: Address?
    /// The path of the name's unix socket.
    var socket: String?

    init(_ action: Action) { self.action = action }

    /// Sent when the gateway has just started.
    package static let reset = HookRequest(.reset)

    private enum CodingKeys: String, CodingKey {
        case version, action, peer
        case protocolVersion = "protocol"
        case token, pin, instance, identity, name, port, address, socket
    }

    /// The request as JSON, without a line feed.
    func line() -> [UInt8] {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        // The request contains only strings and numbers, so encoding cannot fail.
        guard let data = try? encoder.encode(self) else { preconditionFailure("a hook's request is always encodable") }
        return Array(data)
    }
}

/// Why a hook gave no valid answer: it failed, timed out or sent something that does not fit the schema.
package struct HookFailure: Error, Equatable, CustomStringConvertible {
    package let description: String

    package init(_ description: String) { self.description = description }
}

/// Carries requests to a hook, a program or a web service, and returns its answers.
package protocol HookTransport: AnyObject {
    /// The hook's name in logs.
    var label: String { get }
    /// Sends `request` to the hook. Both closures are called on the loop, never from inside this call.
    ///
    /// - Parameters:
    ///   - completion: called exactly once, unless the request is cancelled.
    ///   - whenOver: called exactly once, when nothing runs for the request any more. A program that was killed, at its
    ///     deadline or by a cancellation, may take a while to exit.
    func ask(
        _ request: HookRequest, completion: @escaping (Result<HookAnswer, HookFailure>) -> Void,
        whenOver: @escaping () -> Void
    ) -> any Cancellable
    func close()
}

extension HookTransport {
    package func ask(
        _ request: HookRequest, completion: @escaping (Result<HookAnswer, HookFailure>) -> Void
    ) -> any Cancellable {
        self.ask(request, completion: completion, whenOver: {})
    }
}
