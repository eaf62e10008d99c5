import Foundation
import GatewayCore
import Metrics
import Modules
import Secure
import Testing
import Tunnel
import Version1
import Wire

@testable import Gateway
@testable import Relay
@testable import Settings

/// The tables of docs/security.md, each after a line `<!-- limit-table: NAME -->`.
private struct Document {
    struct Row {
        let limit: String
        let value: String
        let key: String
        let counter: String
    }

    let rows: [Row]

    /// The text of a document in `docs`.
    static func text(_ name: String) throws -> String {
        let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .deletingLastPathComponent()
        return try String(contentsOf: root.appendingPathComponent("docs/\(name)"), encoding: .utf8)
    }

    init() throws {
        let parts = try Self.text("security.md").components(separatedBy: "<!-- limit-table: ")
        self.rows = parts.dropFirst().flatMap { part in
            part.split(separator: "\n").dropFirst().prefix { $0.hasPrefix("|") }.dropFirst(2).map { line in
                let cells = line.split(separator: "|").map { $0.trimmingCharacters(in: .whitespaces) }
                return Row(limit: cells[0], value: cells[1], key: cells[2], counter: cells[3])
            }
        }
    }

    /// The parts of `text` between backticks.
    static func code(_ text: String) -> [String] {
        text.components(separatedBy: "`").enumerated().filter { $0.offset % 2 == 1 }.map(\.element)
    }
}

/// Checks the limits in docs/security.md against the constants, the settings and the metrics.
@Suite("docs/security.md")
struct SecurityLimitTests {
    private let link = LinkLimits(LimitSettings())
    private let old = Version1Limits()
    private let settings = LimitSettings()
    private let admission = AdmissionLimits()
    private let visitors = VisitorLimits()

    private func seconds(_ milliseconds: UInt64) -> String { "\(milliseconds / 1_000) s" }

    private func kib(_ bytes: Int) -> String {
        bytes >= 1 << 20 ? "\(bytes >> 20) MiB" : "\(bytes >> 10) KiB"
    }

    /// A number with a comma between thousands.
    private func grouped(_ number: Int) -> String {
        number < 1_000 ? "\(number)" : "\(self.grouped(number / 1_000)),\(String(number % 1_000 + 1_000).dropFirst())"
    }

