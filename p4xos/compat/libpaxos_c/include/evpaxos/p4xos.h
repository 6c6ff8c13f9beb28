/* What P4xos tells besides; a program written for libpaxos needs none of it. */
#ifndef EVPAXOS_P4XOS_H
#define EVPAXOS_P4XOS_H

#include <evpaxos/paxos.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Of values submitted and not known to be delivered, beyond which evpaxos_replica_submit waits. */
#define P4XOS_PENDING_BYTES_MAX (16 << 20)

struct p4xos_counters {
    uint64_t delivered;      /* values handed to the callback */
    uint64_t submitted;      /* values taken */
    uint64_t settled;        /* of them, known to be delivered */
    uint64_t unknown;        /* of them, whose session the cluster dropped: nobody knows */
    uint64_t refused;        /* of them, that the cluster does not take; the log says why */
    uint64_t sent_again;     /* frames of values */
    uint64_t connections;    /* that were made and greeted */
    uint64_t lost;           /* connections that ended or could not be made */
    uint64_t bad_frames;     /* connections closed because of what came: never believed */
};

void p4xos_replica_counters(const struct evpaxos_replica *replica, struct p4xos_counters *counters);
void p4xos_learner_counters(const struct evlearner *learner, struct p4xos_counters *counters);

/* Instances have 64 bits here; libpaxos' interface tells and takes the lower 32 of them. */
uint64_t p4xos_replica_instance(const struct evpaxos_replica *replica);     /* delivered through */
void p4xos_replica_set_instance(struct evpaxos_replica *replica, uint64_t through);
void p4xos_replica_trim(struct evpaxos_replica *replica, uint64_t through);
uint64_t p4xos_learner_instance(const struct evlearner *learner);
void p4xos_learner_set_instance(struct evlearner *learner, uint64_t through);
void p4xos_learner_trim(struct evlearner *learner, uint64_t through);

#ifdef __cplusplus
}
#endif

#endif
