import Glibc

/// The terminal at standard input, and whoever sits there.
enum Terminal {
    private static let signals = [SIGINT, SIGTERM, SIGQUIT, SIGHUP]
    /// How it was, for the handler of signals, which can be handed nothing.
    ///
    /// `nonisolated(unsafe)` as a static variable is anybody's. Proof that it is sound: only `withoutEcho` writes it, which
    /// the program calls once, while it reads its settings on its only thread, before there is a loop; it is written
    /// before the handler is there and not again, and the handler, on that same thread, only reads it.
    private nonisolated(unsafe) static var saved = termios()

    /// Does what reads a secret from the terminal, which does not show meanwhile what is typed. If a signal ends the
    /// program, the terminal is as before.
    static func withoutEcho<Result, Failure>(_ body: () throws(Failure) -> Result) throws(Failure) -> Result {
        // A program in the background that changes the terminal is stopped (tcsetattr(3)).
        guard tcgetpgrp(STDIN_FILENO) == getpgrp(), tcgetattr(STDIN_FILENO, &self.saved) == 0 else {
            return try body()
        }
        let before = self.saved
        var silent = before
        silent.c_lflag &= ~tcflag_t(ECHO)
        // Nobody would put the terminal right for a shell to which Ctrl-Z gives it back. 0 is for none (termios(3)).
        withUnsafeMutableBytes(of: &silent.c_cc) { $0[Int(VSUSP)] = 0 }
        let actions = self.signals.map { number in
            var old = sigaction()
            var new = sigaction()
            new.__sigaction_handler.sa_handler = { number in
                // A copy, as passing the variable itself counts as writing to it. The calls are safe in a handler
                // (signal-safety(7)).
                var saved = Terminal.saved
                tcsetattr(STDIN_FILENO, TCSANOW, &saved)
                signal(number, SIG_DFL)
                raise(number)
            }
            sigaction(number, nil, &old)
            // What whoever started the program had ignored, stays ignored (nohup(1)).
            let isIgnored = unsafeBitCast(old.__sigaction_handler.sa_handler, to: Int.self) == 1
            if !isIgnored { sigaction(number, &new, nil) }
            return (number, old)
        }
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

    /// Asks and waits, with the loop standing still: nothing else happens before the first link.
    static func ask(_ text: String) -> Bool {
        // Meanwhile signals end the program, as the loop could not hear of them.
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
            self.show("Please write yes or no: ")
        }
        return false
    }

    /// On standard error: standard output may lead elsewhere, and is for events.
    static func show(_ text: String) {
        Array(text.utf8).withUnsafeBytes { _ = write(STDERR_FILENO, $0.baseAddress, $0.count) }
    }
}
