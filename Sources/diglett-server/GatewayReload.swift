import Console
import Control
import Settings

/// Has a running gateway read its agents, and waits until it has: what is printed about a change then holds.
struct GatewayReload {
    /// A gateway that takes longer reads the file by itself.
    private static let timeoutSeconds = 3

    enum Outcome {
        case done
        /// No gateway has a socket at any of these places.
        case absent
        /// One is there, and nobody knows whether it has read the file.
        case failed(String)
    }

    let places: ControlSettings.Places

    func perform() -> Outcome {
        // One that begins with no '/' is `none`: the gateway has no socket.
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
                case .unreachable, .garbled:
                    return .failed(
                        "cannot notify the running gateway (\(error)); it reads the file "
                            + "within a second; check with 'diglett-server ctl reload' as its user")
                }
            }
        }
        return .absent
    }
}
