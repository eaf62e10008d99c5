/// A number with its noun for logs and reports: `1 stream`, `3 streams`.
package func counted(_ number: Int, _ noun: String) -> String { "\(number) \(noun)\(number == 1 ? "" : "s")" }
