/* Sends a datagram to a unix socket, optionally with a descriptor. In C because Swift cannot use the cmsg(3) macros. */
#ifndef DIGLETT_CNOTIFY_SHIM_H
#define DIGLETT_CNOTIFY_SHIM_H

#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/un.h>

/* The longest path or abstract name in bytes. One byte of sun_path is reserved for a path's terminating zero
   (unix(7)). */
static inline size_t cnotify_longest_name(void) { return sizeof((struct sockaddr_un *)0)->sun_path - 1; }

/* Opens a non-blocking datagram socket. Returns its descriptor, which the caller closes, or a negative errno. */
static inline int cnotify_socket(void) {
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    return fd >= 0 ? fd : -errno;
}

/* Sends `text` to a path, or to an abstract name if the first byte of `name` is zero. A negative `descriptor` means
   that none is attached; an attached one stays open. Returns 0 or a negative errno. */
static inline int cnotify_send(int fd, const void *name, size_t name_length, const void *text, size_t size,
                               int descriptor) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (name_length == 0 || name_length > cnotify_longest_name()) return -EINVAL;
    memcpy(address.sun_path, name, name_length);
    struct iovec part = {.iov_base = (void *)text, .iov_len = size};
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(sizeof(int))];
    } control;
    memset(&control, 0, sizeof control);
    /* The address length includes a path's terminating zero; an abstract name has no terminator. */
    int is_path = address.sun_path[0] != 0;
    struct msghdr message = {
        .msg_name = &address,
        .msg_namelen = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + name_length + (is_path ? 1 : 0)),
        .msg_iov = &part,
        .msg_iovlen = 1,
    };
    if (descriptor >= 0) {
        message.msg_control = &control;
        message.msg_controllen = sizeof control.room;
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(header), &descriptor, sizeof descriptor);
    }
    ssize_t sent;
    do sent = sendmsg(fd, &message, MSG_NOSIGNAL);
    while (sent < 0 && errno == EINTR);
    return sent >= 0 ? 0 : -errno;
}

/* Whether the descriptor is a listening stream socket; 0 if it is not a socket. */
static inline int cnotify_is_listening(int fd) {
    int type = 0, listens = 0;
    socklen_t size = sizeof type;
    if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) != 0 || type != SOCK_STREAM) return 0;
    size = sizeof listens;
    return getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &size) == 0 && listens;
}

#endif
