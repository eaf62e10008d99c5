internal import CNotify
internal import Glibc

/// Listening sockets that the service manager has opened or stored for this program (sd_listen_fds(3)). Each can be
/// taken once; `deinit` closes the rest.
///
/// Create it before the program opens any file. If the manager announces more descriptors than it passes, the extra
/// numbers could otherwise be those of our own files.
package final class InheritedSockets {
    /// A listening stream socket.
    package struct Socket: Equatable, Sendable {
        /// FileDescriptorName= of its unit, or FDNAME= of the message that stored it.
        package let name: String
        /// Owned by the caller that took the socket.
        package let descriptor: Int32

        package init(name: String, descriptor: Int32) {
            self.name = name
            self.descriptor = descriptor
        }
    }

    /// SD_LISTEN_FDS_START
    package static let firstDescriptor: Int32 = 3

    private var sockets: [Socket] = []
    /// Descriptors that were missing or of the wrong kind, as messages for the log.
    package private(set) var problems: [String] = []

    /// Takes ownership of the descriptors and makes them close-on-exec. Those that are not listening stream sockets are
    /// closed.
    ///
    /// - Parameters:
    ///   - names: one for each descriptor, in order.
    ///   - first: the number of the first descriptor; the others follow it.
    package init(names: [String] = [], first: Int32 = InheritedSockets.firstDescriptor) {
        var missing = 0
        defer {
            if missing > 0 {
                self.problems.append("\(missing) of \(names.count) announced inherited descriptors are not open")
            }
        }
        for (index, name) in names.enumerated() {
            let descriptor = first + Int32(index)
            let flags = fcntl(descriptor, F_GETFD)
            guard flags >= 0 else {
                missing += 1
                continue
            }
            _ = fcntl(descriptor, F_SETFD, flags | FD_CLOEXEC)
            guard cnotify_is_listening(descriptor) != 0 else {
                self.problems.append(
                    "the inherited descriptor \(descriptor) ('\(name)') is not a listening stream socket and was closed"
                )
                Glibc.close(descriptor)
                continue
            }
            self.sockets.append(Socket(name: name, descriptor: descriptor))
        }
    }

    deinit { _ = self.closeRest() }

    /// Removes and returns the sockets with this name. The caller owns them.
    package func take(_ name: String) -> [Socket] { self.take(where: { $0 == name }) }

    /// Removes and returns the sockets whose names fit. The caller owns them.
    package func take(where fits: (_ name: String) -> Bool) -> [Socket] {
        let taken = self.sockets.filter { fits($0.name) }
        self.sockets.removeAll { fits($0.name) }
        return taken
    }

    /// Closes the sockets that were not taken.
    ///
    /// - Returns: their names.
    package func closeRest() -> [String] {
        let rest = self.sockets
        self.sockets = []
        for socket in rest { Glibc.close(socket.descriptor) }
        return rest.map(\.name)
    }
}
