import FoundationEssentials
package import Journal
internal import Logging
package import Reactor
package import Settings
internal import Web
internal import Wire

/// Writes dynamic configuration for Traefik v3: one file per name in the directory of its file provider, and all names
/// in one document for its HTTP provider.
///
/// Other programs may use the directory too: files that this registrar did not write are left alone, and files of its
/// own that are missing are written again.
package final class TraefikRegistrar: Registrar {
    private static let prefix = "diglett-"
    /// Traefik's file provider reads TOML and YAML. JSON is YAML (YAML 1.2, 1.3).
    private static let suffix = ".yml"

    /// Other programs may remove files from the directory.
    package var resetPeriod: UInt64? { self.settings.directory == nil ? nil : 30_000 }

    private let settings: TraefikSettings
    /// Locks the directory: two gateways would remove each other's files.
    private var lock: FileLock?
    private var routes: [String: TraefikRoute] = [:]
    private var document: DocumentServer?

    package init(loop: EventLoop, settings: TraefikSettings, log: PeerLog) throws(RegistrarError) {
        self.settings = settings
        guard let listen = settings.listen else { return }
        let host = listen.host == "localhost" ? "127.0.0.1" : listen.host
        guard let address = SocketAddress(host, port: listen.port) else {
            throw RegistrarError(reason: "'\(listen.host)' is not an address")
        }
        let listener: SocketListener
        do throws(UVError) { listener = try SocketListener(loop: loop, address: address) } catch {
            throw RegistrarError(reason: "cannot listen on \(address): \(error)")
        }
        self.document = DocumentServer(
            listener: listener,
            document: { [unowned self] _, completion in
                completion(
                    Document(contentType: "application/json", body: Self.encode(TraefikDocument(self.routes))))
            },
            onFailure: {
                let error = $0
                log.write(
                    .error, .detail, of: .readers, "Traefik's HTTP provider: \(error)",
                    .about([.registrar: "traefik", .error: error]))
            })
        log.logger.info(
            "serving Traefik's HTTP provider at http://\(listener.place)/",
            metadata: .about([.registrar: "traefik", .address: listener.place]))
    }

    package var label: String { "traefik (\(self.settings.directory ?? self.settings.listen?.description ?? ""))" }

    package func reset(
        keeping: [PublicExposure], completion: @escaping (Result<[PublicExposure], RegistrarError>) -> Void
    ) -> (any Cancellable)? {
        let names = Set(keeping.map(\.name.text))
        self.routes = self.routes.filter { names.contains($0.key) }
        var files: Set<String> = []
        let result = self.result { directory throws(SettingsError) in
            files = Set(try FileAccess.list(directory))
            let kept = Set(keeping.map { Self.file(of: $0.name) })
            for file in files where !kept.contains(file) {
                guard let name = Self.name(of: file), try Self.isOurs("\(directory)/\(file)", name) else { continue }
                try FileAccess.remove("\(directory)/\(file)")
            }
        }
        completion(
            result.map {
                keeping.filter { exposure in
                    self.routes[exposure.name.text] == nil
                        || self.settings.directory != nil && !files.contains(Self.file(of: exposure.name))
                }
            })
        return nil
    }

    package func publish(
        _ exposure: PublicExposure, completion: @escaping (Result<Void, RegistrarError>) -> Void
    ) -> (any Cancellable)? {
        let route: TraefikRoute
        do throws(RegistrarError) { route = try TraefikRoute(exposure, self.settings) } catch {
            completion(.failure(error))
            return nil
        }
        let result = self.result { directory throws(SettingsError) in
            let path = Self.path(directory, exposure.name)
            guard try !Self.isForeign(path, exposure.name) else {
                throw SettingsError(
                    path, "was not written by diglett, which owns the files 'diglett-*.yml': move it away")
            }
            // World-readable, because Traefik runs as another user.
            try FileAccess.replace(
                path, with: Self.encode(TraefikDocument([exposure.name.text: route])),
                mode: 0o644, durable: false)
        }
        if case .success = result { self.routes[exposure.name.text] = route }
        completion(result)
        return nil
    }

    package func withdraw(
        _ exposure: PublicExposure, completion: @escaping (Result<Void, RegistrarError>) -> Void
    ) -> (any Cancellable)? {
        self.routes[exposure.name.text] = nil
        completion(
            self.result { directory throws(SettingsError) in
                let path = Self.path(directory, exposure.name)
                if try !Self.isForeign(path, exposure.name) { try FileAccess.remove(path) }
            })
        return nil
    }

    package func close() {
        self.document?.close()
        self.document = nil
    }

    /// The file's name. Names consist of letters, digits and hyphens, so it is a valid path component.
    private static func file(of name: Name) -> String { "\(self.prefix)\(name)\(self.suffix)" }

    /// The name that a file belongs to, also for a temporary file that was not renamed yet.
    private static func name(of file: String) -> Name? {
        let file = file.hasSuffix(".new") ? file.dropLast(4) : file[...]
        guard file.hasPrefix(self.prefix), file.hasSuffix(self.suffix) else { return nil }
        return Name(String(file.dropFirst(self.prefix.count).dropLast(self.suffix.count)))
    }

    /// Whether a file begins like the files written here. A temporary file may have only part of that beginning, and
    /// after a power failure a file may be empty.
    private static func isOurs(_ path: String, _ name: Name) throws(SettingsError) -> Bool {
        let beginnings = ["http", "tcp"].map {
            Array("{\n  \"\($0)\" : {\n    \"routers\" : {\n      \"diglett-\(name)\" : {".utf8)
        }
        let content = try FileAccess.read(path, atMost: 1 << 20)
        return content.isEmpty
            || beginnings.contains { content.starts(with: $0) || (path.hasSuffix(".new") && $0.starts(with: content)) }
    }

    /// Whether a file exists that another program has written.
    private static func isForeign(_ path: String, _ name: Name) throws(SettingsError) -> Bool {
        guard FileAccess.exists(path) else { return false }
        return try !self.isOurs(path, name)
    }

    private static func path(_ directory: String, _ name: Name) -> String { "\(directory)/\(self.file(of: name))" }

    private func result(_ body: (String) throws(SettingsError) -> Void) -> Result<Void, RegistrarError> {
        guard let directory = self.settings.directory else { return .success(()) }
        do throws(SettingsError) {
            if self.lock == nil {
                self.lock = try FileLock(tryPath: "\(directory)/.diglett.lock")
                guard self.lock != nil else { throw SettingsError(directory, "is used by another gateway") }
            }
            try body(directory)
        } catch {
            return .failure(RegistrarError(reason: error.description))
        }
        return .success(())
    }

    private static func encode(_ document: TraefikDocument) -> [UInt8] {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
        guard let data = try? encoder.encode(document) else {
            preconditionFailure("texts and numbers can always be encoded")
        }
        return Array(data) + [0x0A]
    }
}

