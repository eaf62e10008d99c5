/* One datagram to a unix socket, with a descriptor if need be: cmsg(3) is made of macros, which Swift cannot use. */
#ifndef DIGLETT_CNOTIFY_SHIM_H
#define DIGLETT_CNOTIFY_SHIM_H

#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/un.h>

/* What a sun_path can hold, the zero behind a path included (unix(7)). */
static inline size_t cnotify_longest_name(void) { return sizeof((struct sockaddr_un *)0)->sun_path - 1; }

/* A socket for datagrams that never waits: its descriptor, or a negative errno. */
static inline int cnotify_socket(void) {
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    return fd >= 0 ? fd : -errno;
}

/* Sends to a path, or to an abstract name when its first byte is zero. A descriptor below zero is none.
   0 or a negative errno. */
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
    /* The zero behind a path counts; an abstract name is what its length says. */
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

/* Whether it is a stream socket that listens; 0 also when it is no socket at all. */
static inline int cnotify_is_listening(int fd) {
    int type = 0, listens = 0;
    socklen_t size = sizeof type;
    if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) != 0 || type != SOCK_STREAM) return 0;
    size = sizeof listens;
    return getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &size) == 0 && listens;
}

#endif