    @Test("lists the actual limits of agents")
    func agents() throws {
        let withdrawals = WithdrawalLimits(settings)
        let registrations = RegistrationLimits(namesPerAgent: settings.namesPerAgent)
        #expect(withdrawals == WithdrawalLimits() && withdrawals.perAgent == 2 * settings.namesPerAgent)
        #expect(registrations.burst == 4 * settings.namesPerAgent)
        let rate = "\(grouped(registrations.burst)) at once, then \(registrations.perSecond) a second"
        let protocolText = try Document.text("protocol.md")
        for row in [
            "| by default \(rate) | REGISTERED(overloaded) |", "| as in WELCOME, \(settings.namesPerLink) by default |",
            "as in the agent's HELLO; \(grouped(settings.streamsPerLink)) in both programs by default |",
        ] { #expect(protocolText.contains(row), "\(row)") }
        try self.check([
            "TLS handshake, from the connection on": seconds(settings.handshakeTimeout),
            "login, from the connection on": seconds(settings.loginTimeout),
            "connections before the login · from one source":
                "\(ResourcePlan.maxStrangers) · \(admission.strangersPerSource); the one that has gone longest without "
                + "progress makes room",
            "connections beside these from sources whose agents have lost their connection":
                "\(admission.returning); of a source as many as it has such agents, and \(AdmissionLimits.spareReturning)",
            "logins that are judged · of one source":
                "\(grouped(admission.logins)) · \(admission.loginsPerSource); others try again",
            "logins that wait for `exec` or `webhook` · of one source":
                "\(HookQueue.maxLogins) · \(HookQueue.maxLoginsPerSource); others try again",
            "names of an agent that `exec` or `webhook` must withdraw · of all agents":
                "\(withdrawals.perAgent) (twice what it can hold) · \(grouped(withdrawals.total)) (or eight times as many); "
                + "others try again",
            "withdrawals that wait for another registrar":
                "as many; then one reset, which keeps other names, replaces them",
            "penalty from which handshakes of a source wait · how long · longest penalty · sources with one":
                "\(seconds(admission.enforcedFrom)) · \(seconds(admission.maxWait)) · \(seconds(admission.maxPenalty)) · "
                + grouped(admission.penaltyTable),
            "refused connections that get an alert · how long each":
                "\(ResourcePlan.maxRefused) · \(RefusedAgents.ticks) s; others are reset",
            "ClientHello": kib(ClientHello.maxBytes),
            "client certificates": kib(TLSContext.maxClientCertificates),
            "TLS messages after the handshake":
                "none before the login, then 1 a second, \(TLSSession.maxMessages) at once",
            "handshake reads": "\(RelayBuffers.handshakesPerTurn) a turn of the loop; others wait for the next turn",
            "frame before the login · after it":
                "\(grouped(WireConstant.maximumPayloadBeforeLogin)) · \(grouped(WireConstant.maximumPayload)) bytes",
            "agents' links": grouped(ResourcePlan.defaultAgents),
            "links of an agent · of one program": "\(settings.linksPerAgent) · \(GatewayMachine.maxLinksPerRun)",
            "names of a link · of an agent, by all its links · in all":
                "\(settings.namesPerLink) · \(settings.namesPerAgent), or `names-per-link` if that is more · "
                + grouped(ResourcePlan.maxNames),
            "registrations of a link":
                "\(link.registerBurst) at once (twice as many as it may have names, \(LinkLimits().registerBurst) at "
                + "least), then \(link.registersPerSecond) a second",
            "registrations of an agent, by all its links":
                "\(grouped(registrations.burst)) at once (four times what it can hold), then \(registrations.perSecond) a "
                + "second (that in 15 s); others try again",
            "agents whose registrations are remembered":
                "\(grouped(RegistrationGate.maxPayers)); then those that have used least are forgotten",
            "glitches of a link": "\(grouped(link.glitchBurst)) at once, then \(link.glitchesPerSecond) a second",
            "late frames for ended streams":
                "\(link.lateFrames) for each, and 1 for each \(link.lateFrameBytes == 1_024 ? "KiB" : "?") granted and "
                + "unused; \(grouped(link.maxLateFrames)) in all; beyond that they are glitches",
            "streams withdrawn before the agent's answer":
                "\(grouped(link.withdrawnOpenBurst)) at once, then \(link.withdrawnOpensPerSecond) a second; beyond that "
                + "they are glitches",
            "answers owed to a peer that does not read": kib(link.owedControl),
            "link that takes no bytes": seconds(link.outputStalled),
            "link whose bytes are not acknowledged":
                seconds(UInt64(LinkProtocol.userTimeout(ofVersion1: false))),
            "silence before PING · before the link is ended · after a sleep of the machine":
                [link.pingAfter, link.deadAfter, link.deadAfterJump].map { seconds($0) }.joined(separator: " · "),
            "broken connection, until its link ends": seconds(settings.resumeWindow),
            "reading one link": "about \(Double(ReadBudget.turnCost) / 1e6) ms a turn of the loop",
        ])
    }

    @Test("lists the actual limits of visitors")
    func ofVisitors() throws {
        #expect(visitors.perSource == settings.visitorsPerSource && visitors.total == ResourcePlan.defaultVisitors)
        #expect(VisitorLimits(settings, ResourcePlan(descriptors: 1)).burst == visitors.burst)
        try self.check([
            "visitors":
                "\(grouped(visitors.total)), and \(kib(ResourcePlan.bytesPerVisitor)) each of five quarters of `memory`; "
                + "a stalled one makes room",
            "visitors of one agent, when others have names":
                "\(VisitorLimits.shareOfFree) for each free place: \(VisitorLimits.shareOfFree) of "
                + "\(VisitorLimits.shareOfFree + 1) places for one alone, \(2 * VisitorLimits.shareOfFree) of "
                + "\(2 * VisitorLimits.shareOfFree + 1) for two",
            "visitors from one stranger": "\(visitors.perSource)",
            "new visitors from one stranger":
                "\(visitors.ratePerSecond) a second, \(visitors.burst) at once",
            "PROXY headers awaited · for how long · then for room at the agent":
                "\(grouped(visitors.unnamed)) · \(seconds(ProxyEntrance.headerMilliseconds)) · "
                + seconds(ProxyEntrance.roomMilliseconds),
            "streams of a link": "\(grouped(link.maximumStreams)); a stalled one makes room",
            "streams of a link not accepted yet · of one name":
                "\(link.pendingOpens) · what other names leave, at least \(link.minPendingOpens); others wait in the "
                + "backlog",
            "backend's connection · agent's answer · module's answer":
                "5 s · \(seconds(link.acceptDeadline)) · \(seconds(moduleDeadline))",
            "stream whose receiver takes nothing": link.stalled == 0 && settings.stallTimeout == 0 ? "no limit" : "?",
            "half-closed stream that is silent":
                link.halfClosedIdle == 0 && settings.halfCloseTimeout == 0 ? "no limit" : "?",
            "stalled stream that is ended for a visitor or for memory":
                "after \(seconds(StalledStreams.minMilliseconds)) without progress, the longest-stalled first",
            "bytes before a reset": "\(seconds(link.resetPatience)) without progress",
            "visitor that answers no probe · that acknowledges nothing":
                "\(Edge.keepAlive.idle) s + \(Edge.keepAlive.count) × \(Edge.keepAlive.interval) s · "
                + seconds(UInt64(Edge.vanishedMilliseconds)),
        ])
        #expect(link.resetPatience == Edge.resetPatience)
    }

    @Test("lists the actual limits of memory and of version 1")
    func memory() throws {
        #expect(ResourcePlan.budgetShare == (6, of: 10) && ResourcePlan.visitorShare == (5, of: 4))
        #expect(StalledStreams.highWater == (9, of: 10))
        try self.check([
            "bytes granted on a link": kib(link.linkBudget),
            "bytes kept of a link until they are acknowledged: first · most · least":
                [link.firstKept, link.maxKept, link.pressureKept].map { kib($0) }.joined(separator: " · "),
            "receive window: first · most · on a round trip below 1 ms · under pressure · least":
                [link.startWindow, link.maxWindow, link.nearWindow, link.pressureWindow, link.floorWindow]
                .map { kib($0) }.joined(separator: " · "),
            "send queue of a stream · under pressure · least":
                [link.streamQueue, link.pressureQueue, link.floorQueue].map { kib($0) }.joined(separator: " · "),
            "unsent bytes in the kernel for a visitor · when more than a quarter of the visitors is there":
                "\(kib(Int(Edge.notSentBytes))) · \(kib(Int(Edge.crowdedBytes)))",
            "links of an agent": "\(settings.version1LinksPerAgent)",
            "bytes that wait for a visitor; then the link is not read":
                "\(kib(old.slowStream)), and \(kib(old.readSize)) of the last read",
            "what that visitor must take": "\(kib(old.minProgress)) in \(seconds(old.patience))",
            "link that takes no bytes, or acknowledges none": seconds(old.outputStalled),
            "`Close` after a visitor's end: the answer is silent · has not begun":
                "\(seconds(old.quietGrace)) · \(seconds(old.answerGrace))",
        ])
        #expect(UInt64(LinkProtocol.userTimeout(ofVersion1: true)) == old.outputStalled)
    }

    private func check(_ expected: [String: String]) throws {
        let rows = try Document().rows
        for (limit, value) in expected {
            #expect(rows.contains { $0.limit == limit && $0.value == value }, "'\(limit)': '\(value)'")
        }
    }

    @Test("names only existing counters, and every counter of limits")
    func counters() throws {
        let figures = GatewayFigures(plan: ResourcePlan(descriptors: 65_536))
        let bytes = GatewayMetrics().exposition(figures, ProcessFigures(), isPerName: false)
        let series = Set(
            String(decoding: bytes, as: UTF8.self).split(separator: "\n").compactMap { line -> String? in
                guard line.hasPrefix("diglett_"), let brace = line.firstIndex(of: "{") else { return nil }
                // The label values: every second part between quotes.
                let values = line.components(separatedBy: "\"").enumerated().filter { $0.offset % 2 == 1 }.map(
                    \.element)
                return "\(line[..<brace]){\(values.joined(separator: " "))}"
            })
        var named: Set<String> = []
        for row in try Document().rows {
            let counters = Document.code(row.counter).filter { $0.contains("{") }
            #expect(!counters.isEmpty || row.counter.hasSuffix("log"), "'\(row.limit)' is counted nowhere")
            for counter in counters {
                let parts = counter.split(separator: "{")
                #expect(series.contains("diglett_\(parts[0])_total{\(parts[1])"), "'\(counter)' of '\(row.limit)'")
                if parts[0] == "limit_hits" { named.insert(String(parts[1].dropLast())) }
            }
        }
        #expect(named == Set(LimitHit.allCases.map(\.rawValue)))
    }

    @Test("names exactly the keys of the limits")
    func keys() throws {
        let known = Set(LimitKeys.descriptions.map(\.name))
        let named = Set(try Document().rows.flatMap { Document.code($0.key) })
        #expect(named == known)
    }
}

/// How the gateway divides its resources among its limits.
@Suite("Resources")
struct ResourcePlanTests {
    private let ample = 1 << 20
    private let machine = 64 << 30

