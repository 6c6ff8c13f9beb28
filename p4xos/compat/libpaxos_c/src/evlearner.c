#include <stdlib.h>

#include "buffer.h"
#include "config.h"
#include "deliverer.h"
#include "evpaxos/p4xos.h"

#define LOOK_S 2.0      /* a cluster that answers does so within milliseconds */

struct evlearner {
    struct deliverer *deliverer;
};

struct evlearner *evlearner_init(const char *config, deliver_function deliver, void *arg,
                                 struct event_base *base)
{
    struct evpaxos_config *read = evpaxos_config_read(config);
    if (!read)
        return NULL;
    struct evlearner *learner = must_allocate(sizeof *learner);
    learner->deliverer = deliverer_new(base, &read->acceptors, 0, paxos_config.learner_catch_up,
                                       deliver, arg);
    /* Programs submit on a connection of their own as soon as this has returned, and count on
     * seeing that delivered. */
    deliverer_look_where(learner->deliverer, LOOK_S);
    evpaxos_config_free(read);
    return learner;
}

void evlearner_free(struct evlearner *learner)
{
    deliverer_free(learner->deliverer);
    free(learner);
}

void evlearner_set_instance_id(struct evlearner *learner, unsigned int iid)
{
    p4xos_learner_set_instance(learner, iid);
}

void evlearner_send_trim(struct evlearner *learner, unsigned int iid)
{
    p4xos_learner_trim(learner, iid);
}

uint64_t p4xos_learner_instance(const struct evlearner *learner)
{
    return deliverer_through(learner->deliverer);
}

void p4xos_learner_set_instance(struct evlearner *learner, uint64_t through)
{
    deliverer_go_on(learner->deliverer, through);
}

void p4xos_learner_trim(struct evlearner *learner, uint64_t through)
{
    deliverer_trim(learner->deliverer, through);
}

void p4xos_learner_counters(const struct evlearner *learner, struct p4xos_counters *counters)
{
    *counters = (struct p4xos_counters){0};
    deliverer_count(learner->deliverer, counters);
}
