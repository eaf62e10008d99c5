/// Errors in the payload of a frame.
package enum WireError: Error, Equatable, Sendable {
    /// The payload ends before or inside this field.
    case truncated(StaticField)
    /// Bytes follow the last field.
    case trailing
    /// HELLO does not start with `DGL2`.
    case badMagic
    /// A text is not UTF-8, or longer than allowed.
    case badText(StaticField)
    /// A field has a value that is not allowed.
    case badValue(StaticField)
}

/// The name of a field in an error.
package enum StaticField: String, Sendable {
    case magic, versions, window, streams, method, instanceKey, run, token, linkID, names, exposure, kind, port, name
    case code, text, limit, address, opaque, retryAfter, reserved, extensionField
    case sessionID, epoch, handled, proof
}

/// Reads big-endian fields in order, never past the end.
package struct ByteReader: ~Escapable {
    private let bytes: RawSpan
    private var offset: Int

    @_lifetime(copy bytes)
    package init(_ bytes: RawSpan) {
        self.bytes = bytes
        self.offset = 0
    }

    package var remaining: Int { self.bytes.byteCount - self.offset }

    package mutating func integer<T: FixedWidthInteger & BitwiseCopyable>(_ field: StaticField) throws(WireError) -> T {
        guard self.remaining >= MemoryLayout<T>.size else { throw .truncated(field) }
        let value = unsafe self.bytes.unsafeLoadUnaligned(fromByteOffset: self.offset, as: T.self)
        self.offset += MemoryLayout<T>.size
        return T(bigEndian: value)
    }

    package mutating func array(_ count: Int, _ field: StaticField) throws(WireError) -> [UInt8] {
        guard count >= 0, self.remaining >= count else { throw .truncated(field) }
        var result: [UInt8] = []
        result.reserveCapacity(count)
        for index in self.offset..<(self.offset + count) {
            result.append(unsafe self.bytes.unsafeLoad(fromByteOffset: index, as: UInt8.self))
        }
        self.offset += count
        return result
    }

    /// Reads a UTF-8 text of `count` bytes. Throws `badText` if there are more than `atMost`, or if they are not UTF-8.
    package mutating func text(_ count: Int, atMost: Int, _ field: StaticField) throws(WireError) -> String {
        guard count <= atMost else { throw .badText(field) }
        let bytes = try self.array(count, field)
        guard let text = String(validating: bytes, as: UTF8.self) else { throw .badText(field) }
        return text
    }

    /// Reads type-length-value fields to the end of the payload. Calls `body` for each; `body` ignores unknown types.
    package mutating func extensions(
        _ body: (_ type: UInt16, _ value: [UInt8]) throws(WireError) -> Void
    ) throws(WireError) {
        while self.remaining > 0 {
            let type: UInt16 = try self.integer(.extensionField)
            let length: UInt16 = try self.integer(.extensionField)
            try body(type, try self.array(Int(length), .extensionField))
        }
    }

    /// Throws `trailing` if bytes are left.
    package func end() throws(WireError) {
        guard self.remaining == 0 else { throw .trailing }
    }
}
