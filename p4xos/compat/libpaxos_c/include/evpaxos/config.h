/* paxos.conf, for programs that connect by themselves. */
#ifndef EVPAXOS_CONFIG_H
#define EVPAXOS_CONFIG_H

#include <netinet/in.h>

#ifdef __cplusplus
extern "C" {
#endif

struct evpaxos_config;

/* Reads the file and sets paxos_config (paxos.h). NULL where it cannot be read or is wrong: what is
 * wrong is logged with its line and column. */
struct evpaxos_config *evpaxos_config_read(const char *path);
void evpaxos_config_free(struct evpaxos_config *config);

/* The i-th proposer, or acceptor, in the order of the file; replicas are both. One that is not
 * there is address 0.0.0.0, port 0, and an error is logged. */
struct sockaddr_in evpaxos_proposer_address(struct evpaxos_config *config, int i);
int evpaxos_proposer_listen_port(struct evpaxos_config *config, int i);
int evpaxos_acceptor_count(struct evpaxos_config *config);
struct sockaddr_in evpaxos_acceptor_address(struct evpaxos_config *config, int i);
int evpaxos_acceptor_listen_port(struct evpaxos_config *config, int i);

#ifdef __cplusplus
}
#endif

#endif
