internal import Settings

/// Listening sockets of this machine, as the kernel lists them (proc(5), /proc/net/tcp and /proc/net/unix).
///
/// Unlike a connection, reading the list does not affect a service, not even one that accepts a single connection.
package enum ListeningSockets {
    /// A longer list, more than about 25,000 sockets, is not read, because that would hold up the event loop.
    private static let maxBytes = 4 << 20

    /// Ports with a listener that accepts connections to loopback addresses. Nil if the list is unavailable.
    static func loopbackPorts() -> Set<UInt16>? {
        guard let four = self.text("tcp") else { return nil }
        return self.loopbackPorts(in: four).union(self.text("tcp6").map { self.loopbackPorts(in: $0) } ?? [])
    }

    /// Whether a program listens on a unix socket; nil if unknown. The kernel lists the path that the program used,
    /// which may be another path of the same file. So only a missing file is certain.
    static func hasUnix(path: String) -> Bool? {
        guard FileAccess.exists(path) else { return false }
        return self.text("unix").map { self.hasUnix(path: path, in: $0) } == true ? true : nil
    }

    private static func text(_ kind: String) -> String? {
        (try? FileAccess.read("/proc/self/net/\(kind)", atMost: self.maxBytes)).map {
            String(decoding: $0, as: UTF8.self)
        }
    }

    /// - Parameter list: the text of `/proc/net/tcp` or `tcp6`: after a header, lines with a number, the local address,
    ///   the remote address and the state. Addresses are hexadecimal, in 32-bit words of this machine's byte order.
    package static func loopbackPorts(in list: String) -> Set<UInt16> {
        let listening = "0A"
        var ports: Set<UInt16> = []
        for line in list.utf8.split(separator: UInt8(ascii: "\n")).dropFirst() {
            let fields = line.split(separator: UInt8(ascii: " "), maxSplits: 4)
            guard fields.count > 3, fields[3].elementsEqual(listening.utf8) else { continue }
            let place = fields[1].split(separator: UInt8(ascii: ":"))
            guard place.count == 2, let port = UInt16(String(Substring(place[1])), radix: 16),
                self.takesLoopback(Substring(place[0]))
            else { continue }
            ports.insert(port)
        }
        return ports
    }

    private static func takesLoopback(_ address: Substring) -> Bool {
        let mapped = "0000000000000000FFFF0000"
        let four = address.hasPrefix(mapped) ? address.dropFirst(mapped.count) : address
        // 127.0.0.0/8, whose first byte is the last of the little-endian word.
        if four.count == 8 { return four.hasSuffix("7F") || four == "00000000" }
        return address.allSatisfy { $0 == "0" } || address == "00000000000000000000000001000000"
    }

    /// - Parameter list: the text of `/proc/net/unix`: after a header, lines with seven columns and the path. The
    ///   fourth column has flags; `00010000` marks a listening socket.
    package static func hasUnix(path: String, in list: String) -> Bool {
        list.utf8.split(separator: UInt8(ascii: "\n")).dropFirst().contains { line in
            let fields = line.split(separator: UInt8(ascii: " "), maxSplits: 7)
            return fields.count == 8 && fields[3].elementsEqual("00010000".utf8) && fields[7].elementsEqual(path.utf8)
        }
    }
}
