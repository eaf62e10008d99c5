/// Rows in columns, for people: a header, then each row, cells padded with blanks to the width of their column.
package struct TextTable {
    private var rows: [[String]]

    package init(_ header: [String]) { self.rows = [header] }

    /// - Parameter row: as many cells as the header has.
    package mutating func add(_ row: [String]) { self.rows.append(row) }

    /// Lines without blanks at their ends, and without a newline after the last.
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
