/// Makes text from a peer safe for log lines and terminals.
package enum PeerText {
    /// Keeps printable ASCII and letters of other scripts, and writes everything else as `\u{XX}`. Text beyond `atMost`
    /// characters is replaced by `…`. A peer therefore cannot forge a line, move the cursor or reverse the text
    /// direction.
    package static func escaped(_ text: String, atMost: Int = 256) -> String {
        var result = ""
        var count = 0
        for scalar in text.unicodeScalars {
            if count == atMost { return result + "…" }
            count += 1
            if scalar.value >= 0x20 && scalar.value < 0x7F && scalar != "\\" {
                result.unicodeScalars.append(scalar)
            } else if scalar.value > 0xA0 && scalar.properties.isAlphabetic {
                result.unicodeScalars.append(scalar)
            } else {
                result += "\\u{" + String(scalar.value, radix: 16, uppercase: true) + "}"
            }
        }
        return result
    }
}
