/// The field of an object that is none of `known`, or nil: who writes `limit` for `limits`, or `dryrun` for `dry-run`, must
/// hear of it.
package func unknownField(in decoder: any Decoder, known: [String]) throws -> String? {
    try decoder.container(keyedBy: AnyField.self).allKeys.map(\.stringValue).filter { !known.contains($0) }.min()
}

private struct AnyField: CodingKey {
    let stringValue: String
    var intValue: Int? { nil }
    init?(stringValue: String) { self.stringValue = stringValue }
    init?(intValue: Int) { nil }
}
