/* A replicated counter: every process that runs it applies the same additions in the same order.
 *
 *   counter CONFIG ID [--adds N] [--until N] [--at-once N] [--trim-every N] [--trace FILE]
 *
 * It adds N numbers of its own, and ends when the additions of all processes that it has applied
 * are `--until` (by default its own) and its own are among them. Then it prints a line of JSON: the
 * sum, and a digest of all that was delivered, in order. A trace has a line a value: its instance
 * and its bytes.
 */
#include <event2/event.h>
#include <evpaxos.h>
#include <getopt.h>
#include <inttypes.h>
#include <paxos.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define VALUE_BYTES 64
#define FNV_START 0xcbf29ce484222325u
#define FNV_FACTOR 0x100000001b3u

struct counter {
    struct event_base *base;
    struct evpaxos_replica *replica;
    FILE *trace;
    int id;
    long adds, until, at_once, trim_every;
    long sent, own, applied;        /* additions: submitted here, of those applied, of all */
    long out_of_order;
    unsigned int last_iid;
    uint64_t digest;
    int64_t sum;
};

static void digest(struct counter *c, const void *data, size_t bytes)
{
    const unsigned char *from = data;
    for (size_t k = 0; k < bytes; k++)
        c->digest = (c->digest ^ from[k]) * FNV_FACTOR;
}

/* "add NUMBER from ID": what a value says. */
static void submit(struct counter *c)
{
    char value[VALUE_BYTES] = {0};
    c->sent++;
    snprintf(value, sizeof value, "add %ld from %d", c->sent, c->id);
    evpaxos_replica_submit(c->replica, value, sizeof value);
}

static void trace(struct counter *c, unsigned int iid, const char *value, size_t size)
{
    fprintf(c->trace, "%u ", iid);
    for (size_t k = 0; k < size; k++)
        fprintf(c->trace, "%02x", (unsigned char)value[k]);
    fputc('\n', c->trace);
}

static void apply(unsigned int iid, char *value, size_t size, void *arg)
{
    struct counter *c = arg;
    char text[VALUE_BYTES + 1] = {0};
    long number;
    int from;
    if (iid != c->last_iid + 1)
        c->out_of_order++;
    c->last_iid = iid;
    digest(c, &iid, sizeof iid);
    digest(c, value, size);
    if (c->trace)
        trace(c, iid, value, size);
    memcpy(text, value, size < VALUE_BYTES ? size : VALUE_BYTES);
    if (sscanf(text, "add %ld from %d", &number, &from) != 2)
        return;
    c->sum += number;
    c->applied++;
    if (c->trim_every && iid % (unsigned long)c->trim_every == 0)
        evpaxos_replica_send_trim(c->replica, iid);
    if (from == c->id) {
        c->own++;
        if (c->sent < c->adds)
            submit(c);
    }
    if (c->applied >= c->until && c->own >= c->adds)
        event_base_loopbreak(c->base);
}

static void on_signal(evutil_socket_t number, short what, void *arg)
{
    (void)number, (void)what;
    event_base_loopbreak(arg);
}

static bool parse(struct counter *c, int argc, char **argv, const char **trace_path)
{
    static const struct option options[] = {
        {"adds", required_argument, NULL, 'a'},    {"until", required_argument, NULL, 'u'},
        {"at-once", required_argument, NULL, 'o'}, {"trim-every", required_argument, NULL, 't'},
        {"trace", required_argument, NULL, 'f'},   {0},
    };
    for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        switch (option) {
        case 'a': c->adds = atol(optarg); break;
        case 'u': c->until = atol(optarg); break;
        case 'o': c->at_once = atol(optarg); break;
        case 't': c->trim_every = atol(optarg); break;
        case 'f': *trace_path = optarg; break;
        default: return false;
        }
    }
    return optind == argc - 2 && c->adds >= 0 && c->at_once > 0 && c->trim_every >= 0;
}

int main(int argc, char **argv)
{
    struct counter c = {.adds = 100, .at_once = 10, .digest = FNV_START};
    const char *trace_path = NULL;
    if (!parse(&c, argc, argv, &trace_path)) {
        fputs("usage: counter CONFIG ID [--adds N] [--until N] [--at-once N] [--trim-every N] "
              "[--trace FILE]\n", stderr);
        return 2;
    }
    c.id = atoi(argv[optind + 1]);
    if (trace_path && !(c.trace = fopen(trace_path, "we"))) {
        perror(trace_path);
        return 1;
    }
    if (c.trace)
        setvbuf(c.trace, NULL, _IOLBF, 0);
    signal(SIGPIPE, SIG_IGN);
    paxos_config.verbosity = PAXOS_LOG_ERROR;
    c.base = event_base_new();
    struct event *interrupt = evsignal_new(c.base, SIGINT, on_signal, c.base);
    evsignal_add(interrupt, NULL);
    c.replica = evpaxos_replica_init(c.id, argv[optind], apply, &c, c.base);
    if (c.replica) {
        for (long k = 0; k < c.at_once && k < c.adds; k++)
            submit(&c);
        event_base_dispatch(c.base);
        printf("{\"id\": %d, \"sum\": %" PRId64 ", \"applied\": %ld, \"own\": %ld, "
               "\"out_of_order\": %ld, \"last\": %u, \"digest\": \"%016" PRIx64 "\"}\n",
               c.id, c.sum, c.applied, c.own, c.out_of_order, c.last_iid, c.digest);
        evpaxos_replica_free(c.replica);
    }
    event_free(interrupt);
    event_base_free(c.base);
    if (c.trace)
        fclose(c.trace);
    return c.replica && c.own >= c.adds ? 0 : 1;
}
