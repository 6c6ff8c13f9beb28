#include <stdlib.h>

#include "buffer.h"
#include "config.h"
#include "deliverer.h"
#include "evpaxos/p4xos.h"
#include "submitter.h"

struct evpaxos_replica {
    struct submitter *submitter;
    struct deliverer *deliverer;        /* NULL: without a callback nobody looks */
    int count;
};

struct evpaxos_replica *evpaxos_replica_init(int id, const char *config, deliver_function deliver,
                                             void *arg, struct event_base *base)
{
    struct evpaxos_config *read = evpaxos_config_read(config);
    if (!read)
        return NULL;
    struct evpaxos_replica *replica = NULL;
    if (id < 0 || id >= read->replicas.count) {
        paxos_log_error("%s: there is no replica %d: it names %d", config, id, read->replicas.count);
    } else {
        replica = must_allocate(sizeof *replica);
        *replica = (struct evpaxos_replica){.count = read->replicas.count};
        replica->submitter = submitter_new(base, &read->replicas);
        if (deliver)
            replica->deliverer = deliverer_new(base, &read->replicas, id,
                                               paxos_config.learner_catch_up, deliver, arg);
        if (deliver && !paxos_config.learner_catch_up) {
            submitter_hold(replica->submitter);
            deliverer_when_ready(replica->deliverer, submitter_begin, replica->submitter);
        }
    }
    evpaxos_config_free(read);
    return replica;
}

void evpaxos_replica_free(struct evpaxos_replica *replica)
{
    submitter_free(replica->submitter);
    if (replica->deliverer)
        deliverer_free(replica->deliverer);
    free(replica);
}

void evpaxos_replica_set_instance_id(struct evpaxos_replica *replica, unsigned int iid)
{
    p4xos_replica_set_instance(replica, iid);
}

void evpaxos_replica_send_trim(struct evpaxos_replica *replica, unsigned int iid)
{
    p4xos_replica_trim(replica, iid);
}

void evpaxos_replica_submit(struct evpaxos_replica *replica, char *value, int size)
{
    if (size < 0)
        paxos_log_error("a value cannot have %d bytes: it is not submitted", size);
    else
        submitter_submit(replica->submitter, value, (size_t)size);
}

int evpaxos_replica_count(struct evpaxos_replica *replica)
{
    return replica->count;
}

uint64_t p4xos_replica_instance(const struct evpaxos_replica *replica)
{
    return replica->deliverer ? deliverer_through(replica->deliverer) : 0;
}

void p4xos_replica_set_instance(struct evpaxos_replica *replica, uint64_t through)
{
    if (replica->deliverer)
        deliverer_go_on(replica->deliverer, through);
}

void p4xos_replica_trim(struct evpaxos_replica *replica, uint64_t through)
{
    if (replica->deliverer)
        deliverer_trim(replica->deliverer, through);
}

void p4xos_replica_counters(const struct evpaxos_replica *replica, struct p4xos_counters *counters)
{
    *counters = (struct p4xos_counters){0};
    submitter_count(replica->submitter, counters);
    if (replica->deliverer)
        deliverer_count(replica->deliverer, counters);
}
