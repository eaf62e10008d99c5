/// Makes a text that came from a peer fit for a log line or a terminal.
package enum PeerText {
    /// Everything but printable ASCII and letters of other scripts is written as `\u{XX}`, and at most `atMost`
    /// characters are kept: no peer can forge a line, move the cursor or turn the reading direction.
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
