internal import Relay
internal import Secure
internal import Settings
internal import Wire

/// What identifies this agent to the gateway, and the protocol version that carries it.
struct AgentCredentials {
    let version: LinkProtocol
    let login: Login

    init(settings: AgentSettings, state: StateDirectory) throws(SettingsError) {
        let key = try Self.instanceKey(state)
        let identity = try AgentKey.load(state)
        if settings.version1 {
            self.version = .version1
        } else {
            do throws(SecurityError) {
                let context = try TLSContext.client(
                    identity: identity, trustsSystemRoots: settings.pins.isEmpty,
                    applicationProtocol: WireConstant.applicationProtocol)
                self.version = .version2(context, serverName: settings.gateway.host)
            } catch { throw SettingsError("TLS", error.description) }
        }
        self.login = Login(
            method: !settings.token.text.isEmpty ? .token : identity == nil ? .instance : .certificate,
            instanceKey: key,
            run: SecureRandom.integer(), token: settings.token.text, takesNotes: true)
    }

    private static func instanceKey(_ state: StateDirectory) throws(SettingsError) -> [UInt8] {
        let key = try state.readOrMake(self.file, atMost: 1_024) { SecureRandom.bytes(Login.instanceKeySize) }
        try self.check(key, state.file(self.file))
        return key
    }

    private static let file = "instance.key"

    /// Checks the instance key in a state directory, if it has one.
    static func check(_ stateDirectory: String) throws(SettingsError) {
        let path = "\(stateDirectory)/\(self.file)"
        guard FileAccess.exists(path) else { return }
        try self.check(try FileAccess.read(path, atMost: 1_024, secret: true), path)
    }

    private static func check(_ key: [UInt8], _ path: String) throws(SettingsError) {
        guard key.count == Login.instanceKeySize else {
            throw SettingsError(
                path,
                "has \(key.count) bytes instead of \(Login.instanceKeySize); delete it and a new one is created, "
                    + "but an open gateway then treats this agent as a new one")
        }
    }
}
