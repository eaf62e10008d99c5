import Foundation
import Modules
import Reactor
import Testing
import Wire

@Suite("The example module in docs/hooks.md")
struct ExampleTests {
    /// The page shows ListRegistrar.swift, except for the line that imports Modules.
    @Test("matches ListRegistrar.swift")
    func page() throws {
        let here = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
        let page = here.deletingLastPathComponent().deletingLastPathComponent().appendingPathComponent(
            "docs/hooks.md")
        let file = try String(contentsOf: here.appendingPathComponent("ListRegistrar.swift"), encoding: .utf8)
        let shown = file.replacingOccurrences(of: "package import Modules\n", with: "")
        #expect(try String(contentsOf: page, encoding: .utf8).contains("```swift\n\(shown)```"))
    }

    @Test("keeps the names in its file")
    func works() throws {
        let path = FileManager.default.temporaryDirectory.appendingPathComponent("diglett-\(UUID().uuidString)").path
        defer { try? FileManager.default.removeItem(atPath: path) }
        let registrar = ListRegistrar(path: path)
        func exposure(_ name: String) throws -> PublicExposure {
            PublicExposure(name: try #require(Name(name)), identity: "one", address: .loopback4(port: 1))
        }
        var results: [Bool] = []
        func note<R>(_ result: Result<R, RegistrarError>) { results.append((try? result.get()) != nil) }
        func content() throws -> String { try String(contentsOfFile: path, encoding: .utf8) }
        _ = registrar.publish(try exposure("b")) { note($0) }
        _ = registrar.publish(try exposure("a")) { note($0) }
        #expect(try content() == "a\nb\n")
        _ = registrar.withdraw(try exposure("b")) { note($0) }
        _ = registrar.publish(try exposure("c")) { note($0) }
        _ = registrar.reset(keeping: [try exposure("a")]) { note($0) }
        #expect(try content() == "a\n")
        #expect(results == [true, true, true, true, true])
        registrar.close()
    }
}