    @Test("are bounded by constants by default if there is enough")
    func defaults() {
        let plan = ResourcePlan(descriptors: self.ample, memory: self.machine)
        #expect((plan.agents, plan.strangers, plan.names, plan.visitors) == (1_024, 256, 4_096, 8_192))
        #expect((plan.logins, plan.headers, plan.links) == (1_024, 1_024, 2_304))
        #expect(AdmissionLimits().logins == plan.logins && VisitorLimits().unnamed == plan.headers)
        #expect(plan.memory == self.machine / 10 * 6)
        #expect(!plan.isLowered && plan.loweredText(descriptors: 1, memory: 1) == nil)
    }

    @Test("are lowered to what the descriptors allow, with a reserve")
    func descriptors() {
        for count in [64, 256, 1_024, 4_096, 13_632] {
            for listeners in 1...2 {
                let plan = ResourcePlan(descriptors: count, memory: self.machine, listenersPerName: listeners)
                let sum = plan.links + plan.refused + plan.headers + plan.names * listeners + plan.visitors
                #expect(sum + 64 <= max(count, 128) && plan.visitors > 0)
            }
        }
        // Names may use a quarter of the descriptors, which is the tightest of the default limits. 64 are in reserve.
        #expect(!ResourcePlan(descriptors: 16_448, memory: self.machine).isLowered)
        #expect(ResourcePlan(descriptors: 16_447, memory: self.machine).isLowered)
    }

