internal import Journal
internal import Logging
internal import Settings

/// Writes log lines about the gateway. Lines that the gateway can trigger are rate-limited.
struct GatewayLog {
    let log: PeerLog
    let gateway: HostPort

    /// For lines that the gateway cannot trigger, or only rarely.
    var logger: Logger { self.log.logger }

    /// The metadata of a line: the gateway and `fields`.
    func about(_ fields: KeyValuePairs<LogKey, (any CustomStringConvertible & Sendable)?> = [:]) -> Logger.Metadata {
        var metadata = Logger.Metadata.about([.gateway: self.gateway])
        metadata.add(fields)
        return metadata
    }

    /// Writes a line that the gateway can trigger, for example by ending links.
    func say(
        _ level: Logger.Level, _ kind: PeerLog.Kind, _ message: @autoclosure () -> String,
        _ metadata: @autoclosure () -> Logger.Metadata? = nil
    ) {
        self.log.write(level, kind, of: .gateway("\(self.gateway)"), message(), metadata() ?? self.about())
    }
}
