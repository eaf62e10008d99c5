internal import COpenSSL

/// Cryptographically secure random numbers (OpenSSL's CSPRNG, seeded by the kernel). Traps if it fails.
package enum SecureRandom {
    package static func bytes(_ count: Int) -> [UInt8] {
        var result = [UInt8](repeating: 0, count: count)
        let code = RAND_bytes(&result, CInt(count))
        precondition(code == 1, "the system has no randomness")
        return result
    }

    package static func integer() -> UInt64 {
        self.bytes(8).reduce(0) { $0 << 8 | UInt64($1) }
    }
}

/// SHA-256 (FIPS 180-4).
package enum SHA256 {
    package static func hash(_ bytes: [UInt8]) -> [UInt8] {
        var digest = [UInt8](repeating: 0, count: 32)
        let code = EVP_Digest(bytes, bytes.count, &digest, nil, EVP_sha256(), nil)
        precondition(code == 1, "OpenSSL has no SHA-256")
        return digest
    }

    /// HMAC-SHA256 (RFC 2104).
    package static func authenticate(_ bytes: [UInt8], key: [UInt8]) -> [UInt8] {
        var digest = [UInt8](repeating: 0, count: 32)
        var count: UInt32 = 0
        let result = HMAC(EVP_sha256(), key, CInt(key.count), bytes, bytes.count, &digest, &count)
        precondition(result != nil && count == 32, "OpenSSL has no HMAC-SHA256")
        return digest
    }

    /// Compares in constant time, so that timing does not reveal where the values differ.
    package static func isEqual(_ left: [UInt8], _ right: [UInt8]) -> Bool {
        left.count == right.count && CRYPTO_memcmp(left, right, left.count) == 0
    }
}