    @Test("visitors take 88 KiB each of five quarters of the memory")
    func memory() {
        var limits = LimitSettings()
        for (text, visitors) in [(16 << 20, 230), (256 << 20, 3_720), (1 << 30, 8_192)] {
            limits.memory = text
            let plan = ResourcePlan(limits, descriptors: self.ample, memory: self.machine)
            #expect(plan.memory == text && plan.visitors == visitors)
            #expect(plan.isLowered == (visitors < 8_192))
        }
        #expect(ResourcePlan(descriptors: self.ample, memory: 1 << 20).visitors == 64)
    }

    @Test("the operator's values apply as far as the process allows")
    func settings() {
        var limits = LimitSettings()
        (limits.visitors, limits.agents, limits.memory) = (10, 2, 16 << 20)
        var plan = ResourcePlan(limits, descriptors: self.ample, memory: self.machine)
        #expect((plan.visitors, plan.agents, plan.memory) == (10, 2, 16 << 20) && !plan.isLowered)
        (limits.visitors, limits.agents, limits.memory) = (20_000, 2_000, 8 << 30)
        plan = ResourcePlan(limits, descriptors: self.ample, memory: self.machine)
        #expect((plan.visitors, plan.agents, plan.memory) == (20_000, 2_000, 8 << 30) && !plan.isLowered)
        plan = ResourcePlan(limits, descriptors: self.ample, memory: 8 << 30)
        #expect(plan.memory == (8 << 30) / 10 * 9 && plan.isLowered)
        plan = ResourcePlan(limits, descriptors: 10_000, memory: self.machine)
        #expect(plan.visitors < 10_000 && plan.agents < 2_000 && plan.isLowered)
        #expect(plan.loweredText(descriptors: 10_000, memory: 1 << 30)?.contains("10000 file descriptors") ?? false)
    }

