internal import Admission
internal import Reactor
internal import Settings
internal import Wire

/// Why a visitor is not let in.
enum VisitorRefusal: CaseIterable, CustomStringConvertible {
    case tooMany, tooManyFromSource, tooFastFromSource, tooManyUnnamed

    var description: String {
        switch self {
        case .tooMany: "the gateway has as many visitors as it may have"
        case .tooManyFromSource: "its address has too many connections"
        case .tooFastFromSource: "its address connects too often"
        case .tooManyUnnamed: "too many PROXY headers are waited for"
        }
    }
}

/// Who visits: counts visitors against their limits, and knows which proxies may say who comes.
final class VisitorBook {
    private let loop: EventLoop
    private let proxies: [Network]
    private let socketsAreProxied: Bool
    private var gate: VisitorGate

    /// - Parameter socketsAreProxied: whether what comes through unix sockets begins with a PROXY header.
    init(loop: EventLoop, limits: VisitorLimits, proxies: [Network], socketsAreProxied: Bool) {
        self.loop = loop
        self.proxies = proxies
        self.socketsAreProxied = socketsAreProxied
        self.gate = VisitorGate(limits: limits)
    }

    /// Whether what comes from there begins with a PROXY header.
    func isProxy(_ origin: Origin) -> Bool {
        switch origin {
        case .socket: return self.socketsAreProxied
        case .address(let address):
            let address = WireAddress(address)
            return self.proxies.contains { $0.contains(address) }
        }
    }

    /// Why a visitor is not let in, if so; else it counts until `left`.
    ///
    /// - Parameter makeRoom: called when there are as many visitors as there may be; true when one of them goes.
    func refusal(of source: Source, makeRoom: () -> Bool) -> VisitorRefusal? {
        if self.gate.isFull, makeRoom() { self.gate.willLeave() }
        return Self.refusal(self.gate.arrived(from: source, now: self.loop.now))
    }

    /// Why a proxy's connection is not let in, if so; else it counts until `unnamedLeft` or `refusal(ofNamed:)`.
    func refusalOfUnnamed() -> VisitorRefusal? {
        Self.refusal(self.gate.arrivedUnnamed())
    }

    /// Why a visitor that a proxy has named is not let in, if so; else it counts until `left`.
    func refusal(ofNamed source: Source) -> VisitorRefusal? {
        Self.refusal(self.gate.named(source, now: self.loop.now))
    }

    var count: Int { self.gate.count }

    /// Whether so many are here that each should get little memory.
    var isCrowded: Bool { self.gate.count * 4 > self.gate.limits.total }

    func left(_ source: Source) { self.gate.left(source) }

    func unnamedLeft() { self.gate.unnamedLeft() }

    /// Call it about once a second.
    func tick() { self.gate.forgetIdle(now: self.loop.now) }

    private static func refusal(_ verdict: VisitorGate.Verdict) -> VisitorRefusal? {
        switch verdict {
        case .admit: nil
        case .tooMany: .tooMany
        case .tooManyFromSource: .tooManyFromSource
        case .tooFastFromSource: .tooFastFromSource
        case .tooManyUnnamed: .tooManyUnnamed
        }
    }
}
