import Glibc

/// Hides secrets on the command line from the list of processes.
enum SecretArguments {
    /// Overwrites a secret everywhere in the arguments, however the option was written.
    ///
    /// A program may change the strings of `argv` (C17, 5.1.2.2.1), and `ps` shows their current content (proc(5),
    /// `/proc/pid/cmdline`). `CommandLine.unsafeArgv` is that memory; each string is only overwritten within its own
    /// length. The secret was visible until now, and is in the shell's history, so a token file is safer.
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
