import FoundationEssentials
internal import Settings
internal import Wire

/// A hook's answer, version 1 of the schema (`docs/hooks.schema.json`).
///
/// Unknown fields are errors: a hook that misspells `limits` as `limit` must not admit agents without limits.
package struct HookAnswer: Decodable, Equatable {
    struct Limits: Decodable, Equatable {
        let links: Int?
        let names: Int?
        let streams: Int?

        private enum CodingKeys: String, CodingKey, CaseIterable { case links, names, streams }

        init(from decoder: any Decoder) throws {
            try HookAnswer.refuseOthers(than: CodingKeys.allCases.map(\.rawValue), in: decoder, "limits.")
            let fields = try decoder.container(keyedBy: CodingKeys.self)
            func limit(_ key: CodingKeys) throws -> Int? {
                guard let number = try fields.decodeIfPresent(Int.self, forKey: key) else { return nil }
                // The same range as in the agents file.
                guard (1...65_535).contains(number) else {
                    throw HookFailure("answered with a bad 'limits.\(key.rawValue)': it must be 1 to 65535")
                }
                return number
            }
            self.links = try limit(.links)
            self.names = try limit(.names)
            self.streams = try limit(.streams)
        }
    }

    let version: Int?
    package let ok: Bool
    /// Reason of a refusal, for the log.
    package let reason: String?
    package let identity: String?
    let limits: Limits?
    /// Each range is written as `30000-30010` or `30000`.
    let ports: [ClosedRange<UInt16>]?

    private enum CodingKeys: String, CodingKey, CaseIterable { case version, ok, reason, identity, limits, ports }

    package init(from decoder: any Decoder) throws {
        let fields = try decoder.container(keyedBy: CodingKeys.self)
        self.version = try fields.decodeIfPresent(Int.self, forKey: .version)
        // The fields of other versions, and their meaning, are unknown.
        guard self.version ?? 1 == 1 else {
            throw HookFailure("answered with schema version \(self.version ?? 0) instead of 1")
        }
        try Self.refuseOthers(than: CodingKeys.allCases.map(\.rawValue), in: decoder)
        self.ok = try fields.decode(Bool.self, forKey: .ok)
        self.reason = try fields.decodeIfPresent(String.self, forKey: .reason)
        self.identity = try fields.decodeIfPresent(String.self, forKey: .identity)
        self.limits = try fields.decodeIfPresent(Limits.self, forKey: .limits)
        self.ports = try fields.decodeIfPresent([String].self, forKey: .ports)?.map { text in
            guard let range = try? PortRange(text, place: "ports") else {
                throw HookFailure("answered with '\(PeerText.escaped(text))' in 'ports', which is not a port range")
            }
            return range.low...range.high
        }
    }

    private static func refuseOthers(than known: [String], in decoder: any Decoder, _ prefix: String = "") throws {
        if let other = try unknownField(in: decoder, known: known) {
            throw HookFailure("answered with an unknown field: '\(prefix)\(PeerText.escaped(other))'")
        }
    }

    /// Parses exactly one JSON object. On failure, the text describes the error.
    package static func parse(_ bytes: [UInt8]) -> Result<HookAnswer, HookFailure> {
        do { return .success(try JSONDecoder().decode(HookAnswer.self, from: Data(bytes))) } catch let failure
            as HookFailure
        {
            return .failure(failure)
        } catch {
            let shown = PeerText.escaped(String(decoding: bytes.prefix(80), as: UTF8.self))
            return .failure(
                HookFailure(
                    bytes.isEmpty ? "sent an empty answer" : "sent an answer that is not valid JSON: '\(shown)'"))
        }
    }
}