/// The router and service of one name.
struct TraefikRoute: Equatable {
    fileprivate let isTCP: Bool
    fileprivate let router: TraefikDocument.Router
    fileprivate let server: TraefikDocument.Server

    init(_ exposure: PublicExposure, _ settings: TraefikSettings) throws(RegistrarError) {
        let host = settings.route.host(of: exposure.name)
        guard case .tcp(let upstream) = try settings.route.upstream(exposure) else {
            throw RegistrarError(reason: "Traefik cannot reach a unix socket")
        }
        self.isTCP = settings.scheme == .tcp
        self.router = TraefikDocument.Router(
            rule: self.isTCP ? "HostSNI(`\(host)`)" : "Host(`\(host)`)", service: "diglett-\(exposure.name)",
            entryPoints: settings.entryPoints.isEmpty ? nil : settings.entryPoints,
            middlewares: settings.middlewares.isEmpty ? nil : settings.middlewares,
            tls: settings.tls ? TraefikDocument.TLS(certResolver: settings.certResolver) : nil)
        switch settings.scheme {
        case .http: self.server = TraefikDocument.Server(url: "http://\(upstream)")
        case .h2c: self.server = TraefikDocument.Server(url: "h2c://\(upstream)")
        case .tcp: self.server = TraefikDocument.Server(address: upstream.description)
        }
    }
}

/// The part of Traefik's dynamic configuration that is used here. Traefik rejects empty sections, so they are omitted.
struct TraefikDocument: Encodable {
    struct Router: Encodable, Equatable {
        let rule: String
        let service: String
        let entryPoints: [String]?
        let middlewares: [String]?
        let tls: TLS?
    }

    struct TLS: Encodable, Equatable { let certResolver: String? }

    struct Server: Encodable, Equatable {
        var url: String?
        var address: String?
    }

    private struct Service: Encodable {
        struct LoadBalancer: Encodable { let servers: [Server] }
        let loadBalancer: LoadBalancer
    }

    private struct Part: Encodable {
        let routers: [String: Router]
        let services: [String: Service]

        init?(_ routes: [TraefikRoute]) {
            guard !routes.isEmpty else { return nil }
            let pairs = routes.map { ($0.router.service, $0) }
            self.routers = Dictionary(uniqueKeysWithValues: pairs.map { ($0.0, $0.1.router) })
            self.services = Dictionary(
                uniqueKeysWithValues: pairs.map { ($0.0, Service(loadBalancer: .init(servers: [$0.1.server]))) })
        }
    }

    private let http: Part?
    private let tcp: Part?

    init(_ routes: [String: TraefikRoute]) {
        self.http = Part(routes.values.filter { !$0.isTCP })
        self.tcp = Part(routes.values.filter(\.isTCP))
    }
}
