import Console
import Glibc
import Journal
import Logging
import Settings

/// What a person sees who starts the gateway at a terminal without arguments and without agents.
enum FirstSteps {
    private static let text = """

        The gateway is running. Expose a service of this machine, in another terminal:
          diglett -g localhost -n example localhost:9000

        Accept agents from other machines:
          diglett-server agent add laptop --names example --host THIS_MACHINE
        Public ports are on 127.0.0.1 unless --expose-bind opens them, for example --expose-bind 0.0.0.0

        Press Ctrl-C to stop; 'diglett-server --help' lists all options and commands.


        """

    static func show(agentsFile: String, _ logger: Logger) {
        guard CommandLine.arguments.count == 1, isatty(STDERR_FILENO) == 1, logger.isForPeople,
            !FileAccess.exists(agentsFile)
        else { return }
        Array(self.text.utf8).withUnsafeBytes { _ = write(STDERR_FILENO, $0.baseAddress, $0.count) }
    }
}
