internal import COpenSSL

/// A key pair on secp256k1 (SEC 2, 2.4.1). Protocol version 1 generates a new one for each connection.
struct Version1KeyPair: ~Copyable {
    /// Size of a compressed point in bytes (SEC 1, 2.3.3).
    static let publicKeySize = 33
    private static let fieldSize = 32

    private let group: OpaquePointer
    private let secret: OpaquePointer
    /// The compressed public point.
    let publicKey: [UInt8]

    init() throws(SecurityError) {
        guard let group = EC_GROUP_new_by_curve_name(NID_secp256k1) else { throw .last("OpenSSL has no secp256k1") }
        guard let secret = BN_secure_new(), let order = EC_GROUP_get0_order(group) else {
            EC_GROUP_free(group)
            throw .last("no memory for a key")
        }
        // Uniformly distributed from 1 to order - 1. Zero is redrawn; its probability is about 2^-256.
        repeat {
            guard BN_priv_rand_range(secret, order) == 1 else {
                BN_clear_free(secret)
                EC_GROUP_free(group)
                throw .last("cannot make a key")
            }
        } while BN_is_zero(secret) == 1
        try self.init(group: group, secret: secret)
    }

    /// For test vectors.
    ///
    /// - Parameter secret: a big-endian number from 1 to the curve's order - 1.
    init(secret bytes: [UInt8]) throws(SecurityError) {
        guard let group = EC_GROUP_new_by_curve_name(NID_secp256k1) else { throw .last("OpenSSL has no secp256k1") }
        guard let secret = BN_bin2bn(bytes, CInt(bytes.count), nil) else {
            EC_GROUP_free(group)
            throw .last("no memory for a key")
        }
        try self.init(group: group, secret: secret)
    }

    /// Takes ownership of `group` and `secret`, even if it throws.
    private init(group: OpaquePointer, secret: OpaquePointer) throws(SecurityError) {
        // Makes OpenSSL multiply in constant time (BN_set_flags(3)).
        BN_set_flags(secret, BN_FLG_CONSTTIME)
        var key = [UInt8](repeating: 0, count: Self.publicKeySize)
        let point = EC_POINT_new(group)
        defer { EC_POINT_free(point) }
        let isMade =
            point != nil && EC_POINT_mul(group, point, secret, nil, nil, nil) == 1
            && EC_POINT_point2oct(group, point, POINT_CONVERSION_COMPRESSED, &key, key.count, nil) == key.count
        guard isMade else {
            BN_clear_free(secret)
            EC_GROUP_free(group)
            throw .last("cannot make a key")
        }
        self.group = group
        self.secret = secret
        self.publicKey = key
    }

    deinit {
        BN_clear_free(self.secret)
        EC_GROUP_free(self.group)
    }

    /// Returns SHA-512 of the two coordinates of the shared point, each as 32 big-endian bytes. The digest holds the
    /// 32-byte key, the cipher's 16-byte initial state and 16 unused bytes.
    ///
    /// - Throws: if `peer` is not a point on the curve. No further check is needed, because the curve has prime order.
    func sharedDigest(with peer: [UInt8]) throws(SecurityError) -> [UInt8] {
        let theirs = EC_POINT_new(self.group)
        let shared = EC_POINT_new(self.group)
        let x = BN_secure_new()
        let y = BN_secure_new()
        defer {
            EC_POINT_free(theirs)
            EC_POINT_clear_free(shared)
            BN_clear_free(x)
            BN_clear_free(y)
        }
        guard let theirs, let shared, let x, let y else { throw .last("no memory for a key") }
        guard peer.count == Self.publicKeySize, EC_POINT_oct2point(self.group, theirs, peer, peer.count, nil) == 1,
            EC_POINT_is_on_curve(self.group, theirs, nil) == 1
        else { throw .last("the peer's key is not a point on the curve") }
        var coordinates = [UInt8](repeating: 0, count: 2 * Self.fieldSize)
        var digest = [UInt8](repeating: 0, count: 64)
        defer { coordinates.withUnsafeMutableBytes { OPENSSL_cleanse($0.baseAddress, $0.count) } }
        let isDone =
            EC_POINT_mul(self.group, shared, nil, theirs, self.secret, nil) == 1
            && EC_POINT_get_affine_coordinates(self.group, shared, x, y, nil) == 1
            && coordinates.withUnsafeMutableBytes { bytes in
                let base = bytes.baseAddress?.assumingMemoryBound(to: UInt8.self)
                return BN_bn2binpad(x, base, CInt(Self.fieldSize)) == Self.fieldSize
                    && BN_bn2binpad(y, base.map { $0 + Self.fieldSize }, CInt(Self.fieldSize)) == Self.fieldSize
            }
            && EVP_Digest(coordinates, coordinates.count, &digest, nil, EVP_sha512(), nil) == 1
        guard isDone else { throw .last("cannot agree on a key") }
        return digest
    }
}

/// The key stream of one direction: OpenSSL's ChaCha20, whose 16-byte initial state is a little-endian block counter
/// and a nonce (EVP_chacha20(3)).
final class Version1Cipher {
    private let raw: OpaquePointer

    init(digest: [UInt8]) throws(SecurityError) {
        guard let raw = EVP_CIPHER_CTX_new() else { throw .last("no memory for a cipher") }
        let isReady = digest.withUnsafeBufferPointer { bytes in
            EVP_EncryptInit_ex(raw, EVP_chacha20(), nil, bytes.baseAddress, bytes.baseAddress.map { $0 + 32 }) == 1
        }
        guard isReady else {
            EVP_CIPHER_CTX_free(raw)
            throw .last("OpenSSL has no ChaCha20")
        }
        self.raw = raw
    }

    deinit {
        EVP_CIPHER_CTX_free(self.raw)
    }

    /// Encrypts or decrypts `input` into the first bytes of `output`; both are the same operation.
    func apply(_ input: UnsafeRawBufferPointer, to output: UnsafeMutableRawBufferPointer) throws(SecurityError) {
        precondition(output.count >= input.count && input.count <= Int(CInt.max), "the output is too small")
        guard input.count > 0 else { return }
        var count: CInt = 0
        let code = EVP_EncryptUpdate(
            self.raw, output.baseAddress?.assumingMemoryBound(to: UInt8.self), &count,
            input.baseAddress?.assumingMemoryBound(to: UInt8.self), CInt(input.count))
        guard code == 1, count == input.count else { throw .last("cannot encrypt") }
    }
}
