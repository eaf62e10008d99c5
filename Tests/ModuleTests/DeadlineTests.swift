import Modules
import Reactor
import Testing

@Suite("Module deadlines", .serialized, .timeLimit(.minutes(1)))
struct ModuleDeadlineTests {
    private final class Work: Cancellable {
        var isCancelled = false
        var answer: ((Int) -> Void)?
        func cancel() { self.isCancelled = true }

        /// Starts with a deadline of one millisecond. The late answer is -1.
        func started(on loop: EventLoop, _ completion: @escaping (Int) -> Void) -> DeadlinedOperation<Int> {
            DeadlinedOperation(
                loop: loop, milliseconds: 1, late: -1,
                start: { answer in
                    self.answer = answer
                    return self
                }, completion: completion)
        }
    }

    private func withLoop(_ body: (EventLoop) -> Void) throws {
        let loop = try EventLoop()
        body(loop)
        loop.close()
    }

    @Test("an immediate answer is delivered once, and leaves no timer")
    func atOnce() throws {
        try withLoop { loop in
            var answers: [Int] = []
            let operation = DeadlinedOperation<Int>(
                loop: loop, milliseconds: 5_000, late: 0,
                start: { completion in
                    completion(7)
                    completion(8)
                    return nil
                }, completion: { answers.append($0) })
            loop.run()
            #expect(answers == [7])
            _ = operation
        }
    }

    @Test("a late answer is dropped: the deadline has answered and cancelled the work")
    func late() throws {
        try withLoop { loop in
            let work = Work()
            var answers: [Int] = []
            let operation = work.started(on: loop) { answers.append($0) }
            #expect(loop.run { !answers.isEmpty })
            work.answer?(7)
            #expect(answers == [-1])
            #expect(work.isCancelled)
            _ = operation
        }
    }

    @Test("no answer is delivered after a cancellation")
    func cancelled() throws {
        try withLoop { loop in
            let work = Work()
            var answers: [Int] = []
            let operation = work.started(on: loop) { answers.append($0) }
            operation.cancel()
            work.answer?(7)
            loop.run()
            #expect(answers.isEmpty)
            #expect(work.isCancelled)
        }
    }
}
