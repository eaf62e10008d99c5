internal import Bytes
internal import COpenSSL

/// Between OpenSSL and the driver's buffers: reads come from the batch that the socket has just delivered, writes are
/// appended to the driver's outgoing queue. Unlike a pair of memory BIOs it owns no buffer.
struct TransportPort {
    var input: UnsafeRawPointer?
    var inputCount = 0
    /// Set only while a call into OpenSSL is running.
    var output: UnsafeMutablePointer<ByteQueue>?
    /// Handshake messages that the peer may still send after the handshake; nil during the handshake, which OpenSSL
    /// bounds by itself.
    var messagesLeft: Int?
    /// The peer has sent more of them: nothing more is read.
    var isFlooded = false
}

enum TransportBIO {
    /// The address of the BIO's method, which is never freed. `BIO_new` only reads it (BIO_meth_new(3)), so all threads
    /// share it.
    private static let method: UInt = {
        let method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "diglett transport")
        BIO_meth_set_read(method, onRead)
        BIO_meth_set_write(method, onWrite)
        BIO_meth_set_ctrl(method, onControl)
        return UInt(bitPattern: method)
    }()

    /// A BIO on `port`, which must outlive it.
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
    // Without the flag to try again this ends the session.
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
    // Whatever is written is on its way at once; there is nothing else to control.
    command == BIO_CTRL_FLUSH ? 1 : 0
}
