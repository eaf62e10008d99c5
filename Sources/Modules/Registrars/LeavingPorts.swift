internal import Reactor
internal import Wire

/// Public ports of withdrawn names, kept while a proxy may still send visitors there.
///
/// Names are withdrawn one by one until there are too many. Then all of them are left to the registrar's next reset,
/// which removes every unwanted name, and only their ports are remembered: a machine has at most 65,535 of those.
struct LeavingPorts {
    private struct Place: Hashable {
        let port: UInt16
        let identity: String
    }

    private var places: [Name: Set<Place>] = [:]
    /// Ports of names that the next reset removes; `covered` are those of the reset that is running.
    private var abandoned: Set<Place> = []
    private var covered: Set<Place> = []
    /// Whether names were abandoned since the last reset began. Not derived from the ports, as a name may have none.
    private(set) var needReset = false
    private var isCovering = false
    /// How many of the sets above contain a port, by port and identity, because every registration looks ports up.
    private var counts: [UInt16: [String: Int]] = [:]

    mutating func withdrawn(_ exposure: PublicExposure) {
        guard let port = exposure.address?.port else { return }
        let place = Place(port: port, identity: exposure.identity)
        if self.places[exposure.name, default: []].insert(place).inserted { self.count(place, 1) }
    }

    /// The name's route was removed or replaced.
    mutating func moved(_ name: Name) { self.count(self.places.removeValue(forKey: name), -1) }

    /// The name's withdrawal is left to the next reset.
    mutating func abandon(_ name: Name) {
        let places = self.places.removeValue(forKey: name)
        self.count(places, -1)
        for place in places ?? [] where self.abandoned.insert(place).inserted { self.count(place, 1) }
        self.needReset = true
    }

    mutating func resetBegan() {
        // Places in both sets were counted twice; from now on they are in one set.
        self.count(self.abandoned.intersection(self.covered), -1)
        self.covered.formUnion(self.abandoned)
        self.abandoned = []
        self.isCovering = self.isCovering || self.needReset
        self.needReset = false
    }

    /// - Parameter isKept: whether the reset kept a name.
    mutating func resetSucceeded(isKept: (Name) -> Bool) {
        self.count(self.covered, -1)
        self.covered = []
        self.isCovering = false
        for name in self.places.keys where !isKept(name) { self.moved(name) }
    }

    mutating func resetFailed() {
        self.count(self.covered.intersection(self.abandoned), -1)
        self.abandoned.formUnion(self.covered)
        self.covered = []
        self.needReset = self.needReset || self.isCovering
        self.isCovering = false
    }

    /// - Parameter identity: the agent whose own ports do not count.
    func contains(_ port: UInt16, exceptOf identity: String) -> Bool {
        self.counts[port]?.contains { $0.key != identity } ?? false
    }

    private mutating func count(_ places: Set<Place>?, _ change: Int) {
        for place in places ?? [] { self.count(place, change) }
    }

    private mutating func count(_ place: Place, _ change: Int) {
        let count = (self.counts[place.port]?[place.identity] ?? 0) + change
        self.counts[place.port, default: [:]][place.identity] = count > 0 ? count : nil
        if self.counts[place.port]?.isEmpty ?? false { self.counts[place.port] = nil }
    }
}
