import Glibc

extension EventLoop {
    /// Reaps processes that this one has adopted; call it about once a second.
    ///
    /// As process 1, in a container for instance, it inherits every process whose parent has ended, and they stay zombies
    /// until it waits for them (pid_namespaces(7)). Programs that this loop has started are left to libuv, which would
    /// miss their end.
    package func reapAdopted() {
        guard getpid() == 1 else { return }
        while true {
            var info = siginfo_t()
            guard waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) == 0 else { return }
            let process = info._sifields._sigchld.si_pid
            // libuv is about to reap its own; what comes after it has time until the next call.
            guard process > 0, !self.children.contains(process) else { return }
            waitpid(process, nil, WNOHANG)
        }
    }
}
