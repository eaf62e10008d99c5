package import Reactor
package import Wire

/// A name with its public listeners, as registrars see it. It has one of them at least.
package struct PublicExposure: Equatable {
    package let name: Name
    package let identity: String
    /// The key under which the gateway counts pending withdrawals: the identity, or the source of an agent that can create
    /// identities at will.
    package let payer: String
    /// The agent's, for logs.
    package let peer: SocketAddress?
    /// Where the gateway listens for the name's visitors; nil when it has no public port.
    package let address: SocketAddress?
    /// The path of the name's unix socket; nil when names have none.
    package let socket: String?

    package init(
        name: Name, identity: String, payer: String? = nil, peer: SocketAddress? = nil, address: SocketAddress?,
        socket: String? = nil
    ) {
        self.name = name
        self.identity = identity
        self.payer = payer ?? identity
        self.peer = peer
        self.address = address
        self.socket = socket
    }
}

/// What a registrar could not do.
package struct RegistrarError: Error, Equatable {
    /// For the log.
    package let reason: String

    package init(reason: String) { self.reason = reason }
}

/// Makes an exposure reachable under its name, and undoes that: the second of the two seams at which diglett is
/// extended. Several registrars may run side by side.
///
/// Work is done on the loop or handed elsewhere; `completion` is called on the loop exactly once, at once or later.
/// The gateway gives each action ten seconds, then cancels it and counts it as failed; before, it cancels one only when
/// it stops. What failed is tried again, so every action must bear being repeated; for one name there is never more than
/// one under way, and none beside a reset.
package protocol Registrar: AnyObject {
    /// How logs call it.
    var label: String { get }

    /// How often `reset` is asked for again, in milliseconds, where others can undo what was done; nil for never.
    var resetPeriod: UInt64? { get }

    /// Whether a reset leaves names in `keeping` reachable all the while. Only then does the gateway reset the registrar
    /// instead of having it withdraw thousands of names one by one: names of other agents must not pay for those.
    var resetKeepsNames: Bool { get }

    /// How many actions may be under way at once; the time of each counts from its beginning. Nil for any number, where
    /// many at once cost less than one after the other.
    var maxAtOnce: Int? { get }

    /// Take back whatever is ours but not in `keeping`. When the gateway has just started nothing is to be kept, and
    /// what a former run has left behind goes. Later it is asked again when that had failed, after each `resetPeriod`,
    /// and, with a period, when the operator asks for a reload.
    ///
    /// - Parameters:
    ///   - keeping: what is published. A name that is not in it may be published later.
    ///   - completion: gets those of `keeping` that are not published as they should be; the gateway publishes them
    ///     again.
    /// - Returns: nil when `completion` was called already.
    func reset(
        keeping: [PublicExposure], completion: @escaping (Result<[PublicExposure], RegistrarError>) -> Void
    ) -> (any Cancellable)?

    /// Visitors can come from now on. Nil when `completion` was called already.
    func publish(
        _ exposure: PublicExposure, completion: @escaping (Result<Void, RegistrarError>) -> Void
    ) -> (any Cancellable)?

    /// No more visitors: the listener is closed already. Nil when `completion` was called already.
    func withdraw(
        _ exposure: PublicExposure, completion: @escaping (Result<Void, RegistrarError>) -> Void
    ) -> (any Cancellable)?

    /// The gateway stops: close what is open.
    func close()
}

extension Registrar {
    package var resetPeriod: UInt64? { nil }
    package var resetKeepsNames: Bool { true }
    package var maxAtOnce: Int? { nil }
}
