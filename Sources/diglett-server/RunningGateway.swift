import Console
import Control
import Settings

/// The gateway whose agents file a command changes, if it is running.
struct RunningGateway {
    /// A gateway that takes longer detects the change without a request.
    private static let timeoutSeconds = 3

    enum Outcome {
        case done
        /// No gateway has a socket at any of these paths.
        case absent
        /// A gateway is running, but it is unknown whether it has read the file.
        case failed(String)
    }

    let places: ControlSettings.Places

    /// The port on which it accepts agents; nil if no gateway answers.
    var port: UInt16? {
        for path in self.clientPaths {
            let client = ControlClient(path: path, timeoutSeconds: Self.timeoutSeconds)
            guard let report = try? client.ask(ControlRequest(.status), GatewayReport.self) else { continue }
            return report.listening.lazy.compactMap { HostPort($0)?.port }.first
        }
        return nil
    }

    /// None if the gateway's configuration has no socket: a value that does not begin with '/' is `none`.
    private var clientPaths: [String] {
        if let given = self.places.given, !given.hasPrefix("/") { return [] }
        return self.places.paths.filter { FileAccess.exists($0) }
    }

    /// Makes it read its agents file, and waits until it has. Printed changes are then in effect.
    func reload() -> Outcome {
        for path in self.clientPaths {
            let client = ControlClient(path: path, timeoutSeconds: Self.timeoutSeconds)
            do {
                _ = try client.ask(ControlRequest(.reload), ControlNotes.self)
                return .done
            } catch {
                switch error {
                case .dead: continue
                case .refused(let reason):
                    return .failed(
                        "the running gateway did not apply the change: \(reason); fix that, then run "
                            + "'diglett-server ctl reload'")
                case .unreachable, .denied, .garbled:
                    return .failed(
                        "cannot notify the running gateway (\(error)); it reads the file "
                            + "within a second; check with 'diglett-server ctl reload' as its user")
                }
            }
        }
        return .absent
    }
}
