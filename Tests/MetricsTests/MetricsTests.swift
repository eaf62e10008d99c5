import Metrics
import Testing

@Suite("Counters and histograms")
struct CounterTests {
    enum Answer: String, CaseIterable { case yes, no }

    @Test("a counter adds up")
    func counter() {
        var counter = Counter()
        counter.add()
        counter.add(41)
        counter.add(0)
        #expect(counter.value == 42)
    }

    @Test("a table has all its keys from the start, in order")
    func beginning() {
        let table = CounterTable<Answer>()
        #expect(table.all.map(\.key) == [.yes, .no])
        #expect(table.all.allSatisfy { $0.count.value == 0 })
    }

    @Test("an unknown key is counted under the fallback key")
    func others() {
        var table = CounterTable(["a", "b", "a", "other"])
        for key in ["a", "b", "a", "c", "", "other"] { table.add(key, or: "other") }
        #expect(table.all.map(\.key) == ["a", "b", "other"])
        #expect(table.all.map(\.count.value) == [2, 1, 3])
        #expect(table["a"] == 2)
        #expect(table["c"] == nil)
    }

    @Test(
        "a value goes in the first bucket whose bound it does not exceed",
        arguments: [
            (-1.0, 0), (0, 0), (1, 0), (1.000_1, 1), (2, 1), (3, 2), (4, 2), (4.1, 3), (.infinity, 3), (.nan, 3),
        ])
    func bucket(_ value: Double, _ index: Int) {
        var histogram = Histogram(bounds: [1, 2, 4])
        histogram.observe(value)
        #expect(histogram.counts == (0..<4).map { $0 == index ? 1 : 0 })
        #expect(histogram.count == 1)
    }

    @Test("nanoseconds are observed as seconds")
    func nanoseconds() {
        var histogram = Histogram(bounds: [0.5, 2])
        histogram.observe(nanoseconds: 250_000_000)
        histogram.observe(nanoseconds: 1_500_000_000)
        histogram.observe(nanoseconds: 2_000_000_000)
        #expect(histogram.counts == [1, 2, 0])
        #expect(histogram.sum == 3.75)
    }
}

/// The text that `body` writes.
private func text(_ body: (inout Exposition) -> Void) -> String {
    var exposition = Exposition()
    body(&exposition)
    return String(decoding: exposition.text, as: UTF8.self)
}

@Suite("The text format")
struct ExpositionTests {
    @Test("a family has its help and type before its samples")
    func family() {
        let written = text {
            $0.counter("a_total", "Some.", 18_446_744_073_709_551_615)
            $0.begin("b", .gauge, "Others.")
            $0.sample(-3, ["x": "1", "y": "2"])
            $0.sample(4, ["x": "2", "y": "2"])
        }
        #expect(
            written == """
                # HELP a_total Some.
                # TYPE a_total counter
                a_total 18446744073709551615
                # HELP b Others.
                # TYPE b gauge
                b{x="1",y="2"} -3
                b{x="2",y="2"} 4

                """)
    }

    @Test(
        "labels and help are escaped",
        arguments: [
            ("plain", "plain", "plain"), ("a\"b", "a\\\"b", "a\"b"), ("a\\b", "a\\\\b", "a\\\\b"),
            ("a\nb", "a\\nb", "a\\nb"), ("\\n", "\\\\n", "\\\\n"), ("ä 👍🏽", "ä 👍🏽", "ä 👍🏽"),
            ("a\r\nb", "a\r\\nb", "a\r\\nb"),
            ("", "", ""), ("{x=\"1\"} 2", "{x=\\\"1\\\"} 2", "{x=\"1\"} 2"),
        ])
    func escaping(_ raw: String, _ label: String, _ help: String) {
        let written = text {
            $0.begin("a", .gauge, raw)
            $0.sample(1, ["x": raw])
        }
        #expect(written == "# HELP a \(help)\n# TYPE a gauge\na{x=\"\(label)\"} 1\n")
    }

    @Test(
        "numbers are written in a form that Prometheus parses",
        arguments: [
            (0.0, "0"), (1.5, "1.5"), (2, "2"), (0.000_001, "1e-06"), (1e20, "1e+20"), (.infinity, "+Inf"),
            (-.infinity, "-Inf"), (.nan, "NaN"), (0.1, "0.1"), (1_795_447_343.63, "1795447343.63"),
        ])
    func numbers(_ value: Double, _ written: String) {
        #expect(text { $0.gauge("a_seconds", "A.", seconds: value) }.hasSuffix("\na_seconds \(written)\n"))
    }

    @Test("a histogram is cumulative, and its last bucket equals its count")
    func histogram() {
        var histogram = Histogram(bounds: [0.005, 1, 2.5])
        for value in [0.001, 0.25, 0.25, 9] { histogram.observe(value) }
        let written = text {
            $0.histogram("a_seconds", "A.", histogram)
            $0.begin("b_seconds", .histogram, "B.")
            $0.sample(histogram, ["x": "1"])
        }
        #expect(
            written == """
                # HELP a_seconds A.
                # TYPE a_seconds histogram
                a_seconds_bucket{le="0.005"} 1
                a_seconds_bucket{le="1"} 3
                a_seconds_bucket{le="2.5"} 3
                a_seconds_bucket{le="+Inf"} 4
                a_seconds_sum 9.501
                a_seconds_count 4
                # HELP b_seconds B.
                # TYPE b_seconds histogram
                b_seconds_bucket{x="1",le="0.005"} 1
                b_seconds_bucket{x="1",le="1"} 3
                b_seconds_bucket{x="1",le="2.5"} 3
                b_seconds_bucket{x="1",le="+Inf"} 4
                b_seconds_sum{x="1"} 9.501
                b_seconds_count{x="1"} 4

                """)
    }

    @Test("a duplicate series is written once, with its first value")
    func duplicates() {
        let written = text {
            $0.begin("a", .gauge, "A.")
            $0.sample(1, ["x": "1"])
            $0.sample(2, ["x": "1"])
            $0.sample(3)
            $0.sample(4)
            $0.begin("b", .histogram, "B.")
            $0.sample(Histogram(bounds: []))
            $0.sample(Histogram(bounds: []))
            // Another family may have the same labels.
            $0.begin("c", .gauge, "C.")
            $0.sample(5, ["x": "1"])
        }
        #expect(
            written.split(separator: "\n").filter { !$0.hasPrefix("#") } == [
                "a{x=\"1\"} 1", "a 3", "b_bucket{le=\"+Inf\"} 0", "b_sum 0", "b_count 0", "c{x=\"1\"} 5",
            ])
    }

    @Test("an invalid name, label, bound or repeated family traps")
    func traps() async {
        await #expect(processExitsWith: .failure) { _ = text { $0.gauge("a-b", "A.", 1) } }
        await #expect(processExitsWith: .failure) { _ = text { $0.gauge("1a", "A.", 1) } }
        await #expect(processExitsWith: .failure) {
            _ = text {
                $0.gauge("a", "A.", 1)
                $0.gauge("a", "A.", 1)
            }
        }
        for label in ["le", "__x", "a:b", "", "ä"] {
            await #expect(processExitsWith: .failure) { [label = label as String] in
                _ = text {
                    $0.begin("a", .gauge, "A.")
                    $0.sample(1, [label: ""])
                }
            }
        }
        await #expect(processExitsWith: .failure) { _ = Histogram(bounds: [2, 1]) }
    }
}
