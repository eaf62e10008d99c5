import Glibc

/// The directory of a program's persistent state.
package final class StateDirectory {
    package let path: String
    private var lock: FileLock?

    /// Opens the directory, or creates it for its owner only. Throws if other users can change its files.
    ///
    /// - Parameter forOther: as in `check`.
    package init(path: String, forOther: Bool = false) throws(SettingsError) {
        self.path = path
        do throws(SettingsError) { try FileAccess.makeDirectory(path) } catch {
            throw SettingsError(error.place, "the state directory \(error.reason); pass --state-dir DIR")
        }
        guard access(path, W_OK | X_OK) == 0 else {
            throw FileAccess.error(path, "cannot use the state directory (pass another with --state-dir DIR)")
        }
        try Self.check(path, forOther: forOther)
    }

    /// Verifies that other users cannot change files in a state directory.
    ///
    /// - Parameter forOther: see ``FileAccess/checkOwnDirectory(_:forOther:takesSticky:)``.
    package static func check(_ path: String, forOther: Bool) throws(SettingsError) {
        try FileAccess.checkOwnDirectory(path, forOther: forOther, takesSticky: true)
    }

    /// The path of a program's state directory: the given one, systemd's `$STATE_DIRECTORY`, `$XDG_STATE_HOME` (XDG
    /// base directories), `/var/lib` for root, `~/.local/state`. The first that is set wins.
    package static func path(_ given: String?, program: String) throws(SettingsError) -> String {
        if let given { return given }
        if let ours = getenv("STATE_DIRECTORY").map({ String(cString: $0) }), !ours.isEmpty {
            return String(ours.prefix { $0 != ":" })
        }
        if let base = getenv("XDG_STATE_HOME").map({ String(cString: $0) }), base.hasPrefix("/") {
            return "\(base)/\(program)"
        }
        if geteuid() == 0 { return Self.servicePath(of: program) }
        if let home = getenv("HOME").map({ String(cString: $0) }), home.hasPrefix("/") {
            return "\(home)/.local/state/\(program)"
        }
        throw SettingsError("state directory", "HOME is not set: pass --state-dir DIR")
    }

    /// The state directory of a program's unit (systemd.exec(5), StateDirectory=).
    private static func servicePath(of program: String) -> String { "/var/lib/\(program)" }

    static func isOfService(_ path: String, program: String) -> Bool {
        path == self.servicePath(of: program) || path == self.servicePath(of: program) + "/"
    }

    package func file(_ name: String) -> String { "\(self.path)/\(name)" }

    /// Locks the directory until this object is released or the process ends. Throws if another program has locked it.
    package func lockExclusively() throws(SettingsError) {
        guard let lock = try FileLock(tryPath: self.file("lock")) else {
            throw SettingsError(
                self.path, "another gateway uses this state directory: stop it, or pass another with --state-dir DIR")
        }
        self.lock = lock
    }

    /// Reads a file of this directory; if it is missing, creates it from the result of `make`. Programs that start at
    /// the same time get the same content.
    package func readOrMake(
        _ name: String, atMost: Int, _ make: () throws(SettingsError) -> [UInt8]
    ) throws(SettingsError) -> [UInt8] {
        let path = self.file(name)
        if FileAccess.exists(path) { return try FileAccess.read(path, atMost: atMost, secret: true) }
        let beside = "\(path).\(getpid())"
        try FileAccess.replace(beside, with: try make(), durable: true)
        defer { unlink(beside) }
        // link(2) fails if another program was faster; then its content counts.
        guard link(beside, path) == 0 || errno == EEXIST else { throw FileAccess.error(path, "cannot be written") }
        return try FileAccess.read(path, atMost: atMost, secret: true)
    }
}
