internal import COpenSSL

/// What all TLS sessions of a program share: versions, ciphers, identity, trust. TLS 1.3 only (RFC 8446).
package final class TLSContext {
    /// Records that are sent with one key; then a new one is made. RFC 8446, 5.5, allows 2^24.5 with AES-GCM.
    package var recordsPerKey = 1 << 23

    /// Bytes of a client's certificates: a key needs less than 1 KiB, and what strangers may send is parsed
    /// (SSL_CTX_set_max_cert_list(3)).
    package static let maxClientCertificates = 16 * 1024
    /// Bytes of a server's certificates: chains of public authorities have 4 to 10 KiB.
    static let maxServerCertificates = 32 * 1024

    let raw: OpaquePointer
    let isServer: Bool
    let applicationProtocol: String

    /// For a gateway.
    ///
    /// A client certificate is asked for, not demanded, and any is taken: who it belongs to is the authenticator's
    /// question, by its pin.
    package static func server(identity: Identity, applicationProtocol: String) throws(SecurityError) -> TLSContext {
        let context = try TLSContext(isServer: true, applicationProtocol: applicationProtocol)
        try context.use(identity)
        SSL_CTX_set_verify(context.raw, SSL_VERIFY_PEER, nil)
        context.skipVerification()
        cssl_set_max_cert_list(context.raw, Self.maxClientCertificates)
        // RFC 7301, 3.2: a peer that offers other protocols only is refused.
        SSL_CTX_set_alpn_select_cb(
            context.raw,
            { _, out, outLength, offered, offeredLength, argument in
                guard let out, let outLength, let offered, let argument else { return SSL_TLSEXT_ERR_ALERT_FATAL }
                let wanted = argument.assumingMemoryBound(to: UInt8.self)
                var index = 0
                while index < Int(offeredLength) {
                    let length = Int(offered[index])
                    guard index + 1 + length <= Int(offeredLength) else { break }
                    if length == Int(wanted[0]), memcmp(offered + index + 1, wanted + 1, length) == 0 {
                        out.pointee = offered + index + 1
                        outLength.pointee = UInt8(length)
                        return SSL_TLSEXT_ERR_OK
                    }
                    index += 1 + length
                }
                return SSL_TLSEXT_ERR_ALERT_FATAL
            }, context.protocolList)
        return context
    }

    /// For an agent.
    ///
    /// - Parameters:
    ///   - identity: the client certificate, if the agent has one.
    ///   - trustsSystemRoots: whether certificates of the system's authorities are looked up. The outcome is reported
    ///     by the session, which judges nothing by itself.
    ///   - authorities: a file with them instead of the one that SSL_CERT_FILE names.
    package static func client(
        identity: Identity?, trustsSystemRoots: Bool, authorities: String? = nil, applicationProtocol: String
    ) throws(SecurityError) -> TLSContext {
        let context = try TLSContext(isServer: false, applicationProtocol: applicationProtocol)
        if let identity { try context.use(identity) }
        // The handshake goes on whatever the verdict is. OpenSSL checks dates from the authority down, each before the
        // next signature, and stops at the first fault: only if it goes on after a wrong date does a verdict about
        // dates mean that all else is right.
        SSL_CTX_set_verify(
            context.raw, SSL_VERIFY_NONE,
            { isRight, store in
                guard isRight == 0 else { return 1 }
                let error = X509_STORE_CTX_get_error(store)
                return error == X509_V_ERR_CERT_HAS_EXPIRED || error == X509_V_ERR_CERT_NOT_YET_VALID ? 1 : 0
            })
        cssl_set_max_cert_list(context.raw, Self.maxServerCertificates)
        if !trustsSystemRoots {
            context.skipVerification()
        } else {
            // The directory is read certificate by certificate when one is needed; the bundle file would cost
            // megabytes at every start.
            SSL_CTX_set_default_verify_dir(context.raw)
            let named = getenv(X509_get_default_cert_file_env()).map { String(cString: $0) }
            if let file = authorities ?? named {
                try check(SSL_CTX_load_verify_file(context.raw, file), "cannot read \(file)")
            }
        }
        let list = context.protocolList
        guard SSL_CTX_set_alpn_protos(context.raw, list, UInt32(list[0]) + 1) == 0 else {
            throw .last("cannot set the application protocol")
        }
        return context
    }

    /// The protocol's name as ALPN wants it, with its length before it; freed with the context.
    private let protocolList: UnsafeMutablePointer<UInt8>

    private init(isServer: Bool, applicationProtocol: String) throws(SecurityError) {
        guard let raw = SSL_CTX_new(isServer ? TLS_server_method() : TLS_client_method()) else {
            throw .last("cannot make a TLS context")
        }
        let name = Array(applicationProtocol.utf8)
        self.protocolList = .allocate(capacity: name.count + 1)
        self.protocolList.initialize(to: UInt8(name.count))
        for (index, byte) in name.enumerated() { (self.protocolList + 1 + index).initialize(to: byte) }
        self.raw = raw
        self.isServer = isServer
        self.applicationProtocol = applicationProtocol
        try check(cssl_only_tls13(raw), "this OpenSSL has no TLS 1.3")
        cssl_set_mode(raw)
        cssl_set_options(raw)
        // Each end names the cipher first that its processor does best; AES-128 costs measurably less than AES-256.
        let aes = "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384"
        let chacha = "TLS_CHACHA20_POLY1305_SHA256"
        try check(
            SSL_CTX_set_ciphersuites(raw, cssl_has_aes() != 0 ? "\(aes):\(chacha)" : "\(chacha):\(aes)"),
            "cannot set the ciphers")
    }

    deinit {
        SSL_CTX_free(self.raw)
        self.protocolList.deallocate()
    }

    /// Only the pin counts: OpenSSL builds no chain and looks into no certificate of the peer, whose parser would be
    /// open to strangers (as in CVE-2022-3602). Possession of the key is still proven by the handshake.
    private func skipVerification() {
        SSL_CTX_set_cert_verify_callback(
            self.raw,
            { store, _ in
                X509_STORE_CTX_set_error(store, X509_V_ERR_APPLICATION_VERIFICATION)
                return 1
            }, nil)
    }

    private func use(_ identity: Identity) throws(SecurityError) {
        try check(SSL_CTX_use_certificate(self.raw, identity.certificate), "cannot use the certificate")
        try check(SSL_CTX_use_PrivateKey(self.raw, identity.key), "cannot use the key")
        for certificate in identity.chain {
            X509_up_ref(certificate)
            guard cssl_add_chain_certificate(self.raw, certificate) == 1 else {
                X509_free(certificate)
                throw .last("cannot use the certificate chain")
            }
        }
    }
}
