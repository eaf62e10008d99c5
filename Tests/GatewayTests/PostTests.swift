import Reactor
import Testing

@testable import Gateway

@Suite("Messages between hub and worker")
struct PostTests {
    @Test("arrive in order at the end of the turn, and answers in the same turn")
    func order() throws {
        let loop = try EventLoop()
        let questions = Post<Int>(loop: loop)
        let answers = Post<String>(loop: loop)
        var received: [String] = []
        var isSending = false
        questions.deliver { number in
            #expect(!isSending, "a message arrived from inside the call that sent it")
            answers.send("answer \(number)")
            if number == 2 { questions.send(3) }
        }
        answers.deliver { received.append($0) }
        var turn: UInt64?
        let timer = LoopTimer(loop: loop) {
            isSending = true
            questions.send(1)
            questions.send(2)
            isSending = false
            turn = loop.turn
        }
        timer.start(after: 0)
        #expect(loop.run { received.count == 3 })
        #expect(received == ["answer 1", "answer 2", "answer 3"])
        #expect(loop.turn == (turn ?? 0) + 1)
        timer.close()
        // The closures retain the posts that they use.
        questions.deliver(to: nil)
        answers.deliver(to: nil)
        loop.close()
    }
}
