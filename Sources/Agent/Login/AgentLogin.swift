internal import Logging
internal import Reactor
internal import Settings
internal import Wire

/// Provides the credentials of each login. A token in a file is read again each time.
final class AgentLogin {
    /// How long the agent waits for another token in the file after a refusal. Operators rotate a token at the gateway
    /// first and write the file afterwards.
    private static let patienceMilliseconds: UInt64 = 10_000
    private static let lookMilliseconds: UInt64 = 250

    private let loop: EventLoop
    private let logger: Logger
    private let isVersion1: Bool
    /// The file with the token, if the token can change.
    let file: String?
    /// The credentials of the last login.
    private(set) var last: Login
    /// Why the file could not be read at the last login. Logged once.
    private var problem: String?
    private var timer: LoopTimer?

    init(loop: EventLoop, settings: AgentSettings, login: Login, logger: Logger) {
        self.loop = loop
        self.logger = logger
        self.isVersion1 = settings.version1
        self.file = settings.token.file
        self.last = login
    }

    /// The credentials for the next link. While the file cannot be read, the last token is used.
    func next() -> Login {
        guard let file = self.file else { return self.last }
        do throws(SettingsError) {
            self.last.token = try LoginToken.read(again: file, isVersion1: self.isVersion1).text
            self.problem = nil
        } catch {
            let text = error.description
            if text != self.problem {
                self.logger.warning("cannot read the token again, using the last one: \(text)")
            }
            self.problem = text
        }
        return self.last
    }

    /// Whether the last token has the form that `agent add` prints. A hook may accept other tokens.
    var looksLikeToken: Bool { AgentToken.parse(self.last.token)?.secret.utf8.count == AgentToken.secretLength }

    /// Waits until the file has a token other than that of the last login.
    ///
    /// - Parameter completion: called once; with false if the time is over.
    func awaitAnother(_ completion: @escaping (_ isThere: Bool) -> Void) {
        self.close()
        let deadline = self.loop.now + Self.patienceMilliseconds
        let timer = LoopTimer(loop: self.loop) { [unowned self] in
            let isThere = self.hasAnother
            guard isThere || self.loop.now >= deadline else { return }
            self.close()
            completion(isThere)
        }
        timer.start(after: 0, repeating: Self.lookMilliseconds)
        self.timer = timer
    }

    private var hasAnother: Bool {
        guard let file = self.file, let token = try? LoginToken.read(again: file, isVersion1: self.isVersion1) else {
            return false
        }
        return token.text != self.last.token
    }

    /// Stops waiting.
    func close() {
        self.timer?.close()
        self.timer = nil
    }
}
