/* Feeds what servers may send, and paxos.conf, to the library: an input is its length in four bytes,
 * its kind, the bytes; each is answered by a line on standard output. What is wrong ends the
 * process: the sanitizers, or an assertion here.
 *
 *   d   to a learner that begins at instance 1: "delivered VALUES BYTES bad FRAMES"
 *   n   to a learner that begins with what comes next: the same
 *   s   to a submitter with three values under way: "settled VALUES unknown N refused N bad FRAMES"
 *   c   a paxos.conf: "addresses ACCEPTORS", or "refused"
 *
 * The library is as it is, but for what makes its connections: those are socket pairs.
 */
#define _GNU_SOURCE
#include <assert.h>
#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "bytes.h"
#include "deliverer.h"
#include "sockets.h"
#include "submitter.h"

#define PIECES 3                    /* that a stream comes in */
#define TURNS_MAX 1000              /* of the event loop, until a link has dialled */

static struct event_base *base;
static int server = -1;             /* the other end of the newest connection */
static uint64_t expected, values, value_bytes;
static volatile unsigned char touched;

/* In place of src/sockets.c ---------------------------------------------------------------------- */

int sockets_connect(const struct sockaddr_in *address)
{
    int ends[2];
    (void)address;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends))
        abort();
    if (server >= 0)
        close(server);
    server = ends[1];
    return ends[0];
}

int sockets_outcome(int fd)
{
    (void)fd;
    return 0;
}

const char *sockets_name(const struct sockaddr_in *address, char *text, size_t bytes)
{
    (void)address;
    snprintf(text, bytes, "a socket pair");
    return text;
}

/* Inputs ----------------------------------------------------------------------------------------- */

static void on_deliver(unsigned int iid, char *value, size_t size, void *arg)
{
    (void)arg;
    if (!expected)
        expected = iid;
    assert(iid == (unsigned int)expected);
    expected++;
    assert(value[size] == 0);
    for (size_t k = 0; k < size; k++)
        touched ^= (unsigned char)value[k];
    values++;
    value_bytes += size;
}

static void turn(int times)
{
    while (times--)
        event_base_loop(base, EVLOOP_NONBLOCK);
}

/* Dials and greets, then brings the bytes in some pieces; a link that gave up reads no more. */
static void serve(const unsigned char *data, size_t bytes)
{
    for (int k = 0; server < 0; k++) {
        assert(k < TURNS_MAX);
        event_base_loop(base, EVLOOP_ONCE);
    }
    turn(3);
    int to = server;
    for (size_t k = 0; k < PIECES; k++) {
        size_t first = bytes * k / PIECES, end = bytes * (k + 1) / PIECES;
        while (first < end && to == server) {
            ssize_t sent = send(to, data + first, end - first, MSG_NOSIGNAL);
            if (sent < 0 && errno != EAGAIN)
                return;             /* the connection was closed */
            first += sent > 0 ? (size_t)sent : 0;
            turn(2);
        }
    }
    turn(2);
}

static void to_learner(FILE *answers, const unsigned char *data, size_t bytes, bool catch_up)
{
    struct addresses addresses = {.count = 1};
    struct p4xos_counters counters = {0};
    struct deliverer *deliverer = deliverer_new(base, &addresses, 0, catch_up, on_deliver, NULL);
    expected = catch_up;
    values = value_bytes = 0;
    serve(data, bytes);
    deliverer_count(deliverer, &counters);
    assert(counters.delivered == values);
    deliverer_free(deliverer);
    fprintf(answers, "delivered %llu %llu bad %llu\n", (unsigned long long)values,
            (unsigned long long)value_bytes, (unsigned long long)counters.bad_frames);
}

static void to_submitter(FILE *answers, const unsigned char *data, size_t bytes)
{
    struct addresses addresses = {.count = 1};
    struct p4xos_counters counters = {0};
    struct submitter *submitter = submitter_new(base, &addresses);
    for (int k = 0; k < 3; k++)
        submitter_submit(submitter, "value", 5);
    serve(data, bytes);
    submitter_count(submitter, &counters);
    assert(counters.settled + counters.unknown + counters.refused <= counters.submitted);
    submitter_free(submitter);
    fprintf(answers, "settled %llu unknown %llu refused %llu bad %llu\n",
            (unsigned long long)counters.settled, (unsigned long long)counters.unknown,
            (unsigned long long)counters.refused, (unsigned long long)counters.bad_frames);
}

static void as_config(FILE *answers, const unsigned char *data, size_t bytes)
{
    char path[64];
    int file = memfd_create("paxos.conf", MFD_CLOEXEC);
    assert(file >= 0 && write(file, data, bytes) == (ssize_t)bytes);
    snprintf(path, sizeof path, "/proc/self/fd/%d", file);
    struct evpaxos_config *config = evpaxos_config_read(path);
    close(file);
    if (!config) {
        fputs("refused\n", answers);
        return;
    }
    int count = evpaxos_acceptor_count(config);
    assert(0 < count && count <= MAX_N_OF_PROPOSERS);
    for (int k = -1; k <= MAX_N_OF_PROPOSERS; k++) {
        touched ^= (unsigned char)evpaxos_acceptor_listen_port(config, k);
        touched ^= (unsigned char)evpaxos_proposer_listen_port(config, k);
    }
    evpaxos_config_free(config);
    fprintf(answers, "addresses %d\n", count);
}

int main(void)
{
    unsigned char prefix[5];
    FILE *answers = fdopen(dup(1), "w");    /* the library's log goes to standard output */
    if (!answers || !freopen("/dev/null", "w", stdout))
        return 1;
    base = event_base_new();
    while (fread(prefix, sizeof prefix, 1, stdin) == 1) {
        size_t bytes = get_u32(prefix);
        unsigned char *data = malloc(bytes ? bytes : 1);
        if (!data || (bytes && fread(data, bytes, 1, stdin) != 1))
            return 1;
        switch (prefix[4]) {
        case 'd': case 'n':
            to_learner(answers, data, bytes, prefix[4] == 'd');
            break;
        case 's':
            to_submitter(answers, data, bytes);
            break;
        case 'c':
            as_config(answers, data, bytes);
            break;
        default:
            return 1;
        }
        free(data);
        if (server >= 0)
            close(server);
        server = -1;
        fflush(answers);
    }
    event_base_free(base);
    return fclose(answers) != 0;
}
