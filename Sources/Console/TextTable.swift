/// A table for people: a header and rows, with cells padded with blanks to the width of their column.
package struct TextTable {
    private var rows: [[String]]

    package init(_ header: [String]) { self.rows = [header] }

    /// - Parameter row: must have as many cells as the header.
    package mutating func add(_ row: [String]) { self.rows.append(row) }

    /// Lines without trailing blanks, and without a newline after the last one.
    package var text: String {
        let widths = self.rows[0].indices.map { column in self.rows.map { $0[column].count }.max() ?? 0 }
        return self.rows.map { row in
            var line = ""
            var blanks = 0
            for (cell, width) in zip(row, widths) {
                if !cell.isEmpty {
                    line += String(repeating: " ", count: blanks) + cell
                    blanks = 0
                }
                blanks += width - cell.count + 2
            }
            return line
        }.joined(separator: "\n")
    }
}
