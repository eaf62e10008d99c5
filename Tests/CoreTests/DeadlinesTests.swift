import Testing
import Timing

@Suite("Deadlines")
struct DeadlinesTests {
    @Test("are returned in time order; a new deadline of a key replaces the old one")
    func order() {
        var deadlines = Deadlines<String>()
        #expect(deadlines.next == nil && deadlines.popDue(now: .max) == nil)
        deadlines.set("a", at: 30)
        deadlines.set("b", at: 10)
        deadlines.set("c", at: 20)
        #expect(deadlines.next == 10 && deadlines["c"] == 20)
        deadlines.set("b", at: 40)
        #expect(deadlines.next == 20 && deadlines.popDue(now: 19) == nil)
        deadlines.remove("c")
        #expect(deadlines.next == 30 && deadlines["c"] == nil)
        #expect(deadlines.popDue(now: 30) == "a" && deadlines.popDue(now: 30) == nil)
        deadlines.set("b", at: 5)
        #expect(deadlines.popDue(now: 100) == "b" && deadlines.popDue(now: 100) == nil && deadlines.next == nil)
    }

    @Test("behave like a sorted list", arguments: 1...20)
    func random(_ seed: UInt64) {
        var state = seed
        func next(_ bound: UInt64) -> UInt64 {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return (state >> 33) % bound
        }
        var deadlines = Deadlines<UInt64>()
        var model: [UInt64: UInt64] = [:]
        for now: UInt64 in 0..<2_000 {
            let key = next(50)
            switch next(4) {
            case 0, 1:
                let time = now + next(100)
                deadlines.set(key, at: time)
                model[key] = time
            case 2:
                deadlines.remove(key)
                model[key] = nil
            default:
                while let due = deadlines.popDue(now: now) {
                    #expect(model[due] == model.values.min() && model[due] ?? .max <= now)
                    model[due] = nil
                }
                #expect(model.values.allSatisfy { $0 > now })
            }
            #expect(deadlines.next == model.values.min() && deadlines[key] == model[key])
        }
    }
}
