/* Acceptors and proposers: those of the cluster do the work, a program only keeps an eye on them. */
#include <stdlib.h>

#include "buffer.h"
#include "config.h"
#include "evpaxos/paxos.h"
#include "link.h"

struct evacceptor {
    struct link *link;
};

struct evproposer {
    struct link *link;
};

static void nothing(void *owner)
{
    (void)owner;
}

static enum verdict frame_untrusted(void *owner, const struct head *head,
                                    const unsigned char *body, size_t body_bytes)
{
    (void)owner, (void)head, (void)body, (void)body_bytes;
    return FRAME_BAD;   /* nothing was asked */
}

static const struct link_owner acceptor_owner = {
    .name = "acceptor", .opened = nothing, .frame = frame_untrusted,
};
static const struct link_owner proposer_owner = {
    .name = "proposer", .opened = nothing, .frame = frame_untrusted,
};

/* A connection to one of the addresses, the one with this id first; NULL where there is none. */
static struct link *watch(int id, const char *path, bool acceptor, struct event_base *base)
{
    struct evpaxos_config *config = evpaxos_config_read(path);
    if (!config)
        return NULL;
    const struct link_owner *owner = acceptor ? &acceptor_owner : &proposer_owner;
    const struct addresses *addresses = acceptor ? &config->acceptors : &config->proposers;
    struct link *link = NULL;
    if (id >= 0 && id < addresses->count)
        link = link_new(base, addresses, id, owner, NULL);
    else
        paxos_log_error("%s: there is no %s %d: it names %d", path, owner->name, id,
                        addresses->count);
    if (link)
        paxos_log_info("%s %d: the cluster behind %s does its work", owner->name, id, path);
    evpaxos_config_free(config);
    return link;
}

struct evacceptor *evacceptor_init(int id, const char *config, struct event_base *base)
{
    struct link *link = watch(id, config, true, base);
    if (!link)
        return NULL;
    struct evacceptor *acceptor = must_allocate(sizeof *acceptor);
    acceptor->link = link;
    return acceptor;
}

void evacceptor_free(struct evacceptor *acceptor)
{
    link_free(acceptor->link);
    free(acceptor);
}

struct evproposer *evproposer_init(int id, const char *config, struct event_base *base)
{
    struct link *link = watch(id, config, false, base);
    if (!link)
        return NULL;
    struct evproposer *proposer = must_allocate(sizeof *proposer);
    proposer->link = link;
    return proposer;
}

void evproposer_free(struct evproposer *proposer)
{
    link_free(proposer->link);
    free(proposer);
}

void evproposer_set_instance_id(struct evproposer *proposer, unsigned int iid)
{
    (void)proposer, (void)iid;
}
