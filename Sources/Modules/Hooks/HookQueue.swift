package import Reactor

/// Limits how many requests a hook handles at once; others wait. A request keeps its slot while anything runs for it.
///
/// A hook may be slow, and any unauthenticated client can send logins. Logins are therefore scheduled round robin by
/// source (`IPAddress.source`) and bounded per source, so many logins from one source do not delay a single login from
/// another. One source never occupies all slots: one is always left for other sources, however long the requests take.
///
/// Requests about names come from agents that have logged in, and each agent's number of names is bounded. So none of
/// these requests is dropped; they are scheduled round robin by agent. Logins and names alternate, so neither delays
/// the other.
package final class HookQueue: HookTransport {
    /// Limits on waiting logins: in total, and per source. With a quarter each, four sources cannot keep out a fifth.
    package static let maxLogins = 256
    package static let maxLoginsPerSource = 64

    private let loop: EventLoop
    private let hook: any HookTransport
    private let maxRunning: Int
    private var running = 0
    /// Logins that the hook is handling, by source.
    private var runningLogins: [UInt64: Int] = [:]
    private var logins = TurnQueue<UInt64, Question>(
        atMost: HookQueue.maxLogins, maxPerOwner: HookQueue.maxLoginsPerSource)
    private var others = TurnQueue<String, Question>()
    /// Whether a login goes next if requests of both kinds wait.
    private var isLoginsTurn = false
    /// Requests dropped to make room; they fail at the end of the turn.
    private var evicted: [Question] = []

    /// - Parameter maxRunning: requests that the hook handles at once.
    package init(loop: EventLoop, hook: any HookTransport, maxRunning: Int) {
        self.loop = loop
        self.hook = hook
        self.maxRunning = maxRunning
    }

    package var label: String { self.hook.label }

    private final class Question: Cancellable {
        let request: HookRequest
        var completion: ((Result<HookAnswer, HookFailure>) -> Void)?
        var whenOver: (() -> Void)?
        /// Nil while the request waits.
        var operation: (any Cancellable)?
        private weak var queue: HookQueue?

        init(
            _ request: HookRequest, _ queue: HookQueue,
            _ completion: @escaping (Result<HookAnswer, HookFailure>) -> Void, _ whenOver: @escaping () -> Void
        ) {
            self.request = request
            self.queue = queue
            self.completion = completion
            self.whenOver = whenOver
        }

        var isLogin: Bool { self.request.action == .authenticate }
        var source: UInt64 { self.request.peer?.source ?? 0 }
        var owner: String { self.request.identity ?? "" }

        func cancel() {
            guard self.completion != nil else { return }
            self.completion = nil
            self.queue?.cancelled(self)
        }

        func answer(_ result: Result<HookAnswer, HookFailure>) {
            let completion = self.completion
            self.completion = nil
            completion?(result)
        }

        func isOver() {
            let whenOver = self.whenOver
            self.whenOver = nil
            whenOver?()
        }
    }

    package func ask(
        _ request: HookRequest, completion: @escaping (Result<HookAnswer, HookFailure>) -> Void,
        whenOver: @escaping () -> Void
    ) -> any Cancellable {
        let question = Question(request, self, completion, whenOver)
        if self.running < self.maxRunning, !question.isLogin || self.mayAsk(question.source) {
            self.start(question)
        } else if question.isLogin {
            if let evicted = self.logins.append(question, of: question.source) { self.evict(evicted) }
        } else {
            _ = self.others.append(question, of: question.owner)
        }
        return question
    }

    private func mayAsk(_ source: UInt64) -> Bool {
        self.runningLogins[source, default: 0] < max(self.maxRunning - 1, 1)
    }

    private func evict(_ question: Question) {
        if self.evicted.isEmpty { self.loop.atTurnEnd(self) }
        self.evicted.append(question)
    }

    private func start(_ question: Question) {
        self.running += 1
        if question.isLogin { self.runningLogins[question.source, default: 0] += 1 }
        question.operation = self.hook.ask(
            question.request,
            completion: { result in
                question.operation = nil
                question.answer(result)
            },
            whenOver: { [weak self] in
                self?.ended(question)
                question.isOver()
            })
    }

    private func cancelled(_ question: Question) {
        if let operation = question.operation {
            question.operation = nil
            operation.cancel()
        } else {
            if question.isLogin {
                self.logins.remove(question, of: question.source)
            } else {
                self.others.remove(question, of: question.owner)
            }
            question.isOver()
        }
    }

    private func ended(_ question: Question) {
        self.running -= 1
        if question.isLogin {
            let count = self.runningLogins[question.source, default: 1] - 1
            self.runningLogins[question.source] = count > 0 ? count : nil
        }
        var next: Question?
        if self.others.isEmpty || self.isLoginsTurn { next = self.logins.popFirst { self.mayAsk($0) } }
        self.isLoginsTurn = next == nil
        if let next = next ?? self.others.popFirst() { self.start(next) }
    }

    package func close() {
        self.logins.removeAll()
        self.others.removeAll()
        self.evicted = []
        self.hook.close()
    }
}

extension HookQueue: TurnEndHandler {
    package func turnDidEnd() {
        let evicted = self.evicted
        self.evicted = []
        for question in evicted {
            question.answer(.failure(HookFailure("too many requests are waiting")))
            question.isOver()
        }
    }
}
