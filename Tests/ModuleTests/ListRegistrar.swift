package import Modules
internal import Reactor
internal import Settings
internal import Wire

package final class ListRegistrar: Registrar {
    private let path: String
    private var names: Set<String> = []

    package init(path: String) { self.path = path }

    package var label: String { "list (\(self.path))" }

    package func reset(
        keeping: [PublicExposure], completion: @escaping (Result<[PublicExposure], RegistrarError>) -> Void
    ) -> (any Cancellable)? {
        self.names.formIntersection(keeping.map(\.name.text))
        completion(self.save().map { [] })
        return nil
    }

    package func publish(
        _ exposure: PublicExposure, completion: @escaping (Result<Void, RegistrarError>) -> Void
    ) -> (any Cancellable)? {
        self.names.insert(exposure.name.text)
        completion(self.save())
        return nil
    }

    package func withdraw(
        _ exposure: PublicExposure, completion: @escaping (Result<Void, RegistrarError>) -> Void
    ) -> (any Cancellable)? {
        self.names.remove(exposure.name.text)
        completion(self.save())
        return nil
    }

    private func save() -> Result<Void, RegistrarError> {
        let text = self.names.sorted().map { $0 + "\n" }.joined()
        do throws(SettingsError) {
            try FileAccess.replace(self.path, with: Array(text.utf8), mode: 0o644, durable: false)
        } catch { return .failure(RegistrarError(reason: error.description)) }
        return .success(())
    }

    package func close() {}
}
