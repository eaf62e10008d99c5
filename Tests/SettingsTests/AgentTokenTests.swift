import Settings
import Testing

@Suite("Timestamps")
struct TimestampTests {
    @Test("dates and durations are parsed")
    func times() {
        #expect(Timestamp.seconds("1970-01-02") == 86_400)
        #expect(Timestamp.seconds("2027-02-21T12:30:15Z") == 1_803_213_015)
        for bad in ["", "2027", "2027-13-01", "2027-02-30", "2027-02-21 12:00", "2027-02-21T12:30:15", "tomorrow"] {
            #expect(Timestamp.seconds(bad) == nil, "\(bad)")
        }
        #expect(Timestamp.text(1_803_213_015) == "2027-02-21T12:30:15Z")
        #expect(Timestamp.span("90d") == 7_776_000)
        #expect(Timestamp.span("45s") == 45)
        for bad in ["", "d", "0d", "-1d", "5", "5w", "99999999999d"] { #expect(Timestamp.span(bad) == nil, "\(bad)") }
    }
}

@Suite("Agent tokens")
struct AgentTokenTests {
    @Test("a token names its agent and carries 256 random bits")
    func tokens() throws {
        let made = AgentToken.make(name: "web-1", secret: [UInt8](repeating: 0xFB, count: 32))
        #expect(made.token == "dgl_web-1_\(made.secret)")
        #expect(made.secret.count == 43 && made.secret.contains("_"))
        let parsed = try #require(AgentToken.parse(made.token))
        #expect(parsed == ("web-1", made.secret))
        for bad in ["", "dgl_", "dgl_web", "web_x", "dgl1_web_x"] { #expect(AgentToken.parse(bad) == nil) }
    }
}
