package import Logging
package import Reactor
package import Timing

/// The source of log lines, as the report about omitted lines names it.
package struct PeerSource: Equatable, Sendable {
    let text: String

    /// - Parameter identity: printable, from the authenticator.
    package static func agent(_ identity: String) -> Self { Self(text: "agent '\(identity)'") }
    package static func visitors(of name: String) -> Self { Self(text: "visitors of '\(name)'") }
    /// A connection that has not logged in, by its address or network.
    package static func stranger(_ network: String) -> Self { Self(text: "connections from \(network)") }
    /// Connections that could not be accepted, so their address is unknown.
    package static let unknownStrangers = Self(text: "connections that were not accepted")
    package static func gateway(_ address: String) -> Self { Self(text: "the gateway \(address)") }
    /// Lines that all agents together cause at a registrar.
    package static func registrar(_ label: String) -> Self { Self(text: "the registrar \(label)") }
    /// Programs that read from one of the operator's listeners: metrics, or a registrar's documents.
    package static let readers = Self(text: "readers of documents")
}

/// Logs lines that a peer can cause. Each source has a rate limit, and so have all sources together. Omitted lines are
/// counted, and the counts are logged.
///
/// Lines that no peer causes do not go through here, and neither do the records of `--log-streams`, which must be
/// complete.
package final class PeerLog {
    /// Kinds of lines, by how often an honest source causes them.
    package enum Kind: CaseIterable, Sendable {
        /// Once for each link or name: logged in, registered, unregistered, ended.
        case milestone
        /// Refusals and failures.
        case detail
        /// Events of visitors.
        case visitors
        /// Events before a login.
        case strangers
        /// Lines that tell programs what is reachable, or that follow an action of the operator. All are written,
        /// because their causes are bounded.
        case complete
    }

    /// Rates of a kind: for each source, and for all sources together.
    package typealias Rates = (source: LineLimit.Rate, total: LineLimit.Rate)

    /// An agent with 100 names has 7 links and causes 214 lines when all of them reconnect. The rate allows that every
    /// five seconds, and the total allows 1,000 agents with 16 names each to start at once.
    package static let milestones: Rates = (
        LineLimit.Rate(burst: 250, perSecond: 40), LineLimit.Rate(burst: 20_000, perSecond: 200)
    )
    /// A gateway's answers to one agent: all of its names at four reconnects at once, then at one each second.
    ///
    /// - Parameter names: how many names the agent wants.
    package static func answers(names: Int) -> Rates {
        let rate = LineLimit.Rate(burst: 4 * max(names, 16), perSecond: max(names, 16))
        return (rate, rate)
    }

    /// The logger itself, for lines that no peer causes.
    package let logger: Logger
    private let loop: EventLoop
    private var limits: [Kind: LineLimit] = [:]

    package init(_ logger: Logger, loop: EventLoop, milestones: Rates = PeerLog.milestones) {
        self.logger = logger
        self.loop = loop
        for kind in Kind.allCases {
            guard let rates = kind == .milestone ? milestones : Self.rates(kind) else { continue }
            self.limits[kind] = LineLimit(source: rates.source, total: rates.total, now: loop.now)
        }
    }

    private static func rates(_ kind: Kind) -> Rates? {
        switch kind {
        case .complete: nil
        case .milestone: self.milestones
        // A link with 16 names that are all refused, and refused again at its next attempt. Further lines are counted.
        case .detail: (LineLimit.Rate(burst: 32, perSecond: 2), LineLimit.Rate(burst: 320, perSecond: 20))
        case .visitors: (LineLimit.Rate(burst: 32, perSecond: 5), LineLimit.Rate(burst: 128, perSecond: 20))
        // Enough for fail2ban to see every source of a distributed attack.
        case .strangers: (LineLimit.Rate(burst: 16, perSecond: 1), LineLimit.Rate(burst: 512, perSecond: 20))
        }
    }

    /// Changes the rates of milestones.
    package func change(milestones rates: Rates) {
        self.limits[.milestone]?.change(source: rates.source, total: rates.total, now: self.loop.now)
    }

    /// Writes a line unless there are too many like it. Message and metadata are built only for a line that is written.
    package func write(
        _ level: Logger.Level, _ kind: Kind, of source: PeerSource, _ message: @autoclosure () -> String,
        _ metadata: @autoclosure () -> Logger.Metadata = [:]
    ) {
        guard level >= self.logger.logLevel, self.limits[kind]?.take(source.text, now: self.loop.now) ?? true else {
            return
        }
        let text = message()
        self.logger.log(level: level, "\(text)", metadata: metadata())
    }

    /// Reports omitted lines. Call it about once a second.
    package func tick() {
        for kind in Kind.allCases {
            for report in self.limits[kind]?.leftOut(now: self.loop.now) ?? [] {
                let what = report.count == 1 ? "1 further message" : "\(report.count) further messages"
                let who = report.source ?? "others"
                self.logger.info("\(what) about \(who) \(report.count == 1 ? "was" : "were") suppressed")
            }
        }
    }
}
