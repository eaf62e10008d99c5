/// A program to run as a ``ChildProcess``.
package struct ChildCommand: Sendable {
    /// The program, a path or a name to be looked for in PATH, and its arguments. No shell reads them.
    package var arguments: [String]
    /// Variables that the program gets beside those of ``inherited``, before which they take precedence.
    package var environment: [String: String]
    /// What the program reads from its standard input.
    package var input: [UInt8]
    /// Milliseconds for everything together; nil for as long as it takes.
    package var timeout: UInt64?
    /// Bytes that standard output may have, and standard error too.
    package var maxOutput: Int
    /// Whether it is the user's own program rather than a question of ours: it gets our whole environment but
    /// ``secrets`` and our working directory, and what it writes goes to our standard error.
    package var isUsersOwn = false

    /// What a program needs to find others, its files and its language, and nothing else of ours: our environment may
    /// hold secrets (`DIGLETT_TOKEN`).
    package static let inherited = ["PATH", "HOME", "LANG", "TZ"]

    /// Variables of ours that no program is given.
    static let secrets: Set<String> = ["DIGLETT_TOKEN"]

    package init(
        arguments: [String], environment: [String: String] = [:], input: [UInt8] = [], timeout: UInt64?,
        maxOutput: Int = 64 * 1_024
    ) {
        self.arguments = arguments
        self.environment = environment
        self.input = input
        self.timeout = timeout
        self.maxOutput = maxOutput
    }

    /// Whether execve(2) can be given all of it: its strings end with a zero byte, and a variable's name with `=`
    /// (environ(7)).
    var isPassable: Bool {
        guard let program = self.arguments.first, !program.isEmpty else { return false }
        func isText(_ text: String) -> Bool { !text.utf8.contains(0) }
        return self.arguments.allSatisfy(isText)
            && self.environment.allSatisfy { name, value in
                !name.isEmpty && isText(name) && !name.utf8.contains(UInt8(ascii: "=")) && isText(value)
            }
    }
}

/// How a program ended and what it said.
package struct ChildOutcome: Equatable, Sendable, CustomStringConvertible {
    package enum End: Equatable, Sendable {
        /// 0 to 255; by convention 0 is success.
        case exited(code: Int)
        /// signal(7)
        case signalled(number: Int)
    }

    package let end: End
    package let standardOutput: [UInt8]
    package let standardError: [UInt8]

    package init(end: End, standardOutput: [UInt8], standardError: [UInt8]) {
        self.end = end
        self.standardOutput = standardOutput
        self.standardError = standardError
    }

    /// How it ended, without what it said.
    package var description: String {
        switch self.end {
        case .exited(let code): "exited with code \(code)"
        case .signalled(let number): "was killed by signal \(number)"
        }
    }
}

/// Why there is no outcome.
package enum ChildFailure: Error, Equatable, Sendable, CustomStringConvertible {
    /// There is no such program, it may not be run, there is no descriptor or process left, or a text holds a zero byte.
    case cannotStart(UVError)
    /// It, or a process it left behind that holds its output open, did not end in time.
    case timedOut
    case tooMuchOutput

    package var description: String {
        switch self {
        case .cannotStart(let error): "cannot be started: \(error)"
        case .timedOut: "timed out and was killed"
        case .tooMuchOutput: "wrote too much output and was killed"
        }
    }
}
