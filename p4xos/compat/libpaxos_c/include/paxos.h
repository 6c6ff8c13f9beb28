/* What programs use of libpaxos beside evpaxos.h: its settings, its log, its values. */
#ifndef PAXOS_H
#define PAXOS_H

#include <stdarg.h>
#include <stdint.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef uint32_t iid_t;
typedef uint32_t ballot_t;

typedef struct paxos_value {
    int paxos_value_len;
    char *paxos_value_val;
} paxos_value;

typedef enum {
    PAXOS_LOG_QUIET = 0,
    PAXOS_LOG_ERROR = 1,
    PAXOS_LOG_INFO = 2,
    PAXOS_LOG_DEBUG = 3
} paxos_log_level;

typedef enum {
    PAXOS_MEM_STORAGE = 0,
    PAXOS_LMDB_STORAGE = 1
} paxos_storage_backend;

/* Set from the file by evpaxos_config_read and every *_init; what the file does not name stays as a
 * program has set it. verbosity, tcp_nodelay and learner_catch_up matter here; the rest is the
 * cluster's affair, and is only checked. */
struct paxos_config {
    paxos_log_level verbosity;
    int tcp_nodelay;
    int learner_catch_up;
    int proposer_timeout;
    int proposer_preexec_window;
    paxos_storage_backend storage_backend;
    int trash_files;
    int lmdb_sync;
    char *lmdb_env_path;
    size_t lmdb_mapsize;
};

extern struct paxos_config paxos_config;

/* Addresses of one kind that a file may have. */
#define MAX_N_OF_PROPOSERS 10

int paxos_quorum(int acceptors);
paxos_value *paxos_value_new(const char *value, size_t size);
void paxos_value_free(paxos_value *value);

/* To standard output, a line each, up to paxos_config.verbosity. */
void paxos_log(int level, const char *format, va_list arguments);
void paxos_log_error(const char *format, ...) __attribute__((format(printf, 1, 2)));
void paxos_log_info(const char *format, ...) __attribute__((format(printf, 1, 2)));
void paxos_log_debug(const char *format, ...) __attribute__((format(printf, 1, 2)));

#ifdef __cplusplus
}
#endif

#endif
