internal import Control
internal import Modules
internal import Wire

/// All registrars of the gateway. A name is published once all of them have published it.
final class RegistrarSet {
    private let drivers: [RegistrarDriver]

    init(_ drivers: [RegistrarDriver]) { self.drivers = drivers }

    /// Has all registrars remove leftovers of the previous run before they publish names.
    func start() {
        for driver in self.drivers { driver.start() }
    }

    /// Has all registrars check what they have published.
    func reconcile() {
        for driver in self.drivers { driver.reconcile() }
    }

    /// `completion` is called once, unless the name is withdrawn first.
    func publish(_ exposure: PublicExposure, completion: @escaping (_ isPublished: Bool) -> Void) {
        var waiting = self.drivers.count
        var isPublished = true
        for driver in self.drivers {
            driver.publish(exposure) { failure in
                if failure != nil { isPublished = false }
                waiting -= 1
                if waiting == 0 { completion(isPublished) }
            }
        }
    }

    func withdraw(_ exposure: PublicExposure) {
        for driver in self.drivers { driver.withdraw(exposure) }
    }

    /// See ``RegistrarQueue/isFull(for:of:)``.
    func isFull(for name: Name, of payer: String) -> Bool {
        self.drivers.contains { $0.isFull(for: name, of: payer) }
    }

    /// See ``RegistrarQueue/isLeaving(_:exceptOf:)``.
    func isLeaving(_ port: UInt16, exceptOf identity: String) -> Bool {
        self.drivers.contains { $0.isLeaving(port, exceptOf: identity) }
    }

    var reports: [GatewayReport.Registrar] {
        self.drivers.map {
            GatewayReport.Registrar(name: $0.label, failure: $0.failure, pending: $0.pendingCount)
        }
    }

    /// In the configured order. Further registrars of the same kind are numbered.
    var states: [GatewayFigures.RegistrarState] {
        var counts: [Substring: Int] = [:]
        return self.drivers.map { driver in
            // Only the kind: the rest of the label may be private, a webhook's URL for example.
            let kind = driver.label.prefix { $0 != " " }
            counts[kind, default: 0] += 1
            let count = counts[kind] ?? 1
            return GatewayFigures.RegistrarState(
                name: count == 1 ? String(kind) : "\(kind)-\(count)", isFailing: driver.isFailing,
                figures: driver.figures)
        }
    }

    /// Withdrawals in progress get a moment to finish.
    func close() {
        for driver in self.drivers { driver.close() }
    }
}
