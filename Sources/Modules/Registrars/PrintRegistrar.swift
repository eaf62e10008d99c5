package import Journal
internal import Logging
internal import Reactor
internal import Wire

/// Logs which name is reachable on which port. Programs parse these two lines, so their text must not change.
package final class PrintRegistrar: Registrar {
    private let log: PeerLog

    package init(log: PeerLog) { self.log = log }

    package let label = "print"

    /// Does nothing: log lines cannot be withdrawn.
    package func reset(
        keeping: [PublicExposure], completion: @escaping (Result<[PublicExposure], RegistrarError>) -> Void
    ) -> (any Cancellable)? {
        completion(.success([]))
        return nil
    }

    package func publish(
        _ exposure: PublicExposure, completion: @escaping (Result<Void, RegistrarError>) -> Void
    ) -> (any Cancellable)? {
        let place = exposure.address.map { String($0.port) } ?? exposure.socket.map { "unix:\($0)" } ?? ""
        self.log.write(
            .info, .complete, of: .agent(exposure.identity), "register domain '\(exposure.name)' -> '\(place)'",
            Self.about(exposure))
        completion(.success(()))
        return nil
    }

    package func withdraw(
        _ exposure: PublicExposure, completion: @escaping (Result<Void, RegistrarError>) -> Void
    ) -> (any Cancellable)? {
        self.log.write(
            .info, .complete, of: .agent(exposure.identity), "unregister domain '\(exposure.name)'",
            Self.about(exposure))
        completion(.success(()))
        return nil
    }

    private static func about(_ exposure: PublicExposure) -> Logger.Metadata {
        .about([
            .name: exposure.name, .agent: exposure.identity, .peer: exposure.peer, .address: exposure.address,
            .port: exposure.address?.port,
            .socket: exposure.socket,
        ])
    }

    package func close() {}
}
