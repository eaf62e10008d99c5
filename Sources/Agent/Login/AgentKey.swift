internal import Secure
package import Settings

/// An agent's own key with its self-signed certificate, `agent.pem` in its state directory. An agent with a key needs
/// no token after the gateway's operator has pinned the key.
package enum AgentKey {
    private static let file = "agent.pem"

    /// Returns nil if the agent has no key.
    static func load(_ state: StateDirectory) throws(SettingsError) -> Identity? {
        let path = state.file(self.file)
        guard FileAccess.exists(path) else { return nil }
        return try self.identity(try FileAccess.read(path, atMost: 1 << 16, secret: true), path)
    }

    /// Checks the key in a state directory, if it has one.
    static func check(_ stateDirectory: String) throws(SettingsError) {
        let path = "\(stateDirectory)/\(self.file)"
        guard FileAccess.exists(path) else { return }
        _ = try self.identity(try FileAccess.read(path, atMost: 1 << 16, secret: true), path)
    }

    private static func identity(_ pem: [UInt8], _ path: String) throws(SettingsError) -> Identity {
        do throws(SecurityError) { return try .load(keyPEM: pem, certificatePEM: pem) } catch {
            throw SettingsError(path, error.description)
        }
    }

    /// The pin of the agent's key. Creates the key if it is missing.
    ///
    /// Root may run this for a service whose user owns the directory, as with DynamicUser (systemd.exec(5)). A new key
    /// then belongs to that user, see ``FileAccess/replace(_:with:mode:durable:)``.
    package static func pin(stateDirectory: String) throws(SettingsError) -> String {
        let state = try StateDirectory(path: stateDirectory, forOther: true)
        let pem = try state.readOrMake(self.file, atMost: 1 << 16) { () throws(SettingsError) in
            do throws(SecurityError) {
                let made = try Identity.selfSigned(commonName: "diglett agent")
                return made.keyPEM + made.certificatePEM
            } catch { throw SettingsError(self.file, error.description) }
        }
        return try self.identity(pem, state.file(self.file)).pin.description
    }
}
