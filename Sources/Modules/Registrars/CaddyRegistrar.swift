import FoundationEssentials
internal import Reactor
package import Settings
package import Web
internal import Wire

/// Adds a route for each name to Caddy by its admin API. The route's id is `diglett-NAME`.
package final class CaddyRegistrar: Registrar {
    private static let prefix = "diglett-"
    private static let timeout: UInt64 = 4_000
    /// Limit for Caddy's list of routes, in bytes.
    private static let maxAnswer = 4 << 20
    /// A reload of Caddy's own configuration, or a start without `--resume`, drops everything added by the admin API.
    package let resetPeriod: UInt64? = 30_000
    /// Routes are inserted by their position in a list; concurrent insertions would interfere.
    package let maxAtOnce: Int? = 1

    private let client: HTTPClient
    private let settings: CaddySettings

    package init(client: HTTPClient, settings: CaddySettings) {
        self.client = client
        self.settings = settings
    }

    package var label: String { "caddy (\(self.settings.admin))" }

    private struct Route: Codable {
        struct Match: Codable { let host: [String] }
        struct Handler: Codable {
            struct Upstream: Codable { let dial: String }
            struct Transport: Codable {
                let `protocol`: String
                let versions: [String]
            }
            let handler: String
            let upstreams: [Upstream]
            let transport: Transport?
        }

        let id: String
        let match: [Match]
        let handle: [Handler]
        let terminal: Bool

        private enum CodingKeys: String, CodingKey {
            case id = "@id"
            case match, handle, terminal
        }
    }

    /// A route of Caddy's configuration, reduced to what is needed here.
    private struct Found: Decodable {
        let id: String?
        let hosts: [String]
        let dials: [String]

        private struct Match: Decodable { let host: [String]? }
        private struct Handler: Decodable {
            struct Upstream: Decodable { let dial: String? }
            let upstreams: [Upstream]?
        }

        private enum CodingKeys: String, CodingKey {
            case id = "@id"
            case match, handle
        }

        /// Routes of other programs may have any form.
        init(from decoder: any Decoder) throws {
            let container = try decoder.container(keyedBy: CodingKeys.self)
            self.id = try? container.decode(String.self, forKey: .id)
            let matches = (try? container.decode([Match].self, forKey: .match)) ?? []
            self.hosts = matches.flatMap { $0.host ?? [] }
            let handlers = (try? container.decode([Handler].self, forKey: .handle)) ?? []
            self.dials = handlers.flatMap { $0.upstreams ?? [] }.compactMap(\.dial)
        }

        func leads(like route: Route) -> Bool {
            self.hosts == route.match.flatMap(\.host)
                && self.dials == route.handle.flatMap { $0.upstreams.map(\.dial) }
        }
    }

    /// The routes of a server.
    private struct RouteList {
        let routes: [Found]
        /// False for a server that never had routes: its list is null.
        let isThere: Bool

        init?(_ body: [UInt8]) {
            self.isThere = !body.starts(with: "null".utf8)
            guard let routes = try? JSONDecoder().decode([Found]?.self, from: Data(body)) ?? [] else { return nil }
            self.routes = routes
        }
    }

    /// An action that consists of consecutive requests.
    private final class Steps: Cancellable {
        private let registrar: CaddyRegistrar
        private var completion: ((Result<Void, RegistrarError>) -> Void)?
        private var task: HTTPTask?

        init(_ registrar: CaddyRegistrar, _ completion: @escaping (Result<Void, RegistrarError>) -> Void) {
            self.registrar = registrar
            self.completion = completion
        }

        func send(_ request: Request) {
            self.task = self.registrar.send(request) { result in
                self.task = nil
                switch result.map({ request.judge($0) }) {
                case .failure(let failure): self.finish(.failure(RegistrarError(reason: failure.description)))
                case .success(.done): self.finish(.success(()))
                case .success(.failed(let reason)): self.finish(.failure(RegistrarError(reason: reason)))
                case .success(.then(let next)): self.send(next)
                }
            }
        }

        private func finish(_ result: Result<Void, RegistrarError>) {
            let completion = self.completion
            self.completion = nil
            completion?(result)
        }

        func cancel() {
            self.completion = nil
            self.task?.cancel()
            self.task = nil
        }
    }

    /// A request, and a function that decides from its answer how to continue.
    private struct Request {
        let method: HTTPRequest.Method
        let path: String
        var body: [UInt8] = []
        let judge: (HTTPResponse) -> Next
    }

    private enum Next {
        case done
        case failed(String)
        case then(Request)
    }

    private var routesPath: String { "/config/apps/http/servers/\(self.settings.server)/routes" }

    package func reset(
        keeping: [PublicExposure], completion: @escaping (Result<[PublicExposure], RegistrarError>) -> Void
    ) -> (any Cancellable)? {
        var missing: [PublicExposure] = []
        let list = Request(method: .get, path: self.routesPath) { [unowned self] response in
            guard response.status == 200 else {
                return .failed(
                    Self.text(
                        response, "Caddy has no server '\(self.settings.server)': set 'server' to one that exists"))
            }
            guard let list = RouteList(response.body) else {
                return .failed(Self.text(response, "the answer is not a list of routes"))
            }
            missing = self.missing(keeping, list.routes)
            let kept = Set(keeping.map(\.name))
            return self.delete(list.routes.compactMap { $0.id.flatMap(Self.name(of:)) }.filter { !kept.contains($0) })
        }
        return self.begin(list) { result in completion(result.map { missing }) }
    }

    /// Those of `exposures` whose route is missing from `routes` or leads elsewhere.
    private func missing(_ exposures: [PublicExposure], _ routes: [Found]) -> [PublicExposure] {
        let own = Dictionary(routes.compactMap { route in route.id.map { ($0, route) } }) { $1 }
        return exposures.filter { exposure in
            // If no route is possible, the publication reports that.
            guard let route = try? self.route(of: exposure) else { return false }
            return !(own[route.id]?.leads(like: route) ?? false)
        }
    }

    private static func id(of name: Name) -> String { self.prefix + name.text }

    /// The name whose route has this id; nil for another program's route. The id becomes part of a URL, so it must be
    /// that of a valid name: `diglett-../../config/` would delete Caddy's whole configuration.
    private static func name(of id: String) -> Name? {
        guard id.hasPrefix(self.prefix), let name = Name(String(id.dropFirst(self.prefix.count))),
            self.id(of: name) == id
        else { return nil }
        return name
    }

    private func delete(_ names: [Name]) -> Next {
        guard let name = names.first else { return .done }
        return .then(
            Request(method: .delete, path: "/id/\(Self.id(of: name))") { [unowned self] response in
                Self.isGone(response) ? self.delete(Array(names.dropFirst())) : .failed(Self.text(response))
            })
    }

    private func route(of exposure: PublicExposure) throws(RegistrarError) -> Route {
        let dial =
            switch try self.settings.route.upstream(exposure) {
            case .tcp(let hostPort): hostPort.description
            case .unix(let path): "unix/\(path)"
            }
        return Route(
            id: Self.id(of: exposure.name), match: [Route.Match(host: [self.settings.route.host(of: exposure.name)])],
            handle: [
                Route.Handler(
                    handler: "reverse_proxy", upstreams: [Route.Handler.Upstream(dial: dial)],
                    transport: self.settings.scheme == .h2c
                        ? Route.Handler.Transport(protocol: "http", versions: ["h2c"]) : nil)
            ], terminal: true)
    }

    package func publish(
        _ exposure: PublicExposure, completion: @escaping (Result<Void, RegistrarError>) -> Void
    ) -> (any Cancellable)? {
        let route: Route
        do throws(RegistrarError) { route = try self.route(of: exposure) } catch {
            completion(.failure(error))
            return nil
        }
        let insert = Request(method: .put, path: "\(self.routesPath)/0", body: Self.encode(route)) { [unowned self] in
            $0.status == 200 ? .done : .then(self.append(route, unless: Self.text($0)))
        }
        return self.begin(
            Request(method: .patch, path: "/id/\(route.id)", body: Self.encode(route)) { response in
                response.status == 200 ? .done : .then(insert)
            }, completion)
    }

    /// Adds a route to an empty list, which has no position to insert before.
    ///
    /// - Parameter failure: the error if the list is not empty.
    private func append(_ route: Route, unless failure: String) -> Request {
        Request(method: .get, path: self.routesPath) { [unowned self] response in
            guard response.status == 200, let list = RouteList(response.body), list.routes.isEmpty else {
                return .failed(failure)
            }
            // POST to a list appends to it. If there is no list yet, the posted value becomes the list.
            let body = list.isThere ? Self.encode(route) : Self.encode([route])
            return .then(
                Request(method: .post, path: self.routesPath, body: body) {
                    $0.status == 200 ? .done : .failed(Self.text($0))
                })
        }
    }

    package func withdraw(
        _ exposure: PublicExposure, completion: @escaping (Result<Void, RegistrarError>) -> Void
    ) -> (any Cancellable)? {
        self.begin(
            Request(method: .delete, path: "/id/\(Self.id(of: exposure.name))") {
                Self.isGone($0) ? .done : .failed(Self.text($0))
            }, completion)
    }

    private static func isGone(_ response: HTTPResponse) -> Bool { response.status == 200 || response.status == 404 }

    private static func encode(_ value: some Encodable) -> [UInt8] {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        guard let data = try? encoder.encode(value) else {
            preconditionFailure("texts and numbers can always be encoded")
        }
        return Array(data)
    }

    private static func text(_ response: HTTPResponse, _ hint: String = "") -> String {
        let body = PeerText.escaped(String(decoding: response.body.prefix(200), as: UTF8.self))
        return "Caddy answered \(response.status): \(body)" + (hint.isEmpty ? "" : " (\(hint))")
    }

    private func begin(
        _ request: Request, _ completion: @escaping (Result<Void, RegistrarError>) -> Void
    ) -> any Cancellable {
        let steps = Steps(self, completion)
        steps.send(request)
        return steps
    }

    private func send(
        _ request: Request, completion: @escaping (Result<HTTPResponse, HTTPFailure>) -> Void
    ) -> HTTPTask {
        var call = HTTPRequest(
            method: request.method, url: self.settings.admin + request.path, timeout: Self.timeout)
        call.fields = request.body.isEmpty ? [] : [HTTPRequest.Field("Content-Type", "application/json")]
        call.body = request.body
        call.maxResponse = Self.maxAnswer
        return self.client.send(call, completion: completion)
    }

    package func close() { self.client.close() }
}
