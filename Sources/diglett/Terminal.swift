import Glibc

/// The terminal at standard input.
enum Terminal {
    private static let signals = [SIGINT, SIGTERM, SIGQUIT, SIGHUP]

    /// Turns off the terminal's echo while `body` reads a secret, and on again even if a signal ends the program.
    static func withoutEcho<Result, Failure>(_ body: () throws(Failure) -> Result) throws(Failure) -> Result {
        // Only in the foreground: a background process that changes the terminal is stopped (tcsetattr(3)).
        var before = termios()
        guard tcgetpgrp(STDIN_FILENO) == getpgrp(), tcgetattr(STDIN_FILENO, &before) == 0,
            before.c_lflag & tcflag_t(ECHO) != 0
        else { return try body() }
        var silent = before
        silent.c_lflag &= ~tcflag_t(ECHO)
        var actions = self.signals.map { number in
            var old = sigaction()
            var new = sigaction()
            new.__sigaction_handler.sa_handler = { number in
                // These functions are async-signal-safe (signal-safety(7)).
                var terminal = termios()
                if tcgetattr(STDIN_FILENO, &terminal) == 0 {
                    terminal.c_lflag |= tcflag_t(ECHO)
                    tcsetattr(STDIN_FILENO, TCSANOW, &terminal)
                }
                signal(number, SIG_DFL)
                raise(number)
            }
            sigaction(number, nil, &old)
            // Signals that were ignored at the start of the program stay ignored (nohup(1)).
            let isIgnored = unsafeBitCast(old.__sigaction_handler.sa_handler, to: Int.self) == 1
            if !isIgnored { sigaction(number, &new, nil) }
            return (number, old)
        }
        // Ctrl-Z would leave the shell with a terminal without echo.
        var (stop, ignore) = (sigaction(), sigaction())
        ignore.__sigaction_handler.sa_handler = SIG_IGN
        sigaction(SIGTSTP, &ignore, &stop)
        actions.append((SIGTSTP, stop))
        tcsetattr(STDIN_FILENO, TCSANOW, &silent)
        defer {
            var before = before
            tcsetattr(STDIN_FILENO, TCSANOW, &before)
            for (number, old) in actions {
                var old = old
                sigaction(number, &old, nil)
            }
        }
        return try body()
    }

    /// Asks a question and blocks the loop until it is answered. Nothing else happens before the first link.
    static func ask(_ text: String) -> Bool {
        // Signals must end the program directly, because the blocked loop cannot handle them.
        var saved: [(CInt, sigaction)] = []
        for number in [SIGINT, SIGTERM] {
            var before = sigaction()
            var byDefault = sigaction()
            byDefault.__sigaction_handler.sa_handler = SIG_DFL
            sigaction(number, &byDefault, &before)
            saved.append((number, before))
        }
        defer {
            for (number, before) in saved {
                var action = before
                sigaction(number, &action, nil)
            }
        }
        self.show("\(text) [yes/no] ")
        while let answer = readLine() {
            if answer == "yes" { return true }
            if answer == "no" { return false }
            self.show("Please type yes or no: ")
        }
        return false
    }

    /// Writes to standard error: standard output may be redirected, and is for events.
    static func show(_ text: String) {
        Array(text.utf8).withUnsafeBytes { _ = write(STDERR_FILENO, $0.baseAddress, $0.count) }
    }
}
