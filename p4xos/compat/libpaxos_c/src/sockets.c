#include "sockets.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "paxos.h"

#define KEEPALIVE_IDLE_S 5
#define KEEPALIVE_COUNT 3

static void set_options(int fd)
{
    int on = 1, idle = KEEPALIVE_IDLE_S, tries = KEEPALIVE_COUNT;
    unsigned int unanswered_ms = KEEPALIVE_IDLE_S * (1 + KEEPALIVE_COUNT) * 1000u;
    if (paxos_config.tcp_nodelay)
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    /* A machine that is gone answers nothing, and a learner would wait for it for ever. */
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof idle);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &idle, sizeof idle);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &tries, sizeof tries);
    setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &unanswered_ms, sizeof unanswered_ms);
}

int sockets_connect(const struct sockaddr_in *address)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    set_options(fd);
    if (connect(fd, (const struct sockaddr *)address, sizeof *address) && errno != EINPROGRESS) {
        int reason = errno;
        close(fd);
        errno = reason;
        return -1;
    }
    return fd;
}

int sockets_outcome(int fd)
{
    int error = 0;
    socklen_t bytes = sizeof error;
    return getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &bytes) ? errno : error;
}

const char *sockets_name(const struct sockaddr_in *address, char *text, size_t bytes)
{
    char host[INET_ADDRSTRLEN] = "?";
    inet_ntop(AF_INET, &address->sin_addr, host, sizeof host);
    snprintf(text, bytes, "%s:%d", host, ntohs(address->sin_port));
    return text;
}
