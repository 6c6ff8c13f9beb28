/* Keeps values outstanding and tells how many a second are delivered, and how late.
 *
 *   measure CONFIG [--outstanding N] [--size BYTES] [--seconds S] [--warm-up S]
 *                  [--through replica|proposer] [--id N]
 *
 * Of libpaxos' interface only: with `--through proposer` it is the same program on both. Prints a
 * line of JSON.
 */
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <evpaxos.h>
#include <getopt.h>
#include <netinet/tcp.h>
#include <paxos.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <time.h>

#define VALUE_BYTES_MOST (1 << 16)
#define NUMBERS_MAX (1u << 28)      /* a bit each */
#define STALLED_S 2                 /* a proposer takes values, and may lose them */

/* At the beginning of each value. */
struct stamp {
    uint64_t run;                   /* whose it is */
    uint64_t number;
    uint64_t sent_ns;
};

struct measure {
    const char *config;
    int outstanding, size, id;
    double seconds, warm_up;
    bool through_proposer;

    struct event_base *base;
    struct evpaxos_replica *replica;
    struct evlearner *learner;
    struct bufferevent *proposer;

    uint64_t run, next_number, started_ns, ended_ns;
    uint32_t *latencies_us;
    size_t count, capacity;         /* of them */
    unsigned char *seen;            /* a bit a number */
    size_t count_before;            /* when it was last looked whether any came */
    uint64_t twice, stalls;
    bool measuring;
    char value[VALUE_BYTES_MOST];
};

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void *allocated(void *memory)
{
    if (memory)
        return memory;
    fputs("measure: no memory\n", stderr);
    exit(1);
}

static void submit(struct measure *m)
{
    struct stamp stamp = {m->run, m->next_number++, now_ns()};
    if (m->next_number >= NUMBERS_MAX) {
        event_base_loopbreak(m->base);
        return;
    }
    memcpy(m->value, &stamp, sizeof stamp);
    if (m->through_proposer)
        paxos_submit(m->proposer, m->value, m->size);
    else
        evpaxos_replica_submit(m->replica, m->value, m->size);
}

static void on_deliver(unsigned int iid, char *value, size_t size, void *arg)
{
    struct measure *m = arg;
    struct stamp stamp;
    (void)iid;
    if (size < sizeof stamp)
        return;
    memcpy(&stamp, value, sizeof stamp);
    if (stamp.run != m->run || stamp.number >= m->next_number)
        return;
    unsigned char *seen = &m->seen[stamp.number / 8], bit = (unsigned char)(1u << stamp.number % 8);
    if (*seen & bit) {
        m->twice++;
        return;
    }
    *seen |= bit;
    if (m->measuring) {
        if (m->count == m->capacity) {
            m->capacity = m->capacity ? 2 * m->capacity : 1 << 16;
            m->latencies_us = allocated(realloc(m->latencies_us, m->capacity * sizeof(uint32_t)));
        }
        m->latencies_us[m->count++] = (uint32_t)((now_ns() - stamp.sent_ns) / 1000);
    }
    submit(m);
}

static void begin(struct measure *m)
{
    for (int k = 0; k < m->outstanding; k++)
        submit(m);
}

static void on_connection(struct bufferevent *connection, short what, void *arg)
{
    (void)connection;
    if (what & BEV_EVENT_CONNECTED) {
        begin(arg);
    } else {
        fputs("measure: the connection to the proposer is lost\n", stderr);
        event_base_loopbreak(((struct measure *)arg)->base);
    }
}

static void on_warm(evutil_socket_t fd, short what, void *arg)
{
    struct measure *m = arg;
    (void)fd, (void)what;
    m->measuring = true;
    m->started_ns = now_ns();
}

static void on_look(evutil_socket_t fd, short what, void *arg)
{
    struct measure *m = arg;
    (void)fd, (void)what;
    if (m->measuring && m->count == m->count_before && m->through_proposer) {
        m->stalls++;
        begin(m);
    }
    m->count_before = m->count;
}

static void on_end(evutil_socket_t fd, short what, void *arg)
{
    (void)fd, (void)what;
    event_base_loopbreak(arg);
}

