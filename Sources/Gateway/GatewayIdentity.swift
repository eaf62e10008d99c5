internal import Secure
internal import Settings

/// The key by which agents know a gateway.
enum GatewayIdentity {
    /// Of the files that the settings name, else the service's credential, else the gateway's own, which is made at the
    /// first start.
    static func load(_ settings: GatewaySettings, _ state: StateDirectory) throws(GatewayError) -> Identity {
        if let files = settings.tlsFiles { return try self.load(files) }
        do throws(SettingsError) {
            if let path = ServiceCredentials.path(of: "identity.pem") {
                let pem = try FileAccess.read(path, most: 1 << 20, secret: true)
                return try self.load(pem, pem, place: path)
            }
            // Key and certificate in one file: there is no moment with only one of them.
            let pem = try state.readOrMake("identity.pem", most: 1 << 20) { () throws(SettingsError) in
                do throws(SecurityError) {
                    let made = try Identity.selfSigned(commonName: "diglett gateway")
                    return made.keyPEM + made.certificatePEM
                } catch { throw SettingsError("identity.pem", error.description) }
            }
            return try self.load(pem, pem, place: state.file("identity.pem"))
        } catch { throw GatewayError(.configuration, error.description) }
    }

    /// Looks at the key that is there already, if there is one.
    static func check(in stateDirectory: String) throws(GatewayError) {
        let path = ServiceCredentials.path(of: "identity.pem") ?? "\(stateDirectory)/identity.pem"
        if FileAccess.exists(path) { _ = try self.load((path, path)) }
    }

    /// A certificate of a public authority and its key.
    static func load(_ files: (certificate: String, key: String)) throws(GatewayError) -> Identity {
        do throws(SettingsError) {
            let key = try FileAccess.read(files.key, most: 1 << 20, secret: true)
            let certificate = try FileAccess.read(files.certificate, most: 1 << 20)
            return try self.load(key, certificate, place: files.key)
        } catch { throw GatewayError(.configuration, error.description) }
    }

    private static func load(
        _ key: [UInt8], _ certificate: [UInt8], place: String
    ) throws(SettingsError) -> Identity {
        do throws(SecurityError) { return try .load(keyPEM: key, certificatePEM: certificate) } catch {
            throw SettingsError(place, error.description)
        }
    }
}
