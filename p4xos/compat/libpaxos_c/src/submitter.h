/* Values on their way into the log, each exactly once.
 *
 * Values that are submitted in one turn of the loop travel in one frame. A frame has the client, a
 * random number, and counts up from 1: by these two the cluster knows it again. It is kept until
 * its answer comes and sent again, unchanged, on every new connection; what folds the log takes it
 * once. So load makes its own batches: while ASKED_MAX frames have no answer, the rest gathers.
 */
#ifndef SUBMITTER_H
#define SUBMITTER_H

#include <event2/event.h>
#include <stddef.h>
#include <stdint.h>

#include "config.h"
#include "evpaxos/p4xos.h"
#include "link.h"

struct submitter;

struct submitter *submitter_new(struct event_base *base, const struct addresses *addresses);
void submitter_free(struct submitter *submitter);

/* Nothing leaves between these two, and nobody waits. */
void submitter_hold(struct submitter *submitter);
void submitter_begin(void *submitter);

/* Takes a value; waits while more than P4XOS_PENDING_BYTES_MAX have no answer, until a signal. */
void submitter_submit(struct submitter *submitter, const void *value, size_t bytes);

void submitter_count(const struct submitter *submitter, struct p4xos_counters *counters);

#endif
