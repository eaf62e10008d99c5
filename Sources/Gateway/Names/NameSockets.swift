internal import Logging
internal import Reactor
internal import Settings
internal import Wire

/// The directory with a unix socket per name.
final class NameSockets {
    private let settings: SocketSettings
    private let lock: FileLock

    /// Creates the directory if needed, and removes stale sockets that a crashed gateway left in it.
    ///
    /// - Parameter kept: paths of inherited sockets, which are in use.
    init(settings: SocketSettings, keeping kept: Set<String>) throws(SettingsError) {
        self.settings = settings
        let directory = settings.directory
        try FileAccess.makeDirectory(directory, mode: 0o750, group: settings.group)
        try FileAccess.checkOwnDirectory(directory)
        guard let lock = try FileLock(tryPath: "\(directory)/.lock") else {
            throw SettingsError(directory, "another gateway uses this directory: choose another one")
        }
        self.lock = lock
        for file in try FileAccess.list(directory) where file.hasSuffix(SocketSettings.suffix) {
            let path = "\(directory)/\(file)"
            guard kept.contains(path) || UnixSocketFile.removeDead(path) else {
                throw SettingsError(path, "already exists and is not a socket of this gateway: remove it")
            }
        }
    }

    func path(of name: Name) -> String { "\(self.settings.directory)/\(name)\(SocketSettings.suffix)" }

    func listen(_ name: Name) throws(UVError) -> ListenerSocket {
        let access = SocketListener.Access(mode: self.mode, group: self.settings.group)
        return try ListenerSocket(path: self.path(of: name), access: access)
    }

    /// Whether an existing socket is equal to the one that `listen` would create.
    func isRight(_ path: String, for name: Name) -> Bool {
        path == self.path(of: name) && FileAccess.isSocket(path, mode: self.mode, group: self.settings.group)
    }

    /// Without a group, only the gateway's own user has access.
    private var mode: UInt32 { self.settings.group == nil ? 0o600 : 0o660 }
}
