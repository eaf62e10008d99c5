import FoundationEssentials
internal import Reactor
internal import Wire

/// What a hook is asked, version 1 of the schema (`docs/modules.md`): one JSON object, on one line.
package struct HookRequest: Encodable, Equatable {
    package enum Action: String, Encodable {
        case authenticate, authorize, publish, withdraw, reset
    }

    package struct Address: Encodable, Equatable {
        let host: String
        var port: UInt16
        /// By which its questions take turns; not sent.
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
    /// Of the agent.
    var peer: Address?
    /// 1 or 2.
    var protocolVersion: Int?
    package var token: String?
    /// `sha256/...` of the key of the agent's certificate.
    var pin: String?
    /// Tells one installation of the agent from another, and is no secret.
    var instance: String?
    var identity: String?
    package var name: String?
    /// The wanted public port, or 0.
    var port: UInt16?
    /// Where the gateway listens for the name's visitors.
    var address: Address?
    /// The path of the name's unix socket.
    var socket: String?

    init(_ action: Action) { self.action = action }

    /// The gateway has just started.
    package static let reset = HookRequest(.reset)

    private enum CodingKeys: String, CodingKey {
        case version, action, peer
        case protocolVersion = "protocol"
        case token, pin, instance, identity, name, port, address, socket
    }

    /// Without the line's end.
    func line() -> [UInt8] {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        // Texts and numbers only: there is nothing in it that could not be encoded.
        guard let data = try? encoder.encode(self) else { preconditionFailure("a hook's request is always encodable") }
        return Array(data)
    }
}

/// Why a hook gave no answer.
package struct HookFailure: Error, Equatable, CustomStringConvertible {
    package let description: String

    package init(_ description: String) { self.description = description }
}

/// Carries a request to a hook and its answer back: a program or a web service.
package protocol HookTransport: AnyObject {
    /// How logs call it.
    var label: String { get }
    /// Both are called on the loop, never from inside this call.
    ///
    /// - Parameters:
    ///   - completion: called exactly once, unless the question is cancelled.
    ///   - whenOver: called exactly once, when nothing runs for the question any more: a program that was killed, for
    ///     its deadline or by the cancellation, may be slow to go.
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
