package import Reactor
package import Settings
package import Web
internal import Wire

/// Sends each request to a web service: a POST with the request as JSON, answered with JSON.
package final class WebHook: HookTransport {
    /// Requests that may run at once; ``HookQueue`` enforces it. This is the number of connections that ``HTTPClient``
    /// opens to one server. libcurl would queue further requests, without regard to their sources.
    package static let maxRunning = 8
    private static let maxAnswer = 64 * 1_024
    private static let retryMilliseconds: UInt64 = 200

    private let client: HTTPClient
    private let loop: EventLoop
    private let settings: WebhookSettings

    package init(loop: EventLoop, client: HTTPClient, settings: WebhookSettings) {
        self.loop = loop
        self.client = client
        self.settings = settings
    }

    package var label: String { "webhook \(self.settings.shownURL)" }

    private final class Question: Cancellable {
        let body: [UInt8]
        let deadline: UInt64
        private var completion: ((Result<HookAnswer, HookFailure>) -> Void)?
        private var whenOver: (() -> Void)?
        var attempts = 0
        var task: HTTPTask?
        var timer: LoopTimer?

        init(
            _ body: [UInt8], deadline: UInt64, _ completion: @escaping (Result<HookAnswer, HookFailure>) -> Void,
            whenOver: @escaping () -> Void
        ) {
            self.body = body
            self.deadline = deadline
            self.completion = completion
            self.whenOver = whenOver
        }

        func cancel() {
            self.completion = nil
            self.task?.cancel()
            self.task = nil
            self.timer?.close()
            self.timer = nil
            self.isOver()
        }

        func finish(_ result: Result<HookAnswer, HookFailure>) {
            let completion = self.completion
            self.completion = nil
            completion?(result)
            self.isOver()
        }

        private func isOver() {
            let whenOver = self.whenOver
            self.whenOver = nil
            whenOver?()
        }
    }

    package func ask(
        _ request: HookRequest, completion: @escaping (Result<HookAnswer, HookFailure>) -> Void,
        whenOver: @escaping () -> Void
    ) -> any Cancellable {
        let question = Question(
            request.line(), deadline: self.loop.now + self.settings.timeout, completion, whenOver: whenOver)
        self.attempt(question)
        return question
    }

    /// Starts an attempt. The timeout covers all attempts together.
    private func attempt(_ question: Question) {
        question.timer?.close()
        question.timer = nil
        question.attempts += 1
        let timeout = max(question.deadline - min(question.deadline, self.loop.now), 1)
        var call = HTTPRequest(method: .post, url: self.settings.url, timeout: timeout)
        call.fields = [
            HTTPRequest.Field("Content-Type", "application/json"), HTTPRequest.Field("Accept", "application/json"),
        ]
        if !self.settings.secret.isEmpty {
            call.fields.append(HTTPRequest.Field("Authorization", "Bearer \(self.settings.secret)"))
        }
        call.body = question.body
        call.maxResponse = Self.maxAnswer
        call.authorityFile = self.settings.caFile
        call.certificateFile = self.settings.certificateFile
        call.keyFile = self.settings.keyFile
        question.task = self.client.send(call) { [weak self] result in
            question.task = nil
            self?.answered(question, result)
        }
    }

    private func answered(_ question: Question, _ result: Result<HTTPResponse, HTTPFailure>) {
        switch result {
        case .success(let response) where response.status == 200: question.finish(HookAnswer.parse(response.body))
        case .success(let response) where response.status < 500:
            question.finish(.failure(HookFailure("answered with status \(response.status)")))
        case .success(let response):
            self.retry(question, HookFailure("answered with status \(response.status)"))
        case .failure(.tooLarge): question.finish(.failure(HookFailure("answered more than \(Self.maxAnswer) bytes")))
        case .failure(let failure): self.retry(question, HookFailure("did not answer: \(failure)"))
        }
    }

    private func retry(_ question: Question, _ failure: HookFailure) {
        let pause = Self.retryMilliseconds << UInt64(min(question.attempts - 1, 6))
        guard question.attempts <= self.settings.retries, self.loop.now + pause < question.deadline else {
            return question.finish(.failure(failure))
        }
        let timer = LoopTimer(loop: self.loop) { [weak self] in self?.attempt(question) }
        timer.start(after: pause)
        question.timer = timer
    }

    package func close() { self.client.close() }
}
