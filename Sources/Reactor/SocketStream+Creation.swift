internal import CUV

/// Unconnected sockets.
extension SocketStream {
    /// An unconnected TCP socket, for a listener to accept into or a connector to connect.
    static func tcp(loop: EventLoop) throws(UVError) -> SocketStream { try Self.tcp(loop: loop, family: AF_UNSPEC) }

    /// A socket for an address, with segments of at most `largestSegment` bytes.
    static func tcp(
        loop: EventLoop, for address: SocketAddress, largestSegment: Int
    ) throws(UVError) -> SocketStream {
        let stream = try Self.tcp(loop: loop, family: address.family == .ip6 ? AF_INET6 : AF_INET)
        stream.withDescriptor { _ = cuv_largest_segment($0, CInt(clamping: largestSegment)) }
        return stream
    }

    /// - Parameter family: with `AF_UNSPEC` libuv makes the socket itself when it needs one.
    private static func tcp(loop: EventLoop, family: CInt) throws(UVError) -> SocketStream {
        let raw = UnsafeMutablePointer<uv_tcp_t>.allocate(capacity: 1)
        do throws(UVError) { try check(uv_tcp_init_ex(loop.raw, raw, CUnsignedInt(family))) } catch {
            raw.deallocate()
            throw error
        }
        return SocketStream(loop: loop, memory: UnsafeMutableRawPointer(raw), isTCP: true)
    }

    /// An unconnected unix socket.
    static func unix(loop: EventLoop) throws(UVError) -> SocketStream {
        let raw = UnsafeMutablePointer<uv_pipe_t>.allocate(capacity: 1)
        do throws(UVError) { try check(uv_pipe_init(loop.raw, raw, 0)) } catch {
            raw.deallocate()
            throw error
        }
        return SocketStream(loop: loop, memory: UnsafeMutableRawPointer(raw), isTCP: false)
    }
}
