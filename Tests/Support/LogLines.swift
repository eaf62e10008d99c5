package import Logging
import Synchronization

/// A logger that keeps its lines in memory.
package final class LogLines: Sendable {
    private final class Store: Sendable {
        let records = Mutex<[(level: Logger.Level, message: String)]>([])
    }

    private struct Handler: LogHandler {
        let store: Store
        var logLevel = Logger.Level.debug
        var metadata: Logger.Metadata = [:]

        subscript(metadataKey key: String) -> Logger.Metadata.Value? {
            get { self.metadata[key] }
            set { self.metadata[key] = newValue }
        }

        func log(event: LogEvent) {
            self.store.records.withLock { $0.append((event.level, "\(event.message)")) }
        }
    }

    private let store = Store()
    package let logger: Logger

    package init() {
        let store = self.store
        self.logger = Logger(label: "test", factory: { _ in Handler(store: store) })
    }

    package var lines: [String] { self.store.records.withLock { $0.map(\.message) } }

    package func lines(at level: Logger.Level) -> [String] {
        self.store.records.withLock { $0.filter { $0.level == level }.map(\.message) }
    }
}
