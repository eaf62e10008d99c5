internal import FoundationEssentials
internal import Wire

/// Pins as text: `sha256/` and the Base64 of 32 bytes, 44 characters (RFC 7469, section 2.4, with a slash).
package enum PinText {
    private static let prefix = "sha256/"

    /// The error for a text that is not a pin, with the missing part; nil for a pin.
    package static func fault(of text: String) -> String? {
        let shown = "'\(PeerText.escaped(text, atMost: 100))' is not a pin"
        guard text.hasPrefix(self.prefix) else {
            return "\(shown): a pin begins with 'sha256/', as 'diglett-server' and 'diglett key' print it"
        }
        let hash = text.dropFirst(self.prefix.count)
        if hash.utf8.count == 43, !hash.hasSuffix("=") { return "\(shown): the last character '=' is missing" }
        guard hash.utf8.count == 44 else {
            return
                "\(shown): the part after 'sha256/' must have 44 characters, it has \(hash.utf8.count); copy all of it"
        }
        guard let bytes = Data(base64Encoded: String(hash)), bytes.count == 32, bytes.base64EncodedString() == hash
        else { return "\(shown): the part after 'sha256/' is not Base64 of 32 bytes, copy it again" }
        return nil
    }
}
