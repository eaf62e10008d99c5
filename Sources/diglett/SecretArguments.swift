import Glibc

/// Takes secrets of the command line out of the list of processes.
enum SecretArguments {
    /// The values of an option, each time that it is given: the parser keeps the last only.
    static func values(of short: String, _ long: String) -> [String] {
        let arguments = CommandLine.arguments
        return arguments.indices.compactMap { index in
            if arguments[index].hasPrefix("\(long)=") { return String(arguments[index].dropFirst(long.count + 1)) }
            guard arguments[index] == short || arguments[index] == long else { return nil }
            return arguments.dropFirst(index + 1).first
        }
    }

    /// Overwrites a secret wherever it stands in the arguments, however the option was written.
    ///
    /// A program may change the strings of `argv` (C17, 5.1.2.2.1), and `ps` shows them as they are now (proc(5),
    /// `/proc/pid/cmdline`). `CommandLine.unsafeArgv` is that memory, and it is written within each string's own length. It
    /// was visible until now, and is in the shell's history: a file is better.
    static func hide(_ secret: String) {
        let length = secret.utf8.count
        guard length > 0 else { return }
        for argument in UnsafeBufferPointer(start: CommandLine.unsafeArgv, count: Int(CommandLine.argc)) {
            guard var rest = argument else { continue }
            while let found = strstr(rest, secret) {
                memset(found, CInt(UInt8(ascii: "*")), length)
                rest = found + length
            }
        }
    }
}
