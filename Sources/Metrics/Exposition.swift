/// Writes metrics in Prometheus' text format, version 0.0.4
/// (https://prometheus.io/docs/instrumenting/exposition_formats/).
///
/// The format requires all samples of a family in one block: call `begin`, then `sample` for each of them.
package struct Exposition {
    package enum Kind: String, Sendable { case counter, gauge, histogram }

    package typealias Labels = KeyValuePairs<String, String>

    package static let contentType = "text/plain; version=0.0.4; charset=utf-8"

    package private(set) var text: [UInt8] = []
    private var family = ""
    private var kind = Kind.gauge
    private var families: Set<String> = []
    /// Label sets written so far in this family. A duplicate series makes Prometheus reject the whole scrape.
    private var series: Set<String> = []

    package init() {}

    // MARK: - Families

    /// Begins a family. Later calls of `sample` add to it.
    ///
    /// - Precondition: the name is valid in the format and was not used before.
    package mutating func begin(_ family: String, _ kind: Kind, _ help: String) {
        precondition(Self.isName(family, mayHaveColons: true), "'\(family)' is not a metric name")
        precondition(self.families.insert(family).inserted, "the family '\(family)' comes twice")
        self.family = family
        self.kind = kind
        self.series = []
        self.write("# HELP \(family) \(Self.escaped(help, quotes: false))\n# TYPE \(family) \(kind.rawValue)\n")
    }

    /// A family with a single sample, like the three below.
    package mutating func counter(_ family: String, _ help: String, _ value: UInt64) {
        self.begin(family, .counter, help)
        self.sample(value)
    }

    package mutating func gauge(_ family: String, _ help: String, _ value: Int) {
        self.begin(family, .gauge, help)
        self.sample(value)
    }

    package mutating func gauge(_ family: String, _ help: String, seconds: Double) {
        self.begin(family, .gauge, help)
        self.sample(seconds: seconds)
    }

    package mutating func histogram(_ family: String, _ help: String, _ histogram: Histogram) {
        self.begin(family, .histogram, help)
        self.sample(histogram)
    }

    // MARK: - Samples

    package mutating func sample(_ value: some BinaryInteger, _ labels: Labels = [:]) {
        self.sample(String(value), labels)
    }

    package mutating func sample(seconds value: Double, _ labels: Labels = [:]) {
        self.sample(Self.number(value), labels)
    }

    private mutating func sample(_ value: String, _ labels: Labels) {
        precondition(self.kind != .histogram, "'\(self.family)' is a histogram")
        guard let labels = self.unique(labels) else { return }
        self.write("\(self.family)\(Self.braces(labels)) \(value)\n")
    }

    package mutating func sample(_ histogram: Histogram, _ labels: Labels = [:]) {
        precondition(self.kind == .histogram, "'\(self.family)' is not a histogram")
        guard let labels = self.unique(labels) else { return }
        let prefix = labels.isEmpty ? "" : labels + ","
        var cumulative: UInt64 = 0
        for (bound, count) in zip(histogram.bounds.map(Self.number) + ["+Inf"], histogram.counts) {
            cumulative &+= count
            self.write("\(self.family)_bucket{\(prefix)le=\"\(bound)\"} \(cumulative)\n")
        }
        self.write("\(self.family)_sum\(Self.braces(labels)) \(Self.number(histogram.sum))\n")
        self.write("\(self.family)_count\(Self.braces(labels)) \(cumulative)\n")
    }

    // MARK: - Text

    /// The labels as text; nil if the family already has this series, which is then skipped.
    private mutating func unique(_ labels: Labels) -> String? {
        let text = labels.map { name, value in
            precondition(
                Self.isName(name, mayHaveColons: false) && !name.hasPrefix("__") && name != "le",
                "'\(name)' is not a label name")
            return "\(name)=\"\(Self.escaped(value, quotes: true))\""
        }.joined(separator: ",")
        return self.series.insert(text).inserted ? text : nil
    }

    private static func braces(_ labels: String) -> String { labels.isEmpty ? "" : "{\(labels)}" }

    private mutating func write(_ text: String) { self.text += text.utf8 }

    private static func isName(_ name: String, mayHaveColons: Bool) -> Bool {
        guard let first = name.utf8.first, !(0x30...0x39).contains(first) else { return false }
        return name.utf8.allSatisfy { byte in
            switch byte {
            case 0x30...0x39, 0x41...0x5A, 0x61...0x7A, UInt8(ascii: "_"): true
            case UInt8(ascii: ":"): mayHaveColons
            default: false
            }
        }
    }

    private static func escaped(_ text: String, quotes: Bool) -> String {
        var result = ""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "\\": result += "\\\\"
            case "\n": result += "\\n"
            case "\"" where quotes: result += "\\\""
            default: result.unicodeScalars.append(scalar)
            }
        }
        return result
    }

    /// Formats a number for Go's ParseFloat, as the format requires.
    private static func number(_ value: Double) -> String {
        if value.isNaN { return "NaN" }
        if value.isInfinite { return value < 0 ? "-Inf" : "+Inf" }
        let text = value.description
        return text.hasSuffix(".0") ? String(text.dropLast(2)) : text
    }
}
