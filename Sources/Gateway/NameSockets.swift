internal import Logging
internal import Reactor
internal import Settings
internal import Wire

/// The directory with a unix socket for each name.
final class NameSockets {
    private let loop: EventLoop
    private let settings: SocketSettings
    private let lock: FileLock

    /// Makes the directory if it is missing, and removes what a crashed gateway has left in it.
    init(loop: EventLoop, settings: SocketSettings) throws(SettingsError) {
        self.loop = loop
        self.settings = settings
        let directory = settings.directory
        try FileAccess.makeDirectory(directory, mode: 0o750, group: settings.group)
        guard let lock = try FileLock(tryPath: "\(directory)/.lock") else {
            throw SettingsError(directory, "another gateway has its sockets here: choose another directory")
        }
        self.lock = lock
        for file in try FileAccess.list(directory) where file.hasSuffix(SocketSettings.suffix) {
            try FileAccess.removeSocket("\(directory)/\(file)")
        }
    }

    func path(of name: Name) -> String { "\(self.settings.directory)/\(name)\(SocketSettings.suffix)" }

    func listen(_ name: Name) throws(UVError) -> SocketListener {
        // Without a group, for the gateway's own user only.
        let access = SocketListener.Access(
            mode: self.settings.group == nil ? 0o600 : 0o660, group: self.settings.group)
        return try SocketListener(loop: self.loop, path: self.path(of: name), access: access)
    }
}