static bool start_proposer(struct measure *m)
{
    int on = 1;
    struct evpaxos_config *config = evpaxos_config_read(m->config);
    if (!config)
        return false;
    struct sockaddr_in address = evpaxos_proposer_address(config, m->id);
    evpaxos_config_free(config);
    m->learner = evlearner_init(m->config, on_deliver, m, m->base);
    if (!m->learner)
        return false;
    m->proposer = bufferevent_socket_new(m->base, -1, BEV_OPT_CLOSE_ON_FREE);
    bufferevent_setcb(m->proposer, NULL, NULL, on_connection, m);
    bufferevent_enable(m->proposer, EV_READ | EV_WRITE);
    if (bufferevent_socket_connect(m->proposer, (struct sockaddr *)&address, sizeof address))
        return false;
    setsockopt(bufferevent_getfd(m->proposer), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    return true;
}

static bool start_replica(struct measure *m)
{
    m->replica = evpaxos_replica_init(m->id, m->config, on_deliver, m, m->base);
    if (!m->replica)
        return false;
    begin(m);
    return true;
}

static int by_size(const void *a, const void *b)
{
    uint32_t left = *(const uint32_t *)a, right = *(const uint32_t *)b;
    return (left > right) - (left < right);
}

static uint32_t percentile(const struct measure *m, double part)
{
    return m->count ? m->latencies_us[(size_t)(part * (double)(m->count - 1))] : 0;
}

static double mean(const struct measure *m)
{
    double sum = 0;
    for (size_t k = 0; k < m->count; k++)
        sum += m->latencies_us[k];
    return m->count ? sum / (double)m->count : 0;
}

static void report(struct measure *m)
{
    double seconds = m->measuring ? (double)(m->ended_ns - m->started_ns) * 1e-9 : 0;
    if (m->count)
        qsort(m->latencies_us, m->count, sizeof *m->latencies_us, by_size);
    printf("{\"outstanding\": %d, \"size\": %d, \"values_s\": %.0f, \"mean_us\": %.0f, "
           "\"p50_us\": %u, \"p90_us\": %u, \"p99_us\": %u, \"values\": %zu, "
           "\"twice\": %llu, \"stalls\": %llu}\n",
           m->outstanding, m->size, seconds > 0 ? (double)m->count / seconds : 0,
           mean(m), percentile(m, 0.5), percentile(m, 0.9), percentile(m, 0.99), m->count,
           (unsigned long long)m->twice, (unsigned long long)m->stalls);
}

static struct timeval in_seconds(double seconds)
{
    struct timeval time = {.tv_sec = (time_t)seconds};
    time.tv_usec = (suseconds_t)((seconds - (double)time.tv_sec) * 1e6);
    return time;
}

static bool parse(struct measure *m, int argc, char **argv)
{
    static const struct option options[] = {
        {"outstanding", required_argument, NULL, 'o'}, {"size", required_argument, NULL, 's'},
        {"seconds", required_argument, NULL, 't'},     {"warm-up", required_argument, NULL, 'w'},
        {"through", required_argument, NULL, 'p'},     {"id", required_argument, NULL, 'i'},
        {0},
    };
    for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        switch (option) {
        case 'o': m->outstanding = atoi(optarg); break;
        case 's': m->size = atoi(optarg); break;
        case 't': m->seconds = atof(optarg); break;
        case 'w': m->warm_up = atof(optarg); break;
        case 'p': m->through_proposer = strcmp(optarg, "proposer") == 0; break;
        case 'i': m->id = atoi(optarg); break;
        default: return false;
        }
    }
    if (optind != argc - 1)
        return false;
    m->config = argv[optind];
    return m->outstanding > 0 && m->seconds > 0 && m->warm_up >= 0
        && m->size >= (int)sizeof(struct stamp) && m->size <= VALUE_BYTES_MOST;
}

int main(int argc, char **argv)
{
    struct measure *m = allocated(calloc(1, sizeof *m));
    *m = (struct measure){.outstanding = 100, .size = 64, .seconds = 5, .warm_up = 1};
    if (!parse(m, argc, argv)) {
        fprintf(stderr, "usage: measure CONFIG [--outstanding N] [--size BYTES, from %zu] "
                "[--seconds S] [--warm-up S] [--through replica|proposer] [--id N]\n",
                sizeof(struct stamp));
        return 2;
    }
    m->seen = allocated(calloc(NUMBERS_MAX / 8, 1));
    if (getrandom(&m->run, sizeof m->run, 0) != sizeof m->run)
        return 1;
    signal(SIGPIPE, SIG_IGN);
    m->base = event_base_new();
    paxos_config.learner_catch_up = 0;
    paxos_config.verbosity = PAXOS_LOG_ERROR;

    struct event *warm = evtimer_new(m->base, on_warm, m);
    struct event *end = evtimer_new(m->base, on_end, m->base);
    struct event *look = event_new(m->base, -1, EV_PERSIST, on_look, m);
    struct timeval warm_after = in_seconds(m->warm_up);
    struct timeval end_after = in_seconds(m->warm_up + m->seconds);
    evtimer_add(warm, &warm_after);
    evtimer_add(end, &end_after);
    event_add(look, &(struct timeval){STALLED_S, 0});
    bool started = m->through_proposer ? start_proposer(m) : start_replica(m);
    if (started) {
        event_base_dispatch(m->base);
        m->ended_ns = now_ns();
        report(m);
    }
    if (m->replica)
        evpaxos_replica_free(m->replica);
    if (m->learner)
        evlearner_free(m->learner);
    if (m->proposer)
        bufferevent_free(m->proposer);
    event_free(warm);
    event_free(end);
    event_free(look);
    event_base_free(m->base);
    free(m->latencies_us);
    free(m->seen);
    int code = started && m->count ? 0 : 1;
    free(m);
    return code;
}
