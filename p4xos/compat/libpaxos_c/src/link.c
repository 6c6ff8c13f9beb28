#include "link.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "events.h"
#include "frame.h"
#include "paxos.h"
#include "sockets.h"
#include "wire.h"

#define READ_BYTES (256 << 10)      /* in one turn, so that other events get theirs */
#define CONNECT_S 2.0
#define GREET_S 5.0
#define AGAIN_FIRST_S 0.02          /* when no address answered; doubles */
#define AGAIN_MOST_S 1.0
#define TELL_EVERY_S 10.0
#define SHOWN_BYTES 200             /* of a text that a server wrote */

enum state { DOWN, CONNECTING, GREETING, OPEN };

struct link {
    const struct link_owner *owner;
    void *context;
    struct addresses addresses;
    int turn;                       /* which address is dialled next */
    int failures;                   /* in a row */
    enum state state;
    int fd;                         /* -1 when down */
    double deadline;                /* of the state; 0: none */
    double tell_at;
    struct buffer in, out;
    uint32_t cluster;               /* the first that answered; the others must belong to it */
    struct p4xos_counters counters;
    struct event_base *base;
    struct event readable, writable, timer;
};

static void set_deadline(struct link *link, double seconds)
{
    link->deadline = seconds > 0 ? monotonic_s() + seconds : 0;
    events_remove(&link->timer);
    if (seconds > 0)
        events_add_in(&link->timer, seconds);
}

/* Losing and dialling ---------------------------------------------------------------------------- */

static void disconnect(struct link *link)
{
    events_remove(&link->readable);
    events_remove(&link->writable);
    if (link->fd >= 0)
        close(link->fd);
    link->fd = -1;
    link->state = DOWN;
    buffer_clear(&link->in);
    buffer_clear(&link->out);
}

/* Tries the next address; after a round of them, more and more patiently. */
static void lose(struct link *link, const char *reason)
{
    char address[32];
    double now = monotonic_s();
    link->counters.lost++;
    if (now >= link->tell_at) {
        paxos_log_error("%s: %s: %s; trying the next address of paxos.conf", link->owner->name,
                        sockets_name(&link->addresses.at[link->turn], address, sizeof address),
                        reason);
        link->tell_at = now + TELL_EVERY_S;
    }
    disconnect(link);
    link->turn = (link->turn + 1) % link->addresses.count;
    int rounds = link->failures++ / link->addresses.count;
    double wait = AGAIN_FIRST_S * (double)(1 << (rounds < 6 ? rounds : 6));
    set_deadline(link, wait < AGAIN_MOST_S ? wait : AGAIN_MOST_S);
}

static void lose_bad(struct link *link, const char *reason)
{
    link->counters.bad_frames++;
    lose(link, reason);
}

void link_again(struct link *link)
{
    disconnect(link);
    set_deadline(link, 1e-6);
}

static void greet(struct link *link)
{
    struct buffer head = {0};
    head_begin(&head, 3);
    head_add_text(&head, "ask", "hello");
    head_add_number(&head, "version", OPEN_VERSION);
    head_add_number(&head, "cluster", link->cluster);
    link->state = GREETING;
    link_begin_frame(link, &head, 0);
    buffer_clear(&head);
    set_deadline(link, GREET_S);
    link_flush(link);
}

static void on_readable(evutil_socket_t fd, short what, void *context);
static void on_writable(evutil_socket_t fd, short what, void *context);

static void dial(struct link *link)
{
    link->fd = sockets_connect(&link->addresses.at[link->turn]);
    if (link->fd < 0) {
        lose(link, strerror(errno));
        return;
    }
    event_assign(&link->readable, link->base, link->fd, EV_READ | EV_PERSIST, on_readable, link);
    event_assign(&link->writable, link->base, link->fd, EV_WRITE | EV_PERSIST, on_writable, link);
    link->state = CONNECTING;
    event_add(&link->writable, NULL);
    set_deadline(link, CONNECT_S);
}

static void finish_connecting(struct link *link)
{
    int error = sockets_outcome(link->fd);
    if (error) {
        lose(link, strerror(error));
        return;
    }
    event_add(&link->readable, NULL);
    greet(link);
}

/* Sending ---------------------------------------------------------------------------------------- */

struct buffer *link_begin_frame(struct link *link, const struct buffer *head, size_t body_bytes)
{
    frame_begin(&link->out, head, body_bytes);
    return &link->out;
}

void link_flush(struct link *link)
{
    while (link->state >= GREETING && buffer_length(&link->out)) {
        ssize_t sent = send(link->fd, buffer_front(&link->out), buffer_length(&link->out),
                            MSG_NOSIGNAL);
        if (sent < 0) {
            if (errno == EINTR)
                continue;
            if (errno != EAGAIN && errno != EWOULDBLOCK)
                lose(link, strerror(errno));
            break;
        }
        buffer_take(&link->out, (size_t)sent);
    }
    if (link->state < GREETING)
        return;
    if (buffer_length(&link->out))
        event_add(&link->writable, NULL);
    else
        events_remove(&link->writable);
}

/* Receiving -------------------------------------------------------------------------------------- */

