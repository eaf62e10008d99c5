internal import COpenSSL

/// The hash of a public key: SHA-256 of its DER SubjectPublicKeyInfo (RFC 5280, 4.1), as in RFC 7469.
package struct Pin: Hashable, Sendable, CustomStringConvertible {
    /// 32 bytes.
    package let bytes: [UInt8]

    /// Parses `sha256/BASE64`; nil if the text has another form.
    package init?(_ text: String) {
        let prefix = "sha256/"
        // 32 bytes are 44 characters of Base64, the last of them `=`.
        guard text.hasPrefix(prefix), text.utf8.count == prefix.utf8.count + 44, text.hasSuffix("=") else { return nil }
        var decoded = [UInt8](repeating: 0, count: 33)
        let encoded = Array(text.utf8.dropFirst(prefix.utf8.count))
        guard EVP_DecodeBlock(&decoded, encoded, 44) == 33 else { return nil }
        self.bytes = Array(decoded[0..<32])
        // OpenSSL decodes leniently: accept only text that encodes back to itself.
        guard self.description == text else { return nil }
    }

    /// The pin of a certificate's key.
    init?(certificate: OpaquePointer) {
        guard let key = X509_get_X509_PUBKEY(certificate) else { return nil }
        let size = i2d_X509_PUBKEY(key, nil)
        guard size > 0 else { return nil }
        var der = [UInt8](repeating: 0, count: Int(size))
        der.withUnsafeMutableBufferPointer { buffer in
            var out = buffer.baseAddress
            _ = i2d_X509_PUBKEY(key, &out)
        }
        self.bytes = SHA256.hash(der)
    }

    package var description: String {
        var text = [UInt8](repeating: 0, count: 45)
        EVP_EncodeBlock(&text, self.bytes, 32)
        return "sha256/" + String(decoding: text[0..<44], as: UTF8.self)
    }
}
