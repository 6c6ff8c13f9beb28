/* Settings, log, values. */
#include "paxos.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <time.h>

#include "buffer.h"

#define STAMP_BYTES 32

struct paxos_config paxos_config = {
    .verbosity = PAXOS_LOG_INFO,
    .tcp_nodelay = 1,
    .learner_catch_up = 1,
    .proposer_timeout = 1,
    .proposer_preexec_window = 128,
    .storage_backend = PAXOS_MEM_STORAGE,
    .lmdb_mapsize = 10 << 20,
};

int paxos_quorum(int acceptors)
{
    return acceptors / 2 + 1;
}

paxos_value *paxos_value_new(const char *value, size_t size)
{
    paxos_value *fresh = must_allocate(sizeof *fresh);
    fresh->paxos_value_len = (int)size;
    fresh->paxos_value_val = must_allocate(size);
    if (size)
        memcpy(fresh->paxos_value_val, value, size);
    return fresh;
}

void paxos_value_free(paxos_value *value)
{
    free(value->paxos_value_val);
    free(value);
}

void paxos_log(int level, const char *format, va_list arguments)
{
    char stamp[STAMP_BYTES];
    struct timeval now;
    struct tm local;
    if (level > (int)paxos_config.verbosity)
        return;
    gettimeofday(&now, NULL);
    localtime_r(&now.tv_sec, &local);
    strftime(stamp, sizeof stamp, "%Y-%m-%d %H:%M:%S", &local);
    printf("%s.%03ld ", stamp, (long)now.tv_usec / 1000);
    vprintf(format, arguments);
    putchar('\n');
    fflush(stdout);
}

#define LOG_AT(level)                                                                              \
    va_list arguments;                                                                             \
    va_start(arguments, format);                                                                   \
    paxos_log(level, format, arguments);                                                           \
    va_end(arguments)

void paxos_log_error(const char *format, ...) { LOG_AT(PAXOS_LOG_ERROR); }
void paxos_log_info(const char *format, ...) { LOG_AT(PAXOS_LOG_INFO); }
void paxos_log_debug(const char *format, ...) { LOG_AT(PAXOS_LOG_DEBUG); }
