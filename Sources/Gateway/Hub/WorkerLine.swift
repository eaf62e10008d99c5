internal import Reactor

/// Connects the hub to its worker on the same loop. Orders, reports and answers are delivered at the end of the turn.
final class WorkerLine {
    private let orders: Post<WorkerOrder>
    private let reports: Post<WorkerReport>
    private var lastQuestion: UInt64 = 0
    private var questions: [UInt64: (WorkerAnswer) -> Void] = [:]

    init(loop: EventLoop) {
        self.orders = Post(loop: loop)
        self.reports = Post(loop: loop)
    }

    /// - Parameter receive: called with the worker's reports.
    func connect(_ worker: Worker, receive: @escaping (WorkerReport) -> Void) {
        self.orders.deliver { [unowned self] order in
            worker.perform(order)
            if case .shutDown = order { self.disconnect() }
        }
        self.reports.deliver(to: receive)
    }

    /// Breaks the reference cycle between worker and line.
    private func disconnect() {
        self.orders.deliver(to: nil)
        self.reports.deliver(to: nil)
        self.questions = [:]
    }

    func send(_ order: WorkerOrder) { self.orders.send(order) }

    /// Called by the worker.
    func report(_ report: WorkerReport) { self.reports.send(report) }

    /// - Parameter withStreams: whether to list each stream.
    func census(withStreams: Bool = false, completion: @escaping (WorkerCensus) -> Void) {
        self.ask(.census(withStreams: withStreams)) { answer in
            if case .census(let census) = answer { completion(census) }
        }
    }

    func ask(_ question: WorkerQuestion, completion: @escaping (WorkerAnswer) -> Void) {
        self.lastQuestion += 1
        self.questions[self.lastQuestion] = completion
        self.send(.ask(self.lastQuestion, question))
    }

    func answered(_ number: UInt64, _ answer: WorkerAnswer) { self.questions.removeValue(forKey: number)?(answer) }
}
