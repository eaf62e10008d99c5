internal import CUV

/// A running name resolution for one address family: getaddrinfo(3) on libuv's thread pool.
package final class Resolver {
    private let loop: EventLoop
    private let request: UnsafeMutablePointer<uv_getaddrinfo_t>
    private var completion: ((Result<[SocketAddress], UVError>) -> Void)?

    /// Resolves `host` and calls `completion` once, never from inside this call. The addresses have port 0 and are in
    /// the resolver's order of preference (RFC 6724).
    static func resolve(
        loop: EventLoop, host: String, family: NameCache.Family,
        completion: @escaping (Result<[SocketAddress], UVError>) -> Void
    ) throws(UVError) -> Resolver {
        try Resolver(loop: loop, host: host, family: family, completion: completion)
    }

    private init(
        loop: EventLoop, host: String, family: NameCache.Family,
        completion: @escaping (Result<[SocketAddress], UVError>) -> Void
    ) throws(UVError) {
        self.loop = loop
        self.request = .allocate(capacity: 1)
        self.completion = completion
        var hints = addrinfo()
        hints.ai_family = family == .six ? AF_INET6 : AF_INET
        hints.ai_socktype = CInt(SOCK_STREAM.rawValue)
        do throws(UVError) { try check(uv_getaddrinfo(loop.raw, self.request, onResolved, host, nil, &hints)) } catch {
            self.request.deallocate()
            throw error
        }
        loop.resolutionCount += 1
        // Balanced in onResolved, which libuv always calls.
        self.request.pointee.data = Unmanaged.passRetained(self).toOpaque()
    }

    fileprivate func resolved(_ status: CInt, _ list: UnsafeMutablePointer<addrinfo>?) {
        self.loop.resolutionCount -= 1
        defer {
            uv_freeaddrinfo(list)
            self.request.deallocate()
        }
        let completion = self.completion
        self.completion = nil
        guard status == 0 else {
            completion?(.failure(UVError(code: status)))
            return
        }
        var addresses: [SocketAddress] = []
        var next = list
        while let entry = next {
            var storage = sockaddr_storage()
            let size = min(Int(entry.pointee.ai_addrlen), MemoryLayout<sockaddr_storage>.size)
            if let source = entry.pointee.ai_addr {
                withUnsafeMutableBytes(of: &storage) {
                    $0.copyMemory(from: UnsafeRawBufferPointer(start: source, count: size))
                }
            }
            if let address = SocketAddress(&storage), !addresses.contains(address) { addresses.append(address) }
            next = entry.pointee.ai_next
        }
        completion?(.success(addresses))
    }

    /// Alternates the address families, starting with the family of the first address.
    package static func alternating(_ addresses: [SocketAddress]) -> [SocketAddress] {
        guard let first = addresses.first else { return [] }
        let preferred = addresses.filter { $0.family == first.family }
        let others = addresses.filter { $0.family != first.family }
        var result: [SocketAddress] = []
        for index in 0..<max(preferred.count, others.count) {
            if index < preferred.count { result.append(preferred[index]) }
            if index < others.count { result.append(others[index]) }
        }
        return result
    }
}

private let onResolved: uv_getaddrinfo_cb = { request, status, list in
    guard let request, let data = request.pointee.data else { return }
    Unmanaged<Resolver>.fromOpaque(data).takeRetainedValue().resolved(status, list)
}
