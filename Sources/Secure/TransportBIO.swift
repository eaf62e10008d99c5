internal import Bytes
internal import COpenSSL

/// Connects OpenSSL to the driver's buffers: reads take bytes from the batch that the socket has just delivered, and
/// writes append to the driver's output queue. Unlike a pair of memory BIOs it owns no buffers.
struct TransportPort {
    var input: UnsafeRawPointer?
    var inputCount = 0
    /// Set only during a call into OpenSSL.
    var output: UnsafeMutablePointer<ByteQueue>?
    /// How many post-handshake messages the peer may still send; nil during the handshake, which OpenSSL itself limits.
    var messagesLeft: Int?
    /// The peer has sent too many post-handshake messages. Further reads fail.
    var isFlooded = false
}

enum TransportBIO {
    /// The address of the BIO_METHOD, which is never freed. All threads can share it because `BIO_new` only reads it
    /// (BIO_meth_new(3)).
    private static let method: UInt = {
        let method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "diglett transport")
        BIO_meth_set_read(method, onRead)
        BIO_meth_set_write(method, onWrite)
        BIO_meth_set_ctrl(method, onControl)
        return UInt(bitPattern: method)
    }()

    /// Creates a BIO on `port`, which must outlive it. The caller owns the BIO.
    static func make(_ port: UnsafeMutablePointer<TransportPort>) -> OpaquePointer? {
        guard let method = OpaquePointer(bitPattern: self.method), let bio = BIO_new(method) else { return nil }
        BIO_set_data(bio, port)
        BIO_set_init(bio, 1)
        return bio
    }
}

private let onRead: @convention(c) (OpaquePointer?, UnsafeMutablePointer<CChar>?, CInt) -> CInt = {
    bio, buffer, count in
    cssl_bio_clear_retry(bio)
    guard let port = BIO_get_data(bio)?.assumingMemoryBound(to: TransportPort.self), let buffer, count > 0 else {
        return -1
    }
    // Without the retry flag, OpenSSL treats this as a fatal error and ends the session.
    guard !port.pointee.isFlooded else { return -1 }
    let taken = min(Int(count), port.pointee.inputCount)
    guard taken > 0, let input = port.pointee.input else {
        cssl_bio_retry_read(bio)
        return -1
    }
    UnsafeMutableRawPointer(buffer).copyMemory(from: input, byteCount: taken)
    port.pointee.input = input + taken
    port.pointee.inputCount -= taken
    return CInt(taken)
}

private let onWrite: @convention(c) (OpaquePointer?, UnsafePointer<CChar>?, CInt) -> CInt = { bio, bytes, count in
    cssl_bio_clear_retry(bio)
    guard let port = BIO_get_data(bio)?.assumingMemoryBound(to: TransportPort.self), count > 0,
        let output = port.pointee.output
    else { return -1 }
    output.pointee.append(UnsafeRawBufferPointer(start: bytes, count: Int(count)))
    return count
}

private let onControl: @convention(c) (OpaquePointer?, CInt, CLong, UnsafeMutableRawPointer?) -> CLong = {
    _, command, _, _ in
    // Writes are never buffered, so a flush always succeeds. No other control command is supported.
    command == BIO_CTRL_FLUSH ? 1 : 0
}
