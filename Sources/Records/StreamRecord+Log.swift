internal import Journal
package import Logging
internal import Reactor
internal import Relay
internal import Wire

extension StreamRecord {
    /// Writes the record as one line, at the level info.
    ///
    /// - Parameter metadata: further fields of the line.
    package func log(to logger: Logger, _ metadata: @autoclosure () -> Logger.Metadata) {
        logger.info("\(self)", metadata: self.fields(metadata()))
    }

    private func fields(_ metadata: Logger.Metadata) -> Logger.Metadata {
        var metadata = metadata
        metadata.add([
            .event: "stream", .name: self.name, .visitor: self.visitor == .none ? nil : self.visitor,
            .agent: self.agent, .proxy: self.proxy, .backend: self.backend, .bytesToBackend: self.bytesToBackend,
            .bytesToVisitor: self.bytesToVisitor,
            .firstByte: self.firstByteNanoseconds.map(Self.milliseconds),
            .duration: Self.milliseconds(self.durationNanoseconds), .reason: self.reason, .endedBy: self.endedBy,
            .error: self.error,
        ])
        return metadata
    }

    /// The operating system's error for the socket that failed.
    private var error: String? {
        if case .failed(let error) = self.end { error.description } else { nil }
    }

    /// Truncated to microseconds, which is finer than the measurement.
    private static func milliseconds(_ nanoseconds: UInt64) -> Double { Double(nanoseconds / 1_000) / 1_000 }
}

extension StreamRecord: CustomStringConvertible {
    /// The text of the log line:
    /// `stream of 'example' by web: visitor 203.0.113.7:4711; finished by the backend after 12.345 ms; 78 bytes to the
    /// backend, 1024 to the visitor, the first after 3.21 ms`
    package var description: String {
        var text = "stream of '\(self.name)'"
        if let agent = self.agent { text += " by \(agent)" }
        if let backend = self.backend { text += " to \(backend)" }
        text += self.visitor == .none ? ": a visitor" : ": visitor \(self.visitor)"
        if let proxy = self.proxy { text += " through \(proxy)" }
        text += "; \(self.reason) by the \(self.endedBy)"
        if let error = self.error { text += " (\(error))" }
        text += " after \(Self.milliseconds(self.durationNanoseconds)) ms"
        text += "; \(self.bytesToBackend) bytes to the backend, \(self.bytesToVisitor) to the visitor"
        if let first = self.firstByteNanoseconds { text += ", the first after \(Self.milliseconds(first)) ms" }
        return text
    }
}
