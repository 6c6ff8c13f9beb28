/* Submitting values and having them delivered, from a libevent loop.
 *
 * The roles are those of the cluster, behind the addresses of paxos.conf. Everything here belongs
 * to one event_base and one thread. A handle may be freed inside of its own callback.
 */
#ifndef EVPAXOS_PAXOS_H
#define EVPAXOS_PAXOS_H

#include <event2/bufferevent.h>
#include <event2/event.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

struct evlearner;
struct evproposer;
struct evacceptor;
struct evpaxos_replica;

/* One value: instances follow each other without a gap. The value is valid until this returns. */
typedef void (*deliver_function)(unsigned int iid, char *value, size_t size, void *arg);

/* A learner that also submits, exactly once. `deliver` may be NULL. NULL is returned where the file
 * is wrong or has no such id. */
struct evpaxos_replica *evpaxos_replica_init(int id, const char *config, deliver_function deliver,
                                             void *arg, struct event_base *base);
void evpaxos_replica_free(struct evpaxos_replica *replica);
void evpaxos_replica_set_instance_id(struct evpaxos_replica *replica, unsigned int iid);
void evpaxos_replica_send_trim(struct evpaxos_replica *replica, unsigned int iid);

/* Has a value chosen once: it is sent again, to another address too, until it is known to be. Waits
 * where P4XOS_PENDING_BYTES_MAX of values are not delivered yet. */
void evpaxos_replica_submit(struct evpaxos_replica *replica, char *value, int size);

/* How many replicas the file has. */
int evpaxos_replica_count(struct evpaxos_replica *replica);

/* Delivers from instance 1 on, or with `learner-catch-up no` what is chosen from now on: it then
 * waits, two seconds at most, until the cluster has told where that is. */
struct evlearner *evlearner_init(const char *config, deliver_function deliver, void *arg,
                                 struct event_base *base);
void evlearner_free(struct evlearner *learner);

/* The state is there through this instance: deliver only what is above it. */
void evlearner_set_instance_id(struct evlearner *learner, unsigned int iid);

/* This learner will never ask for instances up to this one again. */
void evlearner_send_trim(struct evlearner *learner, unsigned int iid);

/* The cluster's acceptors and proposers do the work. These check the file and the id, then keep a
 * connection and log when the cluster cannot be reached. */
struct evacceptor *evacceptor_init(int id, const char *config, struct event_base *base);
void evacceptor_free(struct evacceptor *acceptor);
struct evproposer *evproposer_init(int id, const char *config, struct event_base *base);
void evproposer_free(struct evproposer *proposer);

/* Does nothing: the coordinator learns by itself where the log ends. */
void evproposer_set_instance_id(struct evproposer *proposer, unsigned int iid);

/* Writes a value to a proposer or replica that the program has connected to by itself: it is
 * submitted if it arrives there. Whoever needs it exactly once uses evpaxos_replica_submit. */
void paxos_submit(struct bufferevent *connection, char *value, int size);

#ifdef __cplusplus
}
#endif

#endif
