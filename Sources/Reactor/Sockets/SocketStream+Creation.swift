internal import CUV

/// Unconnected sockets.
extension SocketStream {
    /// For a listener to accept into or a connector to connect.
    static func tcp(loop: EventLoop) throws(UVError) -> SocketStream { try Self(tcp: loop, family: AF_UNSPEC) }

    /// A socket for an address, with segments of at most `largestSegment` bytes.
    static func tcp(
        loop: EventLoop, for address: SocketAddress, largestSegment: Int
    ) throws(UVError) -> SocketStream {
        let stream = try Self(tcp: loop, family: address.family == .ip6 ? AF_INET6 : AF_INET)
        stream.withDescriptor { _ = cuv_largest_segment($0, CInt(clamping: largestSegment)) }
        return stream
    }

    static func unix(loop: EventLoop) throws(UVError) -> SocketStream { try Self(unix: loop) }
}
