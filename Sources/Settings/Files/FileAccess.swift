import Glibc

/// Reading and writing of small files, with errors that name the file.
package enum FileAccess {
    /// Reads a file of at most `atMost` bytes.
    ///
    /// - Parameter secret: refuse a file that others than its owner can read.
    /// - Parameter orPipe: take a pipe or a device too, and wait for whoever writes into it. Never on the event loop:
    ///   a pipe that somebody put in the place of a file would stop it for ever.
    package static func read(
        _ path: String, atMost: Int, secret: Bool = false, orPipe: Bool = false
    ) throws(SettingsError) -> [UInt8] {
        // Without O_NONBLOCK, opening a pipe waits for its writer (fifo(7)); with a file it has no effect.
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

    /// Refuses a file that another user may have put there, as a key or an agents file of their own: one of theirs, in a
    /// directory that others can write to. The sticky bit keeps our files safe from them, not us from their files.
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

    /// Reads a file that must be a text in UTF-8; an error names the first line that is not.
    static func readText(
        _ path: String, atMost: Int, secret: Bool = false, orPipe: Bool = false
    ) throws(SettingsError) -> String {
        let bytes = try self.read(path, atMost: atMost, secret: secret, orPipe: orPipe)
        if let text = String(validating: bytes, as: UTF8.self) { return text }
        // A line feed is never a part of another letter (RFC 3629, 3).
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

    /// Whether it is a file, and nothing that can be read once only.
    static func isRegular(_ path: String) -> Bool {
        var status = stat()
        return stat(path, &status) == 0 && status.st_mode & S_IFMT == S_IFREG
    }

    static func isDirectory(_ path: String) -> Bool {
        var status = stat()
        return stat(path, &status) == 0 && status.st_mode & S_IFMT == S_IFDIR
    }

    /// Whether something is there that no file can be put in the place of, or should.
    package static func isOtherThanRegular(_ path: String) -> Bool {
        var status = stat()
        return stat(path, &status) == 0 && status.st_mode & S_IFMT != S_IFREG
    }

    /// A path in the one way of writing that all ways of writing it share, without links, `.` and `..`. What is not there
    /// has no links.
    static func resolved(_ path: String) -> String {
        if let whole = realpath(path, nil) {
            defer { free(whole) }
            return String(cString: whole)
        }
        guard let slash = path.lastIndex(of: "/") else {
            // The working directory may be gone.
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

    /// Whether it is a file that this process may start.
    static func isExecutable(_ path: String) -> Bool {
        self.isRegular(path) && access(path, X_OK) == 0
    }

    /// Whether it is a unix socket with these rights.
    ///
    /// - Parameter group: nil: any.
    package static func isSocket(_ path: String, mode: UInt32, group: UInt32?) -> Bool {
        var status = stat()
        return lstat(path, &status) == 0 && status.st_mode == S_IFSOCK | mode && status.st_gid == group ?? status.st_gid
    }

    /// Whether something is there, be it a link that leads nowhere, or something of which nothing can be told.
    ///
    /// What does without a file when it is missing must not do so because it cannot be reached: only what lstat(2) does
    /// not find is missing, and all else is for whoever reads it, and fails with the reason.
    package static func exists(_ path: String) -> Bool {
        var status = stat()
        return lstat(path, &status) == 0 || errno != ENOENT
    }

    /// Where a symbolic link leads, through further links as far as that can be told; nil for what is none.
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

    /// Writes a file beside the old one and renames it: a reader sees the old content or the new, never a part.
    ///
    /// - Parameter durable: whether the content must be on the disk before this returns.
    package static func replace(
        _ path: String, with bytes: [UInt8], mode: UInt32 = 0o600, durable: Bool
    ) throws(SettingsError) {
        let beside = "\(path).new"
        // What a crash, or somebody else, left there: nothing of it is written to, least of all a pipe, which would wait
        // for its reader.
        unlink(beside)
        let descriptor = open(beside, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, mode)
        guard descriptor >= 0 else { throw self.error(beside, "cannot be written") }
        // Whatever the umask takes away.
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

    /// As root, gives a new file to whoever has the old one or the directory: a daemon must be able to read what its
    /// administrator writes.
    static func keepOwner(_ descriptor: CInt, _ path: String) {
        guard geteuid() == 0 else { return }
        var status = stat()
        guard stat(path, &status) == 0 || stat(self.directory(of: path), &status) == 0 else { return }
        // Without effect where it is the owner's already; a failure shows when the daemon reads it.
        _ = fchown(descriptor, status.st_uid, status.st_gid)
    }

    /// Names of the files in a directory.
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
        /// Root may write everywhere, and does not tell what the user may whose directory it is to be.
        case unknown
    }

    /// Whether this process may make files in a directory, without making one.
    package static func writability(_ directory: String) -> Writability {
        var status = stat()
        guard stat(directory, &status) == 0 else { return .no(String(cString: strerror(errno)).lowercased()) }
        guard status.st_mode & S_IFMT == S_IFDIR else { return .no("it is not a directory") }
        guard access(directory, W_OK | X_OK) == 0 else { return .no(String(cString: strerror(errno)).lowercased()) }
        return geteuid() == 0 ? .unknown : .yes
    }

    /// The path itself, or the nearest above it that is there.
    package static func nearestExisting(_ path: String) -> String {
        var path = path
        var status = stat()
        // lstat(2): a link that leads nowhere is in the way of whoever makes the directory.
        while lstat(path, &status) != 0, errno == ENOENT {
            guard let slash = path.lastIndex(of: "/") else { return "." }
            guard slash != path.startIndex else { return "/" }
            path = String(path[..<slash])
        }
        return path
    }

    /// Removes a file; one that is not there is no error.
    package static func remove(_ path: String) throws(SettingsError) {
        guard unlink(path) == 0 || errno == ENOENT else { throw self.error(path, "cannot be removed") }
    }

    /// Makes a directory for its owner only, and those above it. One that is there stays as it is.
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

    /// Makes sure that only this process's user and root can put files into a directory: another user could put a key of
    /// their own there, or a link to a file that this program would then replace.
    ///
    /// The directories above are not looked at. A user who may write there can replace the whole directory, but what they
    /// put in its place is theirs and is refused here.
    ///
    /// - Parameters:
    ///   - forOther: where this is root, the directory may belong to any user, as root works for the user that the gateway
    ///     runs as.
    ///   - takesSticky: whether others may write to a directory with the sticky bit, as /tmp has it: they cannot replace
    ///     what is there, and `read` refuses files of theirs.
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

    /// Makes a directory for its owner and a group, and those above it for all. One that is there stays as it is.
    package static func makeDirectory(_ path: String, mode: UInt32, group: UInt32?) throws(SettingsError) {
        guard !self.exists(path) else { return try self.makeDirectory(path) }
        // Whoever is to come to it has to come through those above it.
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

    /// An error with the system's reason for the last failure.
    static func error(_ path: String, _ what: String) -> SettingsError {
        SettingsError(path, "\(what): \(String(cString: strerror(errno)).lowercased())")
    }
}
