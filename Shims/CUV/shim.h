/* libuv helpers that Swift cannot express: casts between handle structs, and a few socket calls. */
#ifndef DIGLETT_CUV_SHIM_H
#define DIGLETT_CUV_SHIM_H

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/sockios.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>
#include <uv.h>

_Static_assert(UV_VERSION_MAJOR == 1 && UV_VERSION_MINOR >= 44, "libuv 1.44 or later of the 1.x series");

/* Every handle begins with the members of uv_handle_t (libuv, "uv_handle_t"). */
static inline uv_handle_t *cuv_handle(void *h) { return (uv_handle_t *)h; }

static inline uv_tcp_t *cuv_tcp_of_stream(uv_stream_t *h) { return (uv_tcp_t *)h; }
static inline uv_pipe_t *cuv_pipe_of_stream(uv_stream_t *h) { return (uv_pipe_t *)h; }

static inline uv_stream_t *cuv_stream_of_pipe(uv_pipe_t *h) { return (uv_stream_t *)h; }

static inline uv_req_t *cuv_req_of_getaddrinfo(uv_getaddrinfo_t *r) { return (uv_req_t *)r; }

static inline const struct sockaddr *cuv_sockaddr(const struct sockaddr_storage *s) {
    return (const struct sockaddr *)s;
}
static inline struct sockaddr *cuv_sockaddr_mutable(struct sockaddr_storage *s) { return (struct sockaddr *)s; }
static inline struct sockaddr_in *cuv_in4(struct sockaddr_storage *s) { return (struct sockaddr_in *)s; }
static inline struct sockaddr_in6 *cuv_in6(struct sockaddr_storage *s) { return (struct sockaddr_in6 *)s; }

/* Opens a socket that receives a message for each change of this machine's addresses and routes (rtnetlink(7)). Returns
   the descriptor, or a negative error code of libuv. */
static inline int cuv_watch_network(void) {
    struct sockaddr_nl address = {.nl_family = AF_NETLINK,
                                  .nl_groups = RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR | RTMGRP_IPV4_ROUTE |
                                               RTMGRP_IPV6_ROUTE};
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_ROUTE);
    if (fd < 0) return -errno;
    if (bind(fd, (const struct sockaddr *)&address, sizeof address) == 0) return fd;
    int error = -errno;
    close(fd);
    return error;
}

/* Opens a non-blocking unix stream socket and fills in the address of `path`. Returns the descriptor, which the caller
   closes, or a libuv error code. */
static inline int cuv_unix_open(const char *path, struct sockaddr_un *address) {
    *address = (struct sockaddr_un){.sun_family = AF_UNIX};
    size_t length = strlen(path);
    if (length >= sizeof address->sun_path) return UV_ENAMETOOLONG;
    memcpy(address->sun_path, path, length);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    return fd < 0 ? -errno : fd;
}

/* Tests without blocking whether a server listens on `path`. Returns 0 or a libuv error code. */
static inline int cuv_unix_connect(const char *path) {
    struct sockaddr_un address;
    int fd = cuv_unix_open(path, &address);
    if (fd < 0) return fd;
    int code = connect(fd, (const struct sockaddr *)&address, sizeof address) == 0 ? 0 : -errno;
    close(fd);
    return code;
}

/* The peer's process and user IDs (unix(7), SO_PEERCRED). Returns 0 or a libuv error code. Declares its own struct
   because `struct ucred` is a GNU extension, which Swift does not enable. */
static inline int cuv_peer_credentials(int fd, int *process, unsigned *user) {
    struct {
        pid_t pid;
        uid_t uid;
        gid_t gid;
    } peer;
    socklen_t size = sizeof peer;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0) return -errno;
    *process = peer.pid;
    *user = peer.uid;
    return 0;
}

/* glibc declares SOCK_STREAM as an enum; Swift does not import that as the int that getsockopt(2) returns. */
static inline int cuv_stream_type(void) { return SOCK_STREAM; }

/* Opens a non-blocking TCP socket bound to `address`. Returns its descriptor, which the caller closes, or a libuv
   error code. With `only_ip6` a socket on :: accepts no IPv4 connections (ipv6(7), IPV6_V6ONLY). SO_REUSEADDR
   (socket(7)) lets it bind to the port of a server that has just exited. */
static inline int cuv_tcp_socket(const struct sockaddr_storage *address, int only_ip6) {
    int on = 1, is_ip6 = address->ss_family == AF_INET6;
    int fd = socket(address->ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) return -errno;
    socklen_t length = is_ip6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == 0
        && (!is_ip6 || setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &only_ip6, sizeof only_ip6) == 0)
        && bind(fd, (const struct sockaddr *)address, length) == 0)
        return fd;
    int error = errno;
    close(fd);
    return -error;
}

/* Opens a unix socket bound to `path`. Returns its descriptor, which the caller closes, or a libuv error code.
   uv_pipe_bind is not used because it removes the file when the handle closes, even if another process still
   listens. */
static inline int cuv_unix_socket(const char *path) {
    struct sockaddr_un address;
    int fd = cuv_unix_open(path, &address);
    if (fd < 0 || bind(fd, (const struct sockaddr *)&address, sizeof address) == 0) return fd;
    int error = errno;
    close(fd);
    return -error;
}

/* Selects whether close() sends RST and drops queued bytes (socket(7), SO_LINGER with zero timeout), or closes in
   order. Returns 0 or a libuv error code. */
