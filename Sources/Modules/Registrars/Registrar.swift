package import Reactor
package import Wire

/// A name with its public listeners, as registrars see it: `address`, `socket` or both.
package struct PublicExposure: Equatable {
    package let name: Name
    package let identity: String
    /// The key under which the gateway counts pending withdrawals: the identity, or the source of an agent that can
    /// create identities at will.
    package let payer: String
    /// The agent's address, for logs.
    package let peer: SocketAddress?
    /// The listener for the name's visitors; nil when the name has no public port.
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

/// Why a registrar's action failed.
package struct RegistrarError: Error, Equatable {
    /// For the log.
    package let reason: String

    package init(reason: String) { self.reason = reason }
}

/// Makes an exposure reachable under its name, and undoes that. Registrars are one of diglett's two extension points;
/// the other is ``Authenticator``. Several registrars may run side by side.
///
/// Methods are called on the loop. Each calls `completion` exactly once, on the loop, immediately or later. The gateway
/// gives each action ten seconds, then cancels it and counts it as failed; before that, it cancels actions only while
/// it stops. Failed actions are retried, so every action must be repeatable. For one name at most one action runs at a
/// time, and none while a reset runs.
package protocol Registrar: AnyObject {
    /// The registrar's name in logs.
    var label: String { get }

    /// Interval of further resets in milliseconds, if other programs can undo what the registrar did; nil for none.
    var resetPeriod: UInt64? { get }

    /// Whether names in `keeping` stay reachable during a reset. Only then does the gateway replace thousands of
    /// pending withdrawals by one reset: those must not interrupt the names of other agents.
    var resetKeepsNames: Bool { get }

    /// How many actions may run at once; the time limit of each starts when it begins. Nil for any number, if many at
    /// once cost less than one after the other.
    var maxAtOnce: Int? { get }

    /// Removes all names of this gateway that are not in `keeping`. When the gateway has just started, `keeping` is
    /// empty, and the names of a former run are removed. The gateway resets again after a failed reset, every
    /// `resetPeriod`, and, if there is a period, when the operator requests a reload.
    ///
    /// - Parameters:
    ///   - keeping: the published names. A name that is not in it may be published later.
    ///   - completion: receives those of `keeping` that are missing or wrong; the gateway publishes them again.
    /// - Returns: nil if `completion` was already called.
    func reset(
        keeping: [PublicExposure], completion: @escaping (Result<[PublicExposure], RegistrarError>) -> Void
    ) -> (any Cancellable)?

    /// Makes the name reachable for visitors. Returns nil if `completion` was already called.
    func publish(
        _ exposure: PublicExposure, completion: @escaping (Result<Void, RegistrarError>) -> Void
    ) -> (any Cancellable)?

    /// Undoes `publish`; the name's listener is already closed. Returns nil if `completion` was already called.
    func withdraw(
        _ exposure: PublicExposure, completion: @escaping (Result<Void, RegistrarError>) -> Void
    ) -> (any Cancellable)?

    /// Closes everything that is open, because the gateway stops.
    func close()
}

extension Registrar {
    package var resetPeriod: UInt64? { nil }
    package var resetKeepsNames: Bool { true }
    package var maxAtOnce: Int? { nil }
}
