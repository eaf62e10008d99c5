internal import CUV

/// An error of libuv or the operating system, identified by its (negative) libuv code.
package struct UVError: Error, Hashable, Sendable, CustomStringConvertible {
    package let code: CInt

    package init(code: CInt) { self.code = code }

    /// The peer's host refused the connection.
    package static let connectionRefused = UVError(code: UV_ECONNREFUSED.rawValue)
    /// The peer reset the connection.
    package static let connectionReset = UVError(code: UV_ECONNRESET.rawValue)
    /// The other end no longer reads.
    package static let brokenPipe = UVError(code: UV_EPIPE.rawValue)
    package static let timedOut = UVError(code: UV_ETIMEDOUT.rawValue)
    package static let cancelled = UVError(code: UV_ECANCELED.rawValue)
    package static let addressInUse = UVError(code: UV_EADDRINUSE.rawValue)
    package static let addressNotAvailable = UVError(code: UV_EADDRNOTAVAIL.rawValue)
    package static let permissionDenied = UVError(code: UV_EACCES.rawValue)
    package static let noSuchFile = UVError(code: UV_ENOENT.rawValue)
    package static let nameTooLong = UVError(code: UV_ENAMETOOLONG.rawValue)
    package static let invalidArgument = UVError(code: UV_EINVAL.rawValue)
    /// The process has no file descriptor left.
    package static let tooManyFiles = UVError(code: UV_EMFILE.rawValue)
    /// This machine does not support the address family.
    package static let familyNotSupported = UVError(code: UV_EAFNOSUPPORT.rawValue)

    /// Whether it is a name resolution error (`UV_EAI_*`).
    package var isResolution: Bool {
        self.code <= UV_EAI_ADDRFAMILY.rawValue && self.code >= UV_EAI_SOCKTYPE.rawValue - 2
    }

    /// Whether the resolver answered that the name has no address of this family. Other resolution errors are failures
    /// of the resolver.
    package var isNoSuchName: Bool { self.code == UV_EAI_NONAME.rawValue || self.code == UV_EAI_NODATA.rawValue }

    /// libuv's text for the code, for example `connection refused`.
    package var description: String { String(cString: uv_strerror(self.code)) }
}

/// Returns a non-negative libuv return code; throws a negative one as ``UVError``.
@discardableResult
func check(_ code: CInt) throws(UVError) -> CInt {
    guard code >= 0 else { throw UVError(code: code) }
    return code
}
