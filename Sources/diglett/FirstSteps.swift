import ArgumentParser
import Console
import Glibc

/// What the program prints if it does not know what to do.
enum FirstSteps {
    private static let usage = """
        diglett exposes a service on this machine through a public gateway.

        Usage: diglett -g GATEWAY -n NAME BACKEND
               diglett -g gateway.example.com -n example localhost:9000
        """

    private static let steps = """


        Try it on this machine, in three terminals:
          diglett-server
          python3 -m http.server --directory . --bind :: 9000
          diglett -g localhost -n example localhost:9000
        """

    private static let more = "\n\n'diglett --help' lists all options and commands.\n"

    /// Shows how to begin, on a terminal with an example that can be tried at once, and ends the program.
    static func show() -> Never {
        Terminal.show(self.usage + (isatty(STDERR_FILENO) == 1 ? self.steps : "") + self.more)
        Diglett.exit(withError: ExitCode.validationFailure)
    }

    /// Reports an error of the command line, and ends the program.
    static func fail(_ error: String) -> Never {
        Complaint.write("\(error)\n  See 'diglett --help' for more information.")
        Diglett.exit(withError: ExitCode.validationFailure)
    }
}
