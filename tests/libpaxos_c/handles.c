/* What programs do with handles, a word each; a test compares what it prints. */
#include <arpa/inet.h>
#include <event2/event.h>
#include <evpaxos.h>
#include <evpaxos/p4xos.h>
#include <paxos.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct event_base *base;
static struct evlearner *learner;
static struct evpaxos_replica *replica;
static bool done;
static unsigned int count;

static void print(unsigned int iid, char *value, size_t size, void *arg)
{
    printf("%u %.*s\n", iid, (int)size, value);
    if (++count >= *(unsigned int *)arg)
        event_base_loopbreak(base);
}

static void free_inside(unsigned int iid, char *value, size_t size, void *arg)
{
    print(iid, value, size, arg);
    if (iid == 3) {
        evlearner_free(learner);
        event_base_loopbreak(base);
    }
}

static void free_replica_inside(unsigned int iid, char *value, size_t size, void *arg)
{
    print(iid, value, size, arg);
    if (iid == 3) {
        evpaxos_replica_free(replica);
        event_base_loopbreak(base);
    }
}

static void go_back(unsigned int iid, char *value, size_t size, void *arg)
{
    print(iid, value, size, arg);
    if (iid == 3 && !done) {
        done = true;
        evlearner_set_instance_id(learner, 1);
    }
}

static void trim_inside(unsigned int iid, char *value, size_t size, void *arg)
{
    evlearner_send_trim(learner, iid);
    print(iid, value, size, arg);
}

static void run_learner(const char *config, deliver_function deliver, unsigned int wanted, int from)
{
    learner = evlearner_init(config, deliver, &wanted, base);
    if (from >= 0)
        evlearner_set_instance_id(learner, (unsigned int)from);
    event_base_dispatch(base);
}

static void show(const char *name, struct sockaddr_in address)
{
    printf("%s %s:%d\n", name, inet_ntoa(address.sin_addr), ntohs(address.sin_port));
}

static void roles(const char *config)
{
    struct evacceptor *acceptor = evacceptor_init(0, config, base);
    struct evproposer *proposer = evproposer_init(1, config, base);
    evproposer_set_instance_id(proposer, 7);
    printf("%d %d %d %d %d\n", acceptor != NULL, proposer != NULL,
           evacceptor_init(99, config, base) != NULL, evproposer_init(-1, config, base) != NULL,
           evpaxos_replica_init(99, config, NULL, NULL, base) != NULL);
    event_base_loop(base, EVLOOP_NONBLOCK);
    evacceptor_free(acceptor);
    evproposer_free(proposer);
    struct evpaxos_config *read = evpaxos_config_read(config);
    if (!read)
        return;
    show("proposer 1", evpaxos_proposer_address(read, 1));
    show("proposer 77", evpaxos_proposer_address(read, 77));
    printf("%d acceptors, the first at %d, quorum %d\n", evpaxos_acceptor_count(read),
           evpaxos_acceptor_listen_port(read, 0), paxos_quorum(evpaxos_acceptor_count(read)));
    evpaxos_config_free(read);
}

static void settings(const char *config)
{
    struct evpaxos_config *read = evpaxos_config_read(config);
    const struct paxos_config *is = &paxos_config;
    printf("%d: %d %d %d %d %d %d %d %d %s %zu\n", read != NULL, (int)is->verbosity,
           is->tcp_nodelay, is->learner_catch_up, is->proposer_timeout,
           is->proposer_preexec_window, (int)is->storage_backend, is->trash_files, is->lmdb_sync,
           is->lmdb_env_path ? is->lmdb_env_path : "-", is->lmdb_mapsize);
    if (read)
        evpaxos_config_free(read);
}

/* A learner, and only then a value, which is delivered before the learner's loop begins. */
static void from_now(const char *config)
{
    char value[] = "of mine";
    unsigned int wanted = 1;
    struct p4xos_counters counters = {0};
    learner = evlearner_init(config, print, &wanted, base);
    struct event_base *other = event_base_new();
    replica = evpaxos_replica_init(0, config, NULL, NULL, other);
    evpaxos_replica_submit(replica, value, (int)strlen(value));
    while (!counters.settled) {
        event_base_loop(other, EVLOOP_ONCE);
        p4xos_replica_counters(replica, &counters);
    }
    evpaxos_replica_free(replica);
    event_base_free(other);
    event_base_dispatch(base);
    evlearner_free(learner);
}

/* More than may be pending, without a turn of the loop. */
static void back_pressure(const char *config)
{
    static char value[1 << 20];
    struct p4xos_counters counters;
    unsigned long most = 0;
    replica = evpaxos_replica_init(0, config, NULL, NULL, base);
    for (int k = 0; k < 24; k++) {
        evpaxos_replica_submit(replica, value, (int)sizeof value - 8);
        p4xos_replica_counters(replica, &counters);
        unsigned long pending = (unsigned long)(counters.submitted - counters.settled);
        most = pending > most ? pending : most;
    }
    evpaxos_replica_submit(replica, value, (int)sizeof value);     /* too long */
    evpaxos_replica_submit(replica, value, -1);
    do {
        event_base_loop(base, EVLOOP_ONCE);
        p4xos_replica_counters(replica, &counters);
    } while (counters.settled + counters.refused < counters.submitted);
    printf("%d settled %d refused %d\n", most <= 17, (int)counters.settled, (int)counters.refused);
    evpaxos_replica_free(replica);
}

int main(int argc, char **argv)
{
    if (argc != 3)
        return 2;
    const char *what = argv[1], *config = argv[2];
    bool base_first = false;
    base = event_base_new();
    paxos_config.verbosity = PAXOS_LOG_QUIET;
    if (!strcmp(what, "free-inside")) {
        run_learner(config, free_inside, 9, -1);
    } else if (!strcmp(what, "free-replica-inside")) {
        unsigned int wanted = 9;
        replica = evpaxos_replica_init(0, config, free_replica_inside, &wanted, base);
        event_base_dispatch(base);
    } else if (!strcmp(what, "go-back")) {
        run_learner(config, go_back, 5, -1);
        evlearner_free(learner);
    } else if (!strcmp(what, "go-on")) {
        run_learner(config, print, 2, 4);
        evlearner_free(learner);
    } else if (!strcmp(what, "trim-inside")) {
        run_learner(config, trim_inside, 6, -1);
        evlearner_free(learner);
    } else if (!strcmp(what, "base-first")) {
        run_learner(config, print, 2, -1);
        event_base_free(base);
        evlearner_free(learner);
        base_first = true;
    } else if (!strcmp(what, "roles")) {
        roles(config);
    } else if (!strcmp(what, "settings")) {
        paxos_config.verbosity = PAXOS_LOG_ERROR;
        settings(config);
    } else if (!strcmp(what, "from-now")) {
        from_now(config);
    } else if (!strcmp(what, "back-pressure")) {
        back_pressure(config);
    } else {
        return 2;
    }
    if (!base_first)
        event_base_free(base);
    return 0;
}
