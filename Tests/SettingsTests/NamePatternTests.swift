import Settings
import Testing
import Wire

@Suite("Name patterns")
struct NamePatternTests {
    @Test(
        "match whole names",
        arguments: [
            ("api", "api", true), ("api", "api2", false), ("app-*", "app-1", true), ("app-*", "app-", false),
            ("app-*", "app", false), ("*", "anything-at-all", true), ("*-*", "a-b", true), ("*-*", "ab", false),
            ("a*b*c", "axxbyyc", true), ("a*b*c", "abc", true), ("a*b*c", "acb", false), ("APP*", "app", true),
        ])
    func matches(_ pattern: String, _ name: String, _ expected: Bool) throws {
        // A pattern need not match a text that is not a name.
        guard let name = Name(name) else { return #expect(!expected) }
        #expect(try #require(NamePattern(pattern)).matches(name) == expected)
    }

    @Test(
        "overlap if they match a common name",
        arguments: [
            ("api", "api", true), ("api", "app", false), ("app-*", "app-1", true), ("app-*", "*-1", true),
            ("a*", "b*", false), ("*a", "*b", false), ("a*b", "*", true), ("a*c", "ab*", true), ("a-*", "*-b", true),
            ("ab*", "a", false),
        ])
    func overlaps(_ one: String, _ other: String, _ expected: Bool) throws {
        let left = try #require(NamePattern(one))
        let right = try #require(NamePattern(other))
        #expect(left.overlaps(right) == expected)
        #expect(right.overlaps(left) == expected)
    }

    @Test(
        "are refused if invalid", arguments: ["", "a_b", "-a", "a-", "admin", "*-", "a.b", "a*b*c*d*e*f", "ä*"])
    func bad(_ text: String) {
        #expect(NamePattern(text) == nil)
    }
}
