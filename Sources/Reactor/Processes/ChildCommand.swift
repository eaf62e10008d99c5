/// A program to run as a ``ChildProcess``.
package struct ChildCommand: Sendable {
    /// The program and its arguments. The program is a path, or a name to look up in PATH. No shell interprets them.
    package var arguments: [String]
    /// Additional environment variables. They override inherited ones.
    package var environment: [String: String]
    /// The program's standard input.
    package var input: [UInt8]
    /// Milliseconds until the program is killed; nil for no limit.
    package var timeout: UInt64?
    /// Maximum number of bytes on standard output, and also on standard error.
    package var maxOutput: Int
    /// Whether this is a program that the user wants to run, rather than one that answers our request. Such a program
    /// inherits our whole environment except ``secrets``, and our working directory. Its output goes to our standard
    /// error.
    package var isUsersOwn = false

    /// The variables that programs inherit: enough to find other programs, files and the language. The others are
    /// withheld because our environment may hold secrets (`DIGLETT_TOKEN`).
    package static let inherited = ["PATH", "HOME", "LANG", "TZ"]

    /// Environment variables that no program inherits.
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

    /// Whether the command can be passed to execve(2): there is a program, no string contains a zero byte, and no
    /// variable name is empty or contains `=` (environ(7)).
    var isPassable: Bool {
        guard let program = self.arguments.first, !program.isEmpty else { return false }
        func isText(_ text: String) -> Bool { !text.utf8.contains(0) }
        return self.arguments.allSatisfy(isText)
            && self.environment.allSatisfy { name, value in
                !name.isEmpty && isText(name) && !name.utf8.contains(UInt8(ascii: "=")) && isText(value)
            }
    }
}

/// How a program ended, and its output.
package struct ChildOutcome: Equatable, Sendable, CustomStringConvertible {
    package enum End: Equatable, Sendable {
        /// The exit code, 0 to 255. By convention 0 means success.
        case exited(code: Int)
        /// Killed by a signal (signal(7)).
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

    /// How the program ended, without its output.
    package var description: String {
        switch self.end {
        case .exited(let code): "exited with code \(code)"
        case .signalled(let number): "was killed by signal \(number)"
        }
    }
}

/// Why a program could not be run to its end.
package enum ChildFailure: Error, Equatable, Sendable, CustomStringConvertible {
    /// For example: the program does not exist or may not be executed, no descriptor or process is left, or a string
    /// contains a zero byte.
    case cannotStart(UVError)
    /// The program, or a process that it left behind and that holds its output open, did not end in time.
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
