/* Values as they are delivered: in order, each once, without a gap, whatever becomes of servers.
 *
 * A server streams from the instance that it is asked for. What comes must follow on what was
 * delivered last; a server that leaves something out is not believed, and another one is asked for
 * what is missing.
 */
#ifndef DELIVERER_H
#define DELIVERER_H

#include <event2/event.h>
#include <stdbool.h>
#include <stdint.h>

#include "config.h"
#include "evpaxos/p4xos.h"
#include "link.h"

struct deliverer;

/* Dials the address `first` of those first. Without `catch_up` it begins with what comes next. */
struct deliverer *deliverer_new(struct event_base *base, const struct addresses *addresses,
                                int first, bool catch_up, deliver_function deliver, void *arg);
/* It may be called inside of the callback, which is then called no more. */
void deliverer_free(struct deliverer *deliverer);

/* Waits so long until it is known where it begins, if it begins with what comes next. */
void deliverer_look_where(struct deliverer *deliverer, double seconds);
/* Calls back once, when it is known where it begins: what is submitted before could be missed. */
void deliverer_when_ready(struct deliverer *deliverer, void (*ready)(void *owner), void *owner);

/* The instance that was delivered last; 0: none. */
uint64_t deliverer_through(const struct deliverer *deliverer);
/* Goes on behind an instance, which may be one that was delivered. */
void deliverer_go_on(struct deliverer *deliverer, uint64_t through);
void deliverer_trim(struct deliverer *deliverer, uint64_t through);

void deliverer_count(const struct deliverer *deliverer, struct p4xos_counters *counters);

#endif