static inline int cuv_reset_on_close(int fd, int on) {
    struct linger l = {.l_onoff = on, .l_linger = 0};
    return setsockopt(fd, SOL_SOCKET, SO_LINGER, &l, sizeof l) == 0 ? 0 : -errno;
}

/* The result of a read at the end of the stream: 0 for the peer's FIN, even if a reset followed it; otherwise a libuv
   error code. */
static inline int cuv_end_error(int fd) {
    char byte;
    if (recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) >= 0) return 0;
    return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR ? 0 : -errno;
}

/* The error that ended the connection, if it was not reported yet, as a libuv code (socket(7), SO_ERROR); otherwise 0.
   poll(2) does not report errors that TCP survives, such as an unreachable network (RFC 1122, 4.2.3.9). EPIPE is
   ignored too: the peer closed in order before it reset. */
static inline int cuv_pending_error(int fd) {
    struct pollfd p = {.fd = fd, .events = 0};
    if (poll(&p, 1, 0) != 1 || !(p.revents & POLLERR)) return 0;
    int error = 0;
    socklen_t size = sizeof error;
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) != 0) return -errno;
    return error == EPIPE ? 0 : -error;
}

/* Whether both directions of a connection have ended (poll(2), POLLHUP). Only buffered bytes are left to read then. */
static inline int cuv_is_hung_up(int fd) {
    struct pollfd p = {.fd = fd, .events = 0};
    return poll(&p, 1, 0) == 1 && (p.revents & POLLHUP);
}

/* Delivers urgent data in its place in the stream (tcp(7), SO_OOBINLINE). Returns 0 or a libuv error code. */
static inline int cuv_urgent_inline(int fd) {
    int on = 1;
    return setsockopt(fd, SOL_SOCKET, SO_OOBINLINE, &on, sizeof on) == 0 ? 0 : -errno;
}

/* Whether the kernel has closed the TCP connection (tcp(7), TCP_INFO): reset, timed out, or both directions ended. */
static inline int cuv_is_closed(int fd) {
    struct tcp_info info;
    socklen_t size = sizeof info;
    return getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size) == 0 && info.tcpi_state == TCP_CLOSE;
}

/* The state of the sending side (tcp(7), TCP_INFO): milliseconds since the last ACK, even one that acknowledged nothing
   new; consecutive retransmission timeouts of the first unacknowledged segment; and the segment size in bytes. */
struct cuv_sending {
    uint32_t since_ack, timeouts, segment;
};
static inline int cuv_sending(int fd, struct cuv_sending *result) {
    struct tcp_info info;
    socklen_t size = sizeof info;
    if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size) != 0) return -errno;
    *result = (struct cuv_sending){info.tcpi_last_ack_recv, info.tcpi_retransmits, info.tcpi_snd_mss};
    return 0;
}

/* Sets the maximum segment size, TCP options included, for both directions (tcp(7), TCP_MAXSEG). Call it before
   connecting. Returns 0 or a libuv error code. */
static inline int cuv_largest_segment(int fd, int bytes) {
    return setsockopt(fd, IPPROTO_TCP, TCP_MAXSEG, &bytes, sizeof bytes) == 0 ? 0 : -errno;
}

/* Bytes in the send queue, including those sent but not yet acknowledged (tcp(7), SIOCOUTQ); 0 on error. */
static inline int cuv_unacknowledged(int fd) {
    int count = 0;
    return ioctl(fd, SIOCOUTQ, &count) == 0 ? count : 0;
}

/* Socket options of tcp(7) and socket(7). TCP_USER_TIMEOUT is in milliseconds, keep-alive times are in seconds, buffer
   limits in bytes. Each returns 0 or a libuv error code. */
static inline int cuv_user_timeout(int fd, unsigned milliseconds) {
    return setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &milliseconds, sizeof milliseconds) == 0 ? 0 : -errno;
}
static inline int cuv_keepalive(int fd, int idle, int interval, int count) {
    int on = 1;
    return setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on) == 0 &&
                   setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof idle) == 0 &&
                   setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof interval) == 0 &&
                   setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof count) == 0
               ? 0
               : -errno;
}
static inline int cuv_receive_buffer(int fd, unsigned bytes) {
    return setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof bytes) == 0 ? 0 : -errno;
}
static inline int cuv_notsent_lowat(int fd, unsigned bytes) {
    return setsockopt(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &bytes, sizeof bytes) == 0 ? 0 : -errno;
}

/* Marks every descriptor from 3 on as close-on-exec, because other libraries open theirs without O_CLOEXEC and the
   process may have inherited some. Returns 0 or a libuv error code. Since Linux 5.11, close_range(2) with
   CLOSE_RANGE_CLOEXEC (4) does it in one call; if that is missing or filtered, /proc/self/fd lists the descriptors
   (proc(5)). */
static inline int cuv_close_all_on_exec(void) {
#ifdef SYS_close_range
    if (syscall(SYS_close_range, 3U, ~0U, 4U) == 0) return 0;
#endif
    DIR *directory = opendir("/proc/self/fd");
    if (!directory) return -errno;
    struct dirent *entry;
    while ((entry = readdir(directory))) {
        int fd = atoi(entry->d_name);
        int flags = fd >= 3 ? fcntl(fd, F_GETFD) : -1;
        if (flags >= 0) (void)fcntl(fd, F_SETFD, flags | FD_CLOEXEC);
    }
    closedir(directory);
    return 0;
}

#endif
