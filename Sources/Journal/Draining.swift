/// What a program says while it waits for its streams.
package enum Draining {
    /// - Parameter seconds: after which the streams are cut.
    package static func text(streams: Int, atMostSeconds seconds: UInt64) -> String {
        "waiting up to \(seconds) s for \(counted(streams, "stream")); a second signal (Ctrl-C) cuts "
            + (streams == 1 ? "it" : "them")
    }
}
