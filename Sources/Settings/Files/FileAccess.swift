import Glibc

/// Reads and writes small files. Errors name the file.
package enum FileAccess {
    /// Reads a file of at most `atMost` bytes.
    ///
    /// - Parameter secret: reject a file that users other than its owner can read.
    /// - Parameter orPipe: accept a pipe or a device too, and wait for its writer. Never use this on the event loop: a
    ///   pipe that another user put in place of a file would block it forever.
    package static func read(
        _ path: String, atMost: Int, secret: Bool = false, orPipe: Bool = false
    ) throws(SettingsError) -> [UInt8] {
        // Without O_NONBLOCK, opening a pipe waits for its writer (fifo(7)). For a file, the flag has no effect.
        let descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | (orPipe ? 0 : O_NONBLOCK))
        guard descriptor >= 0 else { throw self.error(path, "cannot be read") }
        defer { Glibc.close(descriptor) }
        var status = stat()
        guard fstat(descriptor, &status) == 0 else { throw self.error(path, "cannot be read") }
        switch status.st_mode & S_IFMT {
        case S_IFREG: break
        case S_IFDIR: throw SettingsError(path, "cannot be read: it is a directory")
        default: guard orPipe else { throw SettingsError(path, "cannot be read: it is not a regular file") }
        }
        if secret, status.st_mode & S_IFMT == S_IFREG, status.st_mode & 0o077 != 0,
            !ServiceCredentials.isPrivate(path, mode: status.st_mode & 0o777)
        {
            throw SettingsError(path, "contains a secret and other users can read it: run chmod 600 \(path)")
        }
        try self.checkNotPlanted(status, path)
        return try self.read(descriptor, path, atMost: atMost)
    }

    /// Rejects a file that another user may have planted, a key or an agents file for example: it belongs to another
    /// user and is in a directory that others can write to. The sticky bit protects our files from other users, but not
    /// us from theirs.
    private static func checkNotPlanted(_ status: stat, _ path: String) throws(SettingsError) {
        guard status.st_mode & S_IFMT == S_IFREG, status.st_uid != geteuid(), status.st_uid != 0 else { return }
        var parent = stat()
        let directory = self.directory(of: path)
        guard stat(directory, &parent) == 0, parent.st_mode & 0o022 != 0 else { return }
        throw SettingsError(
            path,
            "belongs to another user (uid \(status.st_uid)), and other users can write to \(directory): "
                + "remove the file, or run chown \(geteuid()) \(path) if it is yours")
    }

    private static func directory(of path: String) -> String {
        guard let slash = path.lastIndex(of: "/") else { return "." }
        return slash == path.startIndex ? "/" : String(path[..<slash])
    }

    /// Reads a file that must be UTF-8; the error names the first line that is not.
    static func readText(
        _ path: String, atMost: Int, secret: Bool = false, orPipe: Bool = false
    ) throws(SettingsError) -> String {
        let bytes = try self.read(path, atMost: atMost, secret: secret, orPipe: orPipe)
        if let text = String(validating: bytes, as: UTF8.self) { return text }
        // A line feed byte is never part of another character (RFC 3629, 3).
        let lines = bytes.split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false)
        let line = 1 + (lines.firstIndex { String(validating: $0, as: UTF8.self) == nil } ?? 0)
        throw SettingsError("\(path):\(line)", "is not UTF-8 text: save the file in that encoding")
    }

    /// Reads standard input to its end.
    static func readStandardInput(atMost: Int) throws(SettingsError) -> [UInt8] {
        try self.read(STDIN_FILENO, "standard input", atMost: atMost)
    }

    private static func read(_ descriptor: CInt, _ path: String, atMost: Int) throws(SettingsError) -> [UInt8] {
        var result: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 64 * 1024)
        while true {
            let count = Glibc.read(descriptor, &buffer, buffer.count)
            if count == 0 { return result }
            if count < 0 {
                if errno == EINTR { continue }
                throw self.error(path, "cannot be read")
            }
            result += buffer[0..<count]
            guard result.count <= atMost else { throw SettingsError(path, "is larger than \(atMost) bytes") }
        }
    }

    /// Whether the path is a regular file, not something that can be read only once.
    static func isRegular(_ path: String) -> Bool {
        var status = stat()
        return stat(path, &status) == 0 && status.st_mode & S_IFMT == S_IFREG
    }

    static func isDirectory(_ path: String) -> Bool {
        var status = stat()
        return stat(path, &status) == 0 && status.st_mode & S_IFMT == S_IFDIR
    }

    /// Whether the path exists and is not a regular file, so a file cannot or should not replace it.
    package static func isOtherThanRegular(_ path: String) -> Bool {
        var status = stat()
        return stat(path, &status) == 0 && status.st_mode & S_IFMT != S_IFREG
    }

    /// The canonical form of a path: absolute, without links, `.` and `..`. Components that do not exist are kept.
    static func resolved(_ path: String) -> String {
        if let whole = realpath(path, nil) {
            defer { free(whole) }
            return String(cString: whole)
        }
        guard let slash = path.lastIndex(of: "/") else {
            // The working directory may have been removed.
            return path == "." ? path : self.path(in: self.resolved("."), path)
        }
        guard slash != path.startIndex else { return path }
        let directory = self.resolved(String(path[..<slash]))
        switch path[path.index(after: slash)...] {
        case "", ".": return directory
        case "..":
            return directory.lastIndex(of: "/").map { $0 == directory.startIndex ? "/" : String(directory[..<$0]) }
                ?? "/"
        case let last: return self.path(in: directory, String(last))
        }
    }

    static func path(in directory: String, _ name: String) -> String {
        directory.hasSuffix("/") ? directory + name : "\(directory)/\(name)"
    }

    /// Whether the path is a file that this process may execute.
    static func isExecutable(_ path: String) -> Bool {
        self.isRegular(path) && access(path, X_OK) == 0
    }

    /// Whether the path is a unix socket with this mode and group.
    ///
    /// - Parameter group: nil for any.
    package static func isSocket(_ path: String, mode: UInt32, group: UInt32?) -> Bool {
        var status = stat()
        return lstat(path, &status) == 0 && status.st_mode == S_IFSOCK | mode && status.st_gid == group ?? status.st_gid
    }

    /// Whether the path exists. This includes dangling links, and paths that cannot be examined.
    ///
    /// If a caller can do without a missing file, an unreachable file must not count as missing. So only ENOENT of
    /// lstat(2) means missing; reading any other path fails with the reason.
    package static func exists(_ path: String) -> Bool {
        var status = stat()
        return lstat(path, &status) == 0 || errno != ENOENT
    }

    /// The target of a symbolic link, following further links as far as possible; nil if the path is not a link.
    static func linkTarget(_ path: String) -> String? {
        var status = stat()
        guard lstat(path, &status) == 0, status.st_mode & S_IFMT == S_IFLNK else { return nil }
        if let whole = realpath(path, nil) {
            defer { free(whole) }
            return String(cString: whole)
        }
        var bytes = [CChar](repeating: 0, count: Int(PATH_MAX))
        let count = readlink(path, &bytes, bytes.count)
        guard count > 0 else { return nil }
        let target = String(decoding: bytes[..<count].map { UInt8(bitPattern: $0) }, as: UTF8.self)
        guard !target.hasPrefix("/"), let slash = path.lastIndex(of: "/") else { return target }
        return "\(path[..<slash])/\(target)"
    }

    /// Writes a new file next to the old one and renames it: readers see the old or the new content, never a part.
    ///
    /// - Parameter durable: whether the content must be on disk before this returns.
    package static func replace(
        _ path: String, with bytes: [UInt8], mode: UInt32 = 0o600, durable: Bool
    ) throws(SettingsError) {
        let beside = "\(path).new"
        // Remove what a crash or another user left there. It must not be written to; opening a pipe, for example, would
        // wait for its reader.
        unlink(beside)
        let descriptor = open(beside, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, mode)
        guard descriptor >= 0 else { throw self.error(beside, "cannot be written") }
        // Ignore the umask.
        _ = fchmod(descriptor, mode)
        self.keepOwner(descriptor, path)
        var isWhole = true
        var offset = 0
        while offset < bytes.count, isWhole {
            let count = bytes[offset...].withUnsafeBytes { Glibc.write(descriptor, $0.baseAddress, $0.count) }
            if count > 0 { offset += count } else if errno != EINTR { isWhole = false }
        }
        if isWhole, durable { isWhole = fsync(descriptor) == 0 }
        let failure = errno
        Glibc.close(descriptor)
        guard isWhole, rename(beside, path) == 0 else {
            if isWhole == false { errno = failure }
            let error = self.error(path, "cannot be written")
            unlink(beside)
            throw error
        }
    }

    /// As root, gives a new file to the owner of the old file or of the directory: a daemon must be able to read what
    /// its administrator writes.
    static func keepOwner(_ descriptor: CInt, _ path: String) {
        guard geteuid() == 0 else { return }
        var status = stat()
        guard stat(path, &status) == 0 || stat(self.directory(of: path), &status) == 0 else { return }
        // Has no effect if the owner is already right. If it fails, the daemon reports that when it reads the file.
        _ = fchown(descriptor, status.st_uid, status.st_gid)
    }

    /// Names of the entries in a directory, sorted, without `.` and `..`.
    package static func list(_ path: String) throws(SettingsError) -> [String] {
        guard let directory = opendir(path) else { throw self.error(path, "cannot be read") }
        defer { closedir(directory) }
        var names: [String] = []
        while let entry = readdir(directory) {
            names.append(
                withUnsafeBytes(of: &entry.pointee.d_name) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) })
        }
        return names.filter { $0 != "." && $0 != ".." }.sorted()
    }

    package enum Writability: Equatable, Sendable {
        case yes
        case no(String)
        /// Root may write anywhere, so it is unknown whether the directory's intended user may.
        case unknown
    }

    /// Whether this process may create files in a directory. Creates none.
    package static func writability(_ directory: String) -> Writability {
        var status = stat()
        guard stat(directory, &status) == 0 else { return .no(String(cString: strerror(errno)).lowercased()) }
        guard status.st_mode & S_IFMT == S_IFDIR else { return .no("it is not a directory") }
        guard access(directory, W_OK | X_OK) == 0 else { return .no(String(cString: strerror(errno)).lowercased()) }
        return geteuid() == 0 ? .unknown : .yes
    }

    /// The path itself, or its nearest existing parent.
    package static func nearestExisting(_ path: String) -> String {
        var path = path
        var status = stat()
        // lstat(2), because a dangling link prevents creating the directory.
        while lstat(path, &status) != 0, errno == ENOENT {
            guard let slash = path.lastIndex(of: "/") else { return "." }
            guard slash != path.startIndex else { return "/" }
            path = String(path[..<slash])
        }
        return path
    }

    /// Removes a file. A missing file is not an error.
    package static func remove(_ path: String) throws(SettingsError) {
        guard unlink(path) == 0 || errno == ENOENT else { throw self.error(path, "cannot be removed") }
    }

    /// Creates a directory for its owner only, and its missing parents. An existing directory is not changed.
    package static func makeDirectory(_ path: String) throws(SettingsError) {
        guard mkdir(path, 0o700) != 0 else { return }
        if errno == ENOENT, let slash = path.lastIndex(of: "/"), slash != path.startIndex {
            try self.makeDirectory(String(path[..<slash]))
            guard mkdir(path, 0o700) != 0 else { return }
        }
        guard errno == EEXIST else { throw self.error(path, "cannot be created") }
        var status = stat()
        guard stat(path, &status) == 0, status.st_mode & S_IFMT == S_IFDIR else {
            throw SettingsError(path, "is not a directory")
        }
    }

    /// Verifies that only this process's user and root can put files into a directory. Another user could put a key
    /// there, or a link to a file that this program would then replace.
    ///
    /// Parent directories are not checked. A user who may write there can replace the whole directory, but the new one
    /// belongs to that user and is rejected here.
    ///
    /// - Parameters:
    ///   - forOther: if this process is root, accept a directory of any user, because root works for the user that the
    ///     gateway runs as.
    ///   - takesSticky: accept a directory that others can write to if it has the sticky bit, like /tmp. Others cannot
    ///     replace files there, and `read` rejects files of other users.
    package static func checkOwnDirectory(
        _ path: String, forOther: Bool = false, takesSticky: Bool = false
    ) throws(SettingsError) {
        var status = stat()
        guard stat(path, &status) == 0 else { throw self.error(path, "cannot be used") }
        let user = geteuid()
        guard status.st_uid == user || status.st_uid == 0 || forOther && user == 0 else {
            throw SettingsError(
                path,
                "belongs to another user (uid \(status.st_uid)), who can change its content: run chown \(user) \(path), "
                    + "or choose another directory")
        }
        guard status.st_mode & 0o022 == 0 || takesSticky && status.st_mode & S_ISVTX != 0 else {
            throw SettingsError(
                path, "other users can write to it: run chmod go-w \(path), or choose another directory")
        }
    }

    /// Creates a directory for its owner and a group, and its missing parents for all. An existing one is not changed.
    package static func makeDirectory(_ path: String, mode: UInt32, group: UInt32?) throws(SettingsError) {
        guard !self.exists(path) else { return try self.makeDirectory(path) }
        // Users of the directory must be able to traverse its parents.
        if let slash = path.lastIndex(of: "/"), slash != path.startIndex {
            try self.makeDirectory(String(path[..<slash]), mode: 0o755, group: nil)
        }
        try self.makeDirectory(path)
        if let group, chown(path, uid_t.max, group) != 0 {
            let error = self.error(
                path, "cannot be assigned to the group \(group): the gateway's user must be a member")
            rmdir(path)
            throw error
        }
        guard chmod(path, mode) == 0 else { throw self.error(path, "cannot be made accessible") }
    }

    /// An error with the system's description of `errno`.
    static func error(_ path: String, _ what: String) -> SettingsError {
        SettingsError(path, "\(what): \(String(cString: strerror(errno)).lowercased())")
    }
}
