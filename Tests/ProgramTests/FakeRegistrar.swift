import Gateway
import Journal
import Modules
import Reactor
import Testing
import Wire

/// Does as it is told, and keeps what it was asked.
final class FakeRegistrar: Registrar {
    let label = "fake"
    var resetPeriod: UInt64?
    var resetKeepsNames = true
    var mostAtOnce: Int?
    var calls: [String] = []
    /// What fails, by how it is called in `calls`.
    var failing: Set<String> = []
    /// Names that a reset finds missing.
    var missing: Set<String> = []
    /// Answers that wait until they are let go.
    var waiting: [() -> Void] = []
    var answersLater = false

    private func answer(_ call: String, _ completion: @escaping (Result<Void, RegistrarError>) -> Void) {
        self.calls.append(call)
        let result: Result<Void, RegistrarError> =
            self.failing.contains(call) ? .failure(RegistrarError(reason: "is broken")) : .success(())
        if self.answersLater { self.waiting.append { completion(result) } } else { completion(result) }
    }

    func letGo() {
        let waiting = self.waiting
        self.waiting = []
        for answer in waiting { answer() }
    }

    func count(_ call: String) -> Int { self.calls.count { $0 == call } }

    func reset(
        keeping: [PublicExposure], completion: @escaping (Result<[PublicExposure], RegistrarError>) -> Void
    ) -> (any Cancellable)? {
        let names = keeping.map(\.name.text)
        let missing = keeping.filter { self.missing.contains($0.name.text) }
        self.answer((["reset"] + names).joined(separator: " ")) { completion($0.map { missing }) }
        return nil
    }

    func publish(
        _ exposure: PublicExposure, completion: @escaping (Result<Void, RegistrarError>) -> Void
    ) -> (any Cancellable)? {
        self.answer("publish \(exposure.name)", completion)
        return nil
    }

    func withdraw(
        _ exposure: PublicExposure, completion: @escaping (Result<Void, RegistrarError>) -> Void
    ) -> (any Cancellable)? {
        self.answer("withdraw \(exposure.name)", completion)
        return nil
    }

    func close() {}
}

/// A registrar's driver on a loop of its own.
final class DriverStand {
    let loop: EventLoop
    let registrar = FakeRegistrar()
    let driver: RegistrarDriver
    let log = LogLines()

    init(limits: WithdrawalLimits = WithdrawalLimits()) throws {
        self.loop = try EventLoop()
        self.driver = RegistrarDriver(
            loop: self.loop, registrar: self.registrar, limits: limits,
            log: PeerLog(self.log.logger, loop: self.loop))
    }

    func close() {
        self.driver.close()
        self.loop.run()
        self.loop.close()
    }

    static func exposure(
        _ name: String, of identity: String = "x", payer: String? = nil, port: UInt16 = 4_711
    ) throws -> PublicExposure {
        PublicExposure(
            name: try #require(Name(name)), identity: identity, payer: payer,
            address: SocketAddress("127.0.0.1", port: port))
    }
}

extension RegistrarDriver {
    /// All public ports that other agents' names must not have yet.
    func leavingPorts(exceptOf identity: String) -> Set<UInt16> {
        Set((1...65_535).filter { self.isLeaving($0, exceptOf: identity) })
    }
}
