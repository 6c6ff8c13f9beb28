/* paxos.conf as it was read. */
#ifndef CONFIG_H
#define CONFIG_H

#include <netinet/in.h>
#include <stdbool.h>

#include "evpaxos/config.h"
#include "paxos.h"

struct addresses {
    struct sockaddr_in at[MAX_N_OF_PROPOSERS];
    int count;
};

struct evpaxos_config {
    struct addresses proposers, acceptors, replicas;    /* replicas are in all three */
};

#endif
