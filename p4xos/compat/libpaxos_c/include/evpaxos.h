/* The interface of libpaxos on P4xos: what a program includes, and all of it. */
#ifndef EVPAXOS_H
#define EVPAXOS_H

#include <evpaxos/config.h>
#include <evpaxos/paxos.h>

#endif
