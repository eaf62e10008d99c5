package import Secure
package import Settings

/// The key and certificate by which agents recognize a gateway.
package enum GatewayIdentity {
    /// In the state directory. One file holds key and certificate, so that they are written together or not at all.
    private static let file = "identity.pem"
    private static let longest = 1 << 20

    /// Loads the configured files, else the service's credential, else the gateway's own key, which is created at the
    /// first start.
    ///
    /// - Throws: `state` if a new key cannot be written, for example on a full disk; `configuration` if the existing
    ///   key cannot be used.
    package static func load(_ settings: GatewaySettings, _ state: StateDirectory) throws(GatewayError) -> Identity {
        if let files = settings.tlsFiles { return try self.load(files) }
        if let path = ServiceCredentials.path(of: self.file) { return try self.load((path, path)) }
        let path = state.file(self.file)
        if !FileAccess.exists(path) { try self.make(in: state) }
        return try self.load((path, path))
    }

    private static func make(in state: StateDirectory) throws(GatewayError) {
        let made: Identity
        do throws(SecurityError) { made = try Identity.selfSigned(commonName: "diglett gateway") } catch {
            throw GatewayError(.configuration, "\(self.file): \(error)")
        }
        do throws(SettingsError) {
            _ = try state.readOrMake(self.file, atMost: self.longest) { made.keyPEM + made.certificatePEM }
        } catch { throw GatewayError(.state, error.description) }
    }

    /// Loads an existing key; nil without one. Never creates one.
    package static func find(in stateDirectory: String) throws(GatewayError) -> Identity? {
        let path = ServiceCredentials.path(of: self.file) ?? "\(stateDirectory)/\(self.file)"
        return FileAccess.exists(path) ? try self.load((path, path)) : nil
    }

    /// Loads a certificate, self-signed or from an authority, and its key.
    package static func load(_ files: (certificate: String, key: String)) throws(GatewayError) -> Identity {
        do throws(SettingsError) {
            let key = try FileAccess.read(files.key, atMost: self.longest, secret: true)
            let certificate = try FileAccess.read(files.certificate, atMost: self.longest)
            do throws(SecurityError) { return try .load(keyPEM: key, certificatePEM: certificate) } catch {
                throw SettingsError(files.key, error.description)
            }
        } catch { throw GatewayError(.configuration, error.description) }
    }
}
