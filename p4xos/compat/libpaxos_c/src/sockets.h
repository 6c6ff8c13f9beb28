/* TCP connections to servers. */
#ifndef SOCKETS_H
#define SOCKETS_H

#include <netinet/in.h>
#include <stddef.h>

/* Begins to connect, without waiting; -1: errno says why it cannot. */
int sockets_connect(const struct sockaddr_in *address);
/* What became of it: 0, or an errno. */
int sockets_outcome(int fd);

/* HOST:PORT, for the log. */
const char *sockets_name(const struct sockaddr_in *address, char *text, size_t bytes);

#endif
