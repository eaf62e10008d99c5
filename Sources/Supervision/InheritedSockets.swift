internal import CNotify
internal import Glibc

/// Listening sockets that the service manager has opened or kept for us (sd_listen_fds(3)). Each is given out once.
///
/// Make it before the program opens anything: where a manager announces more than it hands over, the numbers would be
/// those of files of our own.
package final class InheritedSockets {
    /// A listening stream socket.
    package struct Socket: Equatable, Sendable {
        /// FileDescriptorName= of its unit, or FDNAME= of the message that stored it.
        package let name: String
        /// Belongs to whoever has taken the socket.
        package let descriptor: Int32

        package init(name: String, descriptor: Int32) {
            self.name = name
            self.descriptor = descriptor
        }
    }

    /// SD_LISTEN_FDS_START
    package static let firstDescriptor: Int32 = 3

    private var sockets: [Socket] = []
    /// What was closed at once, in words.
    package private(set) var problems: [String] = []

    /// Takes over the descriptors and keeps children from having them. What is no listening stream socket is closed.
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

    /// The sockets of a name, which belong to the caller from here on.
    package func take(_ name: String) -> [Socket] { self.take(where: { $0 == name }) }

    /// The sockets whose names fit.
    package func take(where fits: (_ name: String) -> Bool) -> [Socket] {
        let taken = self.sockets.filter { fits($0.name) }
        self.sockets.removeAll { fits($0.name) }
        return taken
    }

    /// Closes what nobody has taken.
    ///
    /// - Returns: the names.
    package func closeRest() -> [String] {
        let rest = self.sockets
        self.sockets = []
        for socket in rest { Glibc.close(socket.descriptor) }
        return rest.map(\.name)
    }
}
