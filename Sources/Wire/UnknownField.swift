/// The first field of the object, in alphabetical order, that is not in `known`, or nil. Callers report it, to catch
/// errors such as `limit` for `limits` or `dryrun` for `dry-run`.
package func unknownField(in decoder: any Decoder, known: [String]) throws -> String? {
    try decoder.container(keyedBy: AnyField.self).allKeys.map(\.stringValue).filter { !known.contains($0) }.min()
}

private struct AnyField: CodingKey {
    let stringValue: String
    var intValue: Int? { nil }
    init?(stringValue: String) { self.stringValue = stringValue }
    init?(intValue: Int) { nil }
}
