/// Removes secrets from errors: these quote arguments, and a secret may have been given in the wrong place.
package enum Secrets {
    /// Replaces everything that looks like a token: the secret of `dgl_NAME_SECRET` and `dgl1_NAME_SECRET`, and the
    /// text before the `@` of `diglett://TOKEN@HOST`.
    package static func hidden(in text: String) -> String { self.withoutTokens(self.withoutUsers(text)) }

    private static func withoutUsers(_ text: String) -> String {
        var result = ""
        var rest = text[...]
        while let scheme = rest.firstRange(of: "diglett://") {
            result += rest[..<scheme.upperBound]
            rest = rest[scheme.upperBound...]
            let word = rest.prefix { !$0.isWhitespace && $0 != "'" }
            // Advice contains the word TOKEN itself.
            if let at = word.lastIndex(of: "@"), word[..<at] != "TOKEN" {
                result += "***"
                rest = rest[at...]
            }
        }
        return result + rest
    }

    private static func withoutTokens(_ text: String) -> String {
        var result = ""
        var rest = text[...]
        while let prefix = ["dgl_", "dgl1_"].compactMap({ rest.firstRange(of: $0) }).min(by: {
            $0.lowerBound < $1.lowerBound
        }) {
            result += rest[..<prefix.upperBound]
            rest = rest[prefix.upperBound...]
            let name = rest.prefix { $0.isLetter || $0.isNumber || $0 == "-" }
            guard rest[name.endIndex...].first == "_" else { continue }
            let secret = rest[name.endIndex...].prefix {
                // The characters of base64url, base64 and percent escapes.
                $0.isLetter || $0.isNumber || "_-+/=%~.".contains($0)
            }
            result += "\(name)_***"
            rest = rest[secret.endIndex...]
        }
        return result + rest
    }
}
