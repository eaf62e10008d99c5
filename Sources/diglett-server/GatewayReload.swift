import Console
import Control
import Settings

/// Makes a running gateway read its agents file, and waits until it has. Printed changes are then in effect.
struct GatewayReload {
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

    func perform() -> Outcome {
        // A value that does not begin with '/' is `none`: the gateway has no socket.
        if let given = self.places.given, !given.hasPrefix("/") { return .absent }
        for path in self.places.paths where FileAccess.exists(path) {
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
