import Foundation
import Reactor
import Testing

extension ReactorTests {
    @Suite("Event loop")
    struct LoopTests {
        @Test("messages from other threads arrive in order, and a closed mailbox accepts none")
        func mailbox() throws {
            try withLoop { loop in
                var received: [Int] = []
                let mailbox = try Mailbox<Int>(loop: loop) { received.append($0) }
                let sender = mailbox.sender
                let thread = Thread { for number in 0..<1_000 { sender.post(number) } }
                thread.start()
                #expect(loop.run { received.count == 1_000 })
                #expect(received == Array(0..<1_000))
                mailbox.close()
                #expect(!sender.post(7))
            }
        }

        @Test("a signal calls its closure on the loop")
        func signals() throws {
            try withLoop { loop in
                var count = 0
                let source = try SignalSource(loop: loop, .hangUp) { count += 1 }
                kill(getpid(), SIGHUP)
                let keepAlive = LoopTimer(loop: loop) {}
                keepAlive.start(after: 5_000)
                #expect(loop.run { count == 1 })
                source.close()
                keepAlive.close()
            }
        }

        @Test("a timer fires once, or repeatedly until its own callback closes it")
        func timers() throws {
            try withLoop { loop in
                var once = 0
                var often = 0
                let single = LoopTimer(loop: loop) { once += 1 }
                single.start(after: 1)
                var repeating: LoopTimer?
                repeating = LoopTimer(loop: loop) {
                    often += 1
                    if often == 3 { repeating?.close() }
                }
                repeating?.start(after: 0, repeating: 1)
                #expect(loop.run { often == 3 && once == 1 })
                single.close()
            }
        }

        @Test("a throttle runs the first request at once and merges later ones until its pause is over")
        func throttle() throws {
            try withLoop { loop in
                var times: [UInt64] = []
                let throttle = Throttle(loop: loop, milliseconds: 50) { times.append(EventLoop.nanoseconds) }
                throttle.request()
                #expect(times.count == 1)
                for _ in 0..<10 { throttle.request() }
                #expect(times.count == 1)
                #expect(loop.run { times.count == 2 })
                #expect(times[1] - times[0] >= 49_000_000)
                // The second run starts its own pause. No request is left after that.
                loop.run()
                #expect(times.count == 2)
                throttle.request()
                throttle.request()
                throttle.close()
                throttle.request()
                loop.run()
                #expect(times.count == 3)
            }
        }

        @Test("a turn-end handler runs once, in the same turn")
        func turnEnd() throws {
            final class Counter: TurnEndHandler {
                var count = 0
                func turnDidEnd() { self.count += 1 }
            }
            try withLoop { loop in
                let counter = Counter()
                let timer = LoopTimer(loop: loop) { loop.atTurnEnd(counter) }
                timer.start(after: 0)
                #expect(loop.run { counter.count == 1 })
                timer.close()
            }
        }

        @Test("closing a loop with an open handle traps")
        func leak() async {
            await #expect(processExitsWith: .failure) {
                let loop = try EventLoop()
                let timer = LoopTimer(loop: loop) {}
                timer.start(after: 100_000)
                timer.stop()
                loop.close()
            }
        }
    }
}
