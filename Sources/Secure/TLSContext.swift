internal import COpenSSL

/// The settings that TLS sessions share: versions, ciphers, identity, trust. TLS 1.3 only (RFC 8446).
package final class TLSContext {
    /// The number of records sent before a key update. RFC 8446, 5.5, allows 2^24.5 with AES-GCM.
    package var recordsPerKey = 1 << 23

    /// Maximum size of a client's certificates in bytes (SSL_CTX_set_max_cert_list(3)). A key's certificate needs less
    /// than 1 KiB, and this limits how much input from unauthenticated peers is parsed.
    package static let maxClientCertificates = 16 * 1024
    /// Maximum size of a server's certificates in bytes. Chains of public authorities have 4 to 10 KiB.
    static let maxServerCertificates = 32 * 1024

    let raw: OpaquePointer
    let isServer: Bool
    let applicationProtocol: String

    /// Creates a context for a gateway.
    ///
    /// A client certificate is requested but not required, and any certificate is accepted. The authenticator
    /// identifies the agent by the certificate's pin.
    package static func server(identity: Identity, applicationProtocol: String) throws(SecurityError) -> TLSContext {
        let context = try TLSContext(isServer: true, applicationProtocol: applicationProtocol)
        try context.use(identity)
        SSL_CTX_set_verify(context.raw, SSL_VERIFY_PEER, nil)
        context.skipVerification()
        cssl_set_max_cert_list(context.raw, Self.maxClientCertificates)
        // RFC 7301, 3.2: refuse a peer that offers only other protocols.
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

    /// Creates a context for an agent.
    ///
    /// - Parameters:
    ///   - identity: the client certificate, if the agent has one.
    ///   - trustsSystemRoots: whether to verify the gateway's certificate against the system's certificate authorities.
    ///     The session only reports the result (``ChannelPeer/system``); the caller decides.
    ///   - authorities: a CA file to use instead of the one in SSL_CERT_FILE.
    package static func client(
        identity: Identity?, trustsSystemRoots: Bool, authorities: String? = nil, applicationProtocol: String
    ) throws(SecurityError) -> TLSContext {
        let context = try TLSContext(isServer: false, applicationProtocol: applicationProtocol)
        if let identity { try context.use(identity) }
        // SSL_VERIFY_NONE: the handshake continues whatever the result. OpenSSL checks the chain from the root down,
        // each date before the next signature, and stops at the first error. The callback makes it continue after an
        // invalid date, so a date error as the final result means that everything else is valid.
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
            // OpenSSL reads single certificates from the directory when it needs them. Loading the bundle file would
            // cost megabytes at every start.
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

    /// The protocol name in ALPN format, preceded by its length. Freed with the context.
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
        // Each side prefers the cipher that is fastest on its CPU. AES-128 is measurably cheaper than AES-256.
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

    /// Disables certificate verification, for peers that are identified only by their pin. OpenSSL then builds no chain
    /// and does not examine certificate contents, which would expose its parsers to unauthenticated peers (as in
    /// CVE-2022-3602). The handshake still proves possession of the key.
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