/* The answer to hello. */
static bool welcome_untrusted(struct link *link, const struct head *head)
{
    char shown[SHOWN_BYTES];
    if (head->has_text[KEY_ERROR] || (head->has_text[KEY_LOG] && head->texts[KEY_LOG].bytes)) {
        bool error = head->has_text[KEY_ERROR];
        frame_show(shown, sizeof shown, head->texts[error ? KEY_TEXT : KEY_LOG]);
        lose(link, shown);
        return false;
    }
    if (!head->has_number[KEY_CLUSTER] || !head->has_number[KEY_VERSION]
        || head->numbers[KEY_CLUSTER] > UINT32_MAX) {
        lose_bad(link, "what answered there is no P4xos");
        return false;
    }
    if (!head->has_number[KEY_LIBPAXOS]) {
        lose(link, "a plain node answers there; name the addresses that `p4xos libpaxos` serves");
        return false;
    }
    if (link->cluster && head->numbers[KEY_CLUSTER] != link->cluster) {
        lose(link, "what answers there belongs to another cluster; check the address");
        return false;
    }
    link->cluster = (uint32_t)head->numbers[KEY_CLUSTER];
    link->state = OPEN;
    link->failures = 0;
    link->tell_at = 0;
    link->counters.connections++;
    set_deadline(link, 0);
    paxos_log_debug("%s: connected", link->owner->name);
    link->owner->opened(link->context);
    return link->state == OPEN;
}

/* What a frame asks for. False when the connection is no longer the one it was: the link may then
 * not even exist. */
static bool act_untrusted(struct link *link, const struct head *head, const unsigned char *body,
                          size_t body_bytes)
{
    char shown[SHOWN_BYTES];
    if (link->state == GREETING)
        return welcome_untrusted(link, head);
    if (head->has_text[KEY_ERROR] && !head->has_number[KEY_ID]) {
        frame_show(shown, sizeof shown, head->texts[KEY_TEXT]);
        lose(link, shown);
        return false;
    }
    switch (link->owner->frame(link->context, head, body, body_bytes)) {
    case FRAME_TAKEN:
        return link->state == OPEN;     /* it may have been lost while the owner was sending */
    case FRAME_BAD:
        lose_bad(link, "a frame is not what was asked for");
        return false;
    case FRAME_AGAIN:
        link_again(link);
        return false;
    case FRAME_STOP:
        link->owner->stop(link->context);
        return false;
    }
    return false;
}

/* Acts on one frame, if it is all there; false as above. */
static bool take_frame_untrusted(struct link *link, bool *taken)
{
    struct frame frame;
    *taken = false;
    const char *complaint = frame_read_untrusted(&frame, &link->in);
    if (complaint) {
        lose_bad(link, complaint);
        return false;
    }
    if (!frame.bytes)
        return true;
    if (!act_untrusted(link, &frame.head, frame.body, frame.body_bytes))
        return false;
    buffer_take(&link->in, frame.bytes);
    *taken = true;
    return true;
}

static void receive(struct link *link)
{
    unsigned char *room = buffer_reserve(&link->in, READ_BYTES);
    ssize_t count = recv(link->fd, room, READ_BYTES, 0);
    if (count <= 0) {
        if (count < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR))
            return;
        lose(link, count ? strerror(errno) : "it closed the connection");
        return;
    }
    link->in.end += (size_t)count;
    for (bool taken = true; taken;)
        if (!take_frame_untrusted(link, &taken))
            return;
}

/* Turns ------------------------------------------------------------------------------------------ */

static void on_readable(evutil_socket_t fd, short what, void *context)
{
    (void)fd, (void)what;
    receive(context);
}

static void on_writable(evutil_socket_t fd, short what, void *context)
{
    (void)fd, (void)what;
    struct link *link = context;
    if (link->state == CONNECTING)
        finish_connecting(link);
    else
        link_flush(link);
}

static void on_time(evutil_socket_t fd, short what, void *context)
{
    (void)fd, (void)what;
    struct link *link = context;
    link->deadline = 0;
    if (link->state == DOWN)
        dial(link);
    else
        lose(link, link->state == OPEN ? "it answers nothing" : "it does not answer");
}

bool link_wait(struct link *link)
{
    double left = link->deadline ? link->deadline - monotonic_s() : 1.0;
    struct pollfd wanted = {.fd = link->fd, .events = POLLIN};
    if (link->state == CONNECTING || buffer_length(&link->out))
        wanted.events |= POLLOUT;
    int ready = left > 0 ? poll(&wanted, 1, (int)(left * 1000) + 1) : 0;
    if (ready < 0)
        return errno != EINTR;
    if (!ready) {
        if (link->deadline && monotonic_s() >= link->deadline)
            on_time(-1, 0, link);
        return true;
    }
    int fd = link->fd;
    if (wanted.revents & (POLLOUT | POLLERR | POLLHUP))
        on_writable(fd, 0, link);
    if (link->fd == fd && link->state != CONNECTING && wanted.revents & (POLLIN | POLLHUP))
        receive(link);
    return true;
}

/* For the owner ---------------------------------------------------------------------------------- */

struct link *link_new(struct event_base *base, const struct addresses *addresses, int first,
                      const struct link_owner *owner, void *context)
{
    struct link *link = must_allocate(sizeof *link);
    *link = (struct link){
        .owner = owner, .context = context, .addresses = *addresses,
        .turn = first % addresses->count, .fd = -1, .base = base,
    };
    evtimer_assign(&link->timer, base, on_time, link);
    set_deadline(link, 1e-6);
    return link;
}

void link_free(struct link *link)
{
    events_remove(&link->timer);
    events_remove(&link->readable);
    events_remove(&link->writable);
    if (link->fd >= 0)
        close(link->fd);
    buffer_clear(&link->in);
    buffer_clear(&link->out);
    free(link);
}

void link_count(const struct link *link, struct p4xos_counters *counters)
{
    counters->connections += link->counters.connections;
    counters->lost += link->counters.lost;
    counters->bad_frames += link->counters.bad_frames;
}

bool link_is_open(const struct link *link)
{
    return link->state == OPEN;
}

void link_expect_within(struct link *link, double seconds)
{
    if (link->state == OPEN)
        set_deadline(link, seconds);
}
