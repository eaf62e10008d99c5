internal import Journal
internal import Logging
internal import Modules
internal import Reactor
internal import Settings
internal import Web

/// Creates the configured modules.
struct ModuleFactory {
    let loop: EventLoop
    let peerLog: PeerLog

    private var logger: Logger { self.peerLog.logger }
    /// A new client for each module.
    private var client: HTTPClient { HTTPClient(loop: self.loop, userAgent: GatewayServer.software) }

    func authenticator(_ kind: GatewaySettings.Authentication) throws(SettingsErrors) -> any Authenticator {
        switch kind {
        case .byDefault(let path):
            try FileAuthenticator(
                loop: self.loop, path: path, logger: self.logger,
                fallback: OpenAuthenticator(acceptsStrangers: false))
        case .open: OpenAuthenticator(acceptsStrangers: true)
        case .file(let path):
            try FileAuthenticator(loop: self.loop, path: path, logger: self.logger, fallback: nil)
        case .hook(let settings): HookAuthenticator(loop: self.loop, hook: self.hook(settings))
        }
    }

    /// `print` comes first, so that a name is logged before a proxy serves it.
    func registrars(_ settings: [RegistrarSettings]) throws(GatewayError) -> [any Registrar] {
        var registrars: [any Registrar] = [PrintRegistrar(log: self.peerLog)]
        for settings in settings {
            do throws(GatewayError) { registrars.append(try self.registrar(settings)) } catch {
                for registrar in registrars { registrar.close() }
                throw error
            }
        }
        return registrars
    }

    private func registrar(_ settings: RegistrarSettings) throws(GatewayError) -> any Registrar {
        switch settings {
        case .traefik(let settings): try self.traefik(settings)
        case .caddy(let settings): CaddyRegistrar(client: self.client, settings: settings)
        case .mapFile(let settings): MapFileRegistrar(loop: self.loop, settings: settings)
        case .hook(let settings): HookRegistrar(hook: self.hook(settings))
        }
    }

    private func traefik(_ settings: TraefikSettings) throws(GatewayError) -> TraefikRegistrar {
        do throws(RegistrarError) {
            return try TraefikRegistrar(loop: self.loop, settings: settings, log: self.peerLog)
        } catch {
            // Only listening can fail.
            throw GatewayError(.listen, "\(settings.listenPlace): registrar traefik: \(error.reason)")
        }
    }

    private func hook(_ settings: HookSettings) -> any HookTransport {
        switch settings {
        case .exec(let settings):
            HookQueue(
                loop: self.loop, hook: ExecHook(loop: self.loop, settings: settings), maxRunning: ExecHook.maxRunning)
        case .webhook(let settings):
            HookQueue(
                loop: self.loop,
                hook: WebHook(loop: self.loop, client: self.client, settings: settings),
                maxRunning: WebHook.maxRunning)
        }
    }
}
