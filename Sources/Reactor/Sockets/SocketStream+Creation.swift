internal import CUV

/// Unconnected sockets.
extension SocketStream {
    /// A TCP socket to accept or connect with.
    static func tcp(loop: EventLoop) throws(UVError) -> SocketStream { try Self(tcp: loop, family: AF_UNSPEC) }

    /// A TCP socket for the family of `address` with a maximum segment size of `largestSegment` bytes.
    static func tcp(
        loop: EventLoop, for address: SocketAddress, largestSegment: Int
    ) throws(UVError) -> SocketStream {
        let stream = try Self(tcp: loop, family: address.family == .ip6 ? AF_INET6 : AF_INET)
        stream.withDescriptor { _ = cuv_largest_segment($0, CInt(clamping: largestSegment)) }
        return stream
    }

    static func unix(loop: EventLoop) throws(UVError) -> SocketStream { try Self(unix: loop) }
}