    @Test("apply to links and visitors")
    func machines() {
        var settings = LimitSettings()
        (settings.streamsPerLink, settings.namesPerLink, settings.stallTimeout) = (5, 20, 1)
        (settings.halfCloseTimeout, settings.handshakeTimeout, settings.loginTimeout) = (2, 3, 4)
        (settings.visitorsPerSource, settings.visitorsPerSecond) = (6, 7)
        let link = LinkLimits(settings)
        #expect((link.maximumStreams, link.registerBurst, link.stalled, link.halfClosedIdle) == (5, 40, 1, 2))
        #expect((link.handshakeDeadline, link.loginDeadline) == (3, 4))
        #expect(link.helloWindow == 64 << 10)
        settings.streamsPerLink = 4_097
        #expect(LinkLimits(settings).helloWindow == LinkLimits().floorWindow)
        let old = Version1Limits(readSize: 9, link)
        #expect((old.maximumStreams, old.stalled, old.loginDeadline, old.readSize) == (5, 1, 4, 9))
        settings.visitors = 8
        let visitors = VisitorLimits(settings, ResourcePlan(settings, descriptors: 1_024))
        #expect((visitors.total, visitors.perSource, visitors.ratePerSecond, visitors.burst) == (8, 6, 7, 14))
        #expect(visitors.unnamed == 60)
        settings.namesPerLink = 100
        #expect(settings.namesPerAgent == 256 && WithdrawalLimits(settings) == WithdrawalLimits())
        // An agent may have as many names as one of its links.
        settings.namesPerLink = 1_600
        let withdrawals = WithdrawalLimits(settings)
        #expect((withdrawals.perAgent, withdrawals.total) == (3_200, 25_600))
        (settings.namesPerLink, settings.linksPerAgent) = (7, 2)
        #expect(settings.namesPerAgent == 14)
    }
}

@Suite("Work in one turn of the loop")
struct TurnLimitTests {
    @Test("four handshakes are read per turn")
    func handshakes() {
        let buffers = RelayBuffers()
        #expect((0..<6).map { _ in buffers.takeHandshake(turn: 1) } == [true, true, true, true, false, false])
        #expect(buffers.takeHandshake(turn: 2))
    }

    private func spendLarge(_ budget: inout ReadBudget, now: UInt64) {
        budget.spent(bytes: budget.allowance, records: budget.allowance / 16_384, frames: 1, edges: 1, now: now)
    }

    @Test("a link is read for about a millisecond per turn: many bytes of large frames, few of small ones")
    func reading() {
        var large = ReadBudget()
        #expect(large.allowance == 16 * 1_024)
        for _ in 0..<10 { self.spendLarge(&large, now: 0) }
        #expect(large.allowance == 256 * 1_024)
        // After one read that costs too much, it takes seconds until as much is read at once again.
        large.spent(bytes: large.allowance, records: 16, frames: large.allowance / 9, edges: 1, now: 0)
        let afterwards = large.allowance
        #expect((4_096...12_000).contains(afterwards))
        for _ in 0..<100 { self.spendLarge(&large, now: 999) }
        #expect(large.allowance == afterwards)
        for second in 1...8 as ClosedRange<UInt64> {
            for _ in 0..<100 { self.spendLarge(&large, now: second * 1_000) }
            #expect(large.allowance == min(afterwards << second, 256 * 1_024))
        }
        var small = ReadBudget()
        for _ in 0..<10 {
            small.spent(bytes: small.allowance, records: 1, frames: small.allowance / 9, edges: 1, now: 0)
        }
        #expect((4_096...12_000).contains(small.allowance))
        // A frame for each of many edges is the worst case. A minimum is always read.
        for _ in 0..<10 {
            small.spent(
                bytes: small.allowance, records: small.allowance / 31, frames: small.allowance / 9,
                edges: small.allowance / 9, now: 0)
        }
        #expect(small.allowance == 4_096)
    }
}
