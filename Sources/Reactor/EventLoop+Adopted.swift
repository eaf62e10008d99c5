import Glibc

extension EventLoop {
    /// Reaps adopted child processes. Call it about once a second.
    ///
    /// Does nothing unless this is process 1, as in a container. Process 1 adopts every process whose parent has
    /// exited, and they remain zombies until it waits for them (pid_namespaces(7)). Programs that this loop has started
    /// are left to libuv, which would otherwise miss their exit.
    package func reapAdopted() {
        guard getpid() == 1 else { return }
        while true {
            var info = siginfo_t()
            guard waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) == 0 else { return }
            let process = info._sifields._sigchld.si_pid
            // libuv will reap its own child soon. Children queued after it can wait for the next call.
            guard process > 0, !self.children.contains(process) else { return }
            waitpid(process, nil, WNOHANG)
        }
    }
}
