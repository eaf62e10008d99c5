internal import COpenSSL

/// A key and its certificates in PEM form. Unlike ``Identity`` it is `Sendable`: another thread can load its own copy.
package struct IdentityPEM: Sendable {
    fileprivate let key: [UInt8]
    fileprivate let certificates: [UInt8]
}

/// A private key and its certificate chain.
package final class Identity {
    let key: OpaquePointer
    let certificate: OpaquePointer
    /// Intermediate certificates towards a public root, if the file contained any.
    let chain: [OpaquePointer]
    /// The pin of the public key.
    package let pin: Pin

    private init(key: OpaquePointer, certificate: OpaquePointer, chain: [OpaquePointer] = []) throws(SecurityError) {
        self.key = key
        self.certificate = certificate
        self.chain = chain
        guard let pin = Pin(certificate: certificate) else { throw .last("the certificate has no usable key") }
        self.pin = pin
    }

    deinit {
        EVP_PKEY_free(self.key)
        X509_free(self.certificate)
        for certificate in self.chain { X509_free(certificate) }
    }

    /// Creates a P-256 key and a self-signed certificate. The certificate is valid for 100 years: peers identify it by
    /// its pin, so an expiry date would only break them one day.
    package static func selfSigned(commonName: String) throws(SecurityError) -> Identity {
        guard let key = cssl_make_p256_key() else { throw .last("cannot make a key") }
        guard let certificate = X509_new() else {
            EVP_PKEY_free(key)
            throw .last("cannot make a certificate")
        }
        X509_set_version(certificate, 2)
        // 63 random bits: the serial number must be positive (RFC 5280, 4.1.2.2).
        ASN1_INTEGER_set_uint64(X509_get_serialNumber(certificate), SecureRandom.integer() >> 1)
        X509_gmtime_adj(X509_getm_notBefore(certificate), -86_400)
        X509_time_adj_ex(X509_getm_notAfter(certificate), 36_500, 0, nil)
        let name = X509_get_subject_name(certificate)
        X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_UTF8, commonName, -1, -1, 0)
        X509_set_issuer_name(certificate, name)
        X509_set_pubkey(certificate, key)
        let identity = try Identity(key: key, certificate: certificate)
        guard X509_sign(certificate, key, EVP_sha256()) > 0 else { throw .last("cannot sign the certificate") }
        return identity
    }

    /// Loads a private key without a passphrase, and a certificate chain. The first certificate must belong to the key.
    package static func load(keyPEM: [UInt8], certificatePEM: [UInt8]) throws(SecurityError) -> Identity {
        // The default callback would prompt for a passphrase on the terminal; this one returns none.
        guard let key = withBIO(keyPEM, { PEM_read_bio_PrivateKey($0, nil, { _, _, _, _ in 0 }, nil) }) else {
            throw .last("no private key in PEM format, or it has a passphrase")
        }
        let certificates = withBIO(certificatePEM) { bio in
            var list: [OpaquePointer] = []
            while let certificate = PEM_read_bio_X509(bio, nil, nil, nil) { list.append(certificate) }
            return list
        }
        ERR_clear_error()
        guard let first = certificates.first else {
            EVP_PKEY_free(key)
            throw SecurityError("no certificate in PEM format")
        }
        let identity = try Identity(key: key, certificate: first, chain: Array(certificates.dropFirst()))
        try check(X509_check_private_key(first, key), "the key does not belong to the certificate")
        return identity
    }

    /// The number of certificates in a CA file.
    package static func certificateCount(inPEM pem: [UInt8]) -> Int {
        let count = withBIO(pem) { bio in
            var count = 0
            while let certificate = PEM_read_bio_X509(bio, nil, nil, nil) {
                X509_free(certificate)
                count += 1
            }
            return count
        }
        ERR_clear_error()
        return count
    }

    /// The start of the certificate's validity in seconds since 1970; nil if the date is invalid.
    package var begins: Int64? { seconds(of: X509_get0_notBefore(self.certificate)) }

    /// The end of the certificate's validity in seconds since 1970; nil if the date is invalid. Issuer certificates are
    /// not considered, because peers may use other ones.
    package var expires: Int64? { seconds(of: X509_get0_notAfter(self.certificate)) }

    /// Whether the certificate is its own issuer, that is, not issued by a certificate authority.
    package var isSelfIssued: Bool {
        X509_NAME_cmp(X509_get_subject_name(self.certificate), X509_get_issuer_name(self.certificate)) == 0
    }

    /// Whether the certificate is valid for a host, given as a DNS name or an IP address.
    package func names(_ host: String) -> Bool {
        X509_check_host(self.certificate, host, host.utf8.count, 0, nil) == 1
            || X509_check_ip_asc(self.certificate, host, 0) == 1
    }

    /// Whether both identities present the same certificate chain.
    package func isSame(as other: Identity) -> Bool {
        let (mine, others) = ([self.certificate] + self.chain, [other.certificate] + other.chain)
        return mine.count == others.count && zip(mine, others).allSatisfy { X509_cmp($0, $1) == 0 }
    }

    package var keyPEM: [UInt8] {
        written { PEM_write_bio_PrivateKey($0, self.key, nil, nil, 0, nil, nil) }
    }

    package var certificatePEM: [UInt8] {
        written { PEM_write_bio_X509($0, self.certificate) }
    }

    /// The key and the whole certificate chain.
    package var pem: IdentityPEM {
        let chain = self.chain.map { certificate in written { PEM_write_bio_X509($0, certificate) } }
        return IdentityPEM(key: self.keyPEM, certificates: self.certificatePEM + chain.joined())
    }

    package static func load(_ pem: IdentityPEM) throws(SecurityError) -> Identity {
        try .load(keyPEM: pem.key, certificatePEM: pem.certificates)
    }
}

/// Seconds since 1970; nil if the time is missing or invalid.
func seconds(of time: UnsafePointer<ASN1_TIME>?) -> Int64? {
    guard let time else { return nil }
    let seconds = cssl_seconds(time)
    return seconds == .min ? nil : seconds
}

private func withBIO<R>(_ bytes: [UInt8], _ body: (OpaquePointer?) -> R) -> R {
    bytes.withUnsafeBytes { raw in
        let bio = BIO_new_mem_buf(raw.baseAddress, CInt(raw.count))
        defer { BIO_free(bio) }
        return body(bio)
    }
}

private func written(_ body: (OpaquePointer?) -> CInt) -> [UInt8] {
    let bio = BIO_new(BIO_s_mem())
    defer { BIO_free(bio) }
    guard body(bio) == 1 else { return [] }
    var result = [UInt8](repeating: 0, count: BIO_ctrl_pending(bio))
    let count = BIO_read(bio, &result, CInt(result.count))
    return Array(result.prefix(Int(max(count, 0))))
}
