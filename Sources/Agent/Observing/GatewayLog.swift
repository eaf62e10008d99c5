internal import Journal
internal import Logging
internal import Settings

/// Writes lines about the gateway. Each names it, and those that it can cause are limited.
struct GatewayLog {
    let log: PeerLog
    let gateway: HostPort

    /// For lines that the gateway does not cause, or whose waits keep them few.
    var logger: Logger { self.log.logger }

    /// What a line about the gateway is about: the gateway, and what is given here.
    func about(_ fields: KeyValuePairs<LogKey, (any CustomStringConvertible & Sendable)?> = [:]) -> Logger.Metadata {
        var metadata = Logger.Metadata.about([.gateway: self.gateway])
        metadata.add(fields)
        return metadata
    }

    /// Writes a line that the gateway can cause, perhaps by how often it ends a link.
    func say(
        _ level: Logger.Level, _ kind: PeerLog.Kind, _ message: @autoclosure () -> String,
        _ metadata: @autoclosure () -> Logger.Metadata? = nil
    ) {
        self.log.write(level, kind, of: .gateway("\(self.gateway)"), message(), metadata() ?? self.about())
    }
}
