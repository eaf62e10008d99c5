internal import Modules
internal import Reactor
internal import Wire

/// Public ports of withdrawn names, as long as a proxy may still lead visitors there.
///
/// Names are withdrawn one by one until there are too many. Then all of them are left to the registrar's next reset,
/// which removes every unwanted name, and only their ports are kept: a machine has at most 65,535 of those.
struct LeavingPlaces {
    private struct Place: Hashable {
        let port: UInt16
        let identity: String
    }

    private var places: [Name: Set<Place>] = [:]
    /// Of names that the next reset takes back, and of those that the present one does.
    private var abandoned: Set<Place> = []
    private var covered: Set<Place> = []
    /// Whether names have been abandoned since the last reset began; a name may have no port.
    private(set) var needReset = false
    private var isCovering = false

    mutating func withdrawn(_ exposure: PublicExposure) {
        guard let port = exposure.address?.port else { return }
        self.places[exposure.name, default: []].insert(Place(port: port, identity: exposure.identity))
    }

    /// The name leads nowhere any more, or elsewhere.
    mutating func moved(_ name: Name) { self.places[name] = nil }

    /// The name is not withdrawn by itself any more.
    mutating func abandon(_ name: Name) {
        self.abandoned.formUnion(self.places.removeValue(forKey: name) ?? [])
        self.needReset = true
    }

    mutating func resetBegan() {
        self.covered.formUnion(self.abandoned)
        self.abandoned = []
        self.isCovering = self.isCovering || self.needReset
        self.needReset = false
    }

    /// - Parameter isKept: whether the reset kept a name, or does not count for it.
    mutating func resetSucceeded(isKept: (Name) -> Bool) {
        self.covered = []
        self.isCovering = false
        for name in self.places.keys where !isKept(name) { self.places[name] = nil }
    }

    mutating func resetFailed() {
        self.abandoned.formUnion(self.covered)
        self.covered = []
        self.needReset = self.needReset || self.isCovering
        self.isCovering = false
    }

    /// - Parameter identity: the agent whose own ports do not count.
    func ports(exceptOf identity: String) -> Set<UInt16> {
        let all = [self.abandoned, self.covered] + Array(self.places.values)
        return Set(all.joined().filter { $0.identity != identity }.map(\.port))
    }
}
