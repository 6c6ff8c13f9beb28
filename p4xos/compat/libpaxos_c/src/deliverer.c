#include "deliverer.h"

#include <stdlib.h>
#include <string.h>

#include "bytes.h"
#include "events.h"
#include "wire.h"

#define COUNT_BYTES 4
#define IID_BYTES 8
#define FROM_NOW 0          /* instead of an instance, since they begin at 1 */
#define DELIVER_ID 0        /* the requests behind it count up from here */

struct deliverer {
    struct link *link;
    deliver_function deliver;
    void *arg;
    void (*ready)(void *owner);     /* called once: from now on nothing is missed; may be NULL */
    void *ready_owner;
    uint64_t next;          /* the instance to deliver next, or FROM_NOW */
    uint64_t trim;          /* through this; 0: never said */
    uint64_t next_id;
    uint64_t delivered;
    bool looking;           /* where it begins, and nothing else */
    bool inside;            /* of the callback, and so of a frame: nothing may be sent */
    bool restart;           /* the stream no longer goes where it has to */
    bool freed;             /* inside of the callback */
    struct buffer value;    /* aligned, as programs look into it as into a struct */
};

static void ask_to_trim(struct deliverer *deliverer)
{
    struct buffer head = {0};
    head_begin(&head, 3);
    head_add_text(&head, "ask", "trim");
    head_add_number(&head, "id", ++deliverer->next_id);
    head_add_number(&head, "instance", deliverer->trim);
    link_begin_frame(deliverer->link, &head, 0);
    buffer_clear(&head);
}

static void opened(void *owner)
{
    struct deliverer *deliverer = owner;
    struct buffer head = {0};
    head_begin(&head, 2);
    head_add_text(&head, "ask", "deliver");
    head_add_number(&head, "first", deliverer->next);
    link_begin_frame(deliverer->link, &head, 0);
    buffer_clear(&head);
    deliverer->restart = false;
    if (deliverer->trim)
        ask_to_trim(deliverer);
    link_flush(deliverer->link);
}

/* Delivered values in the body of a frame: u32 count, u64 iid of each, u32 length of each, the
 * values (p4xos/packing.py). */
struct run {
    uint32_t count;
    const unsigned char *iids, *lengths, *values;
};

/* False where the body is not that, or its instances do not follow each other. */
static bool read_run_untrusted(struct run *run, const unsigned char *body, size_t bytes)
{
    if (bytes < COUNT_BYTES)
        return false;
    run->count = get_u32(body);
    if (run->count > VALUES_MAX)
        return false;
    size_t before_values = COUNT_BYTES + (size_t)run->count * (IID_BYTES + COUNT_BYTES);
    if (bytes < before_values)
        return false;
    run->iids = body + COUNT_BYTES;
    run->lengths = run->iids + (size_t)run->count * IID_BYTES;
    run->values = body + before_values;
    uint64_t sum = 0, first = run->count ? get_u64(run->iids) : 1;
    if (first == 0 || first > UINT64_MAX - run->count)
        return false;
    for (uint32_t k = 0; k < run->count; k++) {
        sum += get_u32(run->lengths + (size_t)k * COUNT_BYTES);
        if (get_u64(run->iids + (size_t)k * IID_BYTES) != first + k)
            return false;
    }
    return sum == bytes - before_values;
}

/* Calls the program back with one value. False when nothing more may be delivered. */
static bool deliver_one(struct deliverer *deliverer, const unsigned char *value, uint32_t bytes)
{
    uint64_t iid = deliverer->next++;
    deliverer->value.end = 0;
    memcpy(buffer_reserve(&deliverer->value, (size_t)bytes + 1), value, bytes);
    deliverer->value.data[bytes] = 0;
    deliverer->delivered++;
    if (deliverer->deliver) {
        deliverer->inside = true;
        deliverer->deliver((unsigned int)iid, (char *)deliverer->value.data, bytes, deliverer->arg);
        deliverer->inside = false;
    }
    return !deliverer->freed && !deliverer->restart;
}

/* Whatever of a frame was not delivered before. */
static enum verdict deliver_run(struct deliverer *deliverer, const struct run *run)
{
    const unsigned char *value = run->values;
    for (uint32_t k = 0; k < run->count; k++) {
        uint64_t iid = get_u64(run->iids + (size_t)k * IID_BYTES);
        uint32_t bytes = get_u32(run->lengths + (size_t)k * COUNT_BYTES);
        if (iid > deliverer->next)
            return FRAME_BAD;       /* a gap */
        if (iid == deliverer->next && !deliver_one(deliverer, value, bytes))
            return deliverer->freed ? FRAME_STOP : FRAME_AGAIN;
        value += bytes;
    }
    return FRAME_TAKEN;
}

static enum verdict frame_untrusted(void *owner, const struct head *head,
                                    const unsigned char *body, size_t body_bytes)
{
    struct deliverer *deliverer = owner;
    struct run run;
    if (head->has_number[KEY_ID])
        return head->has_text[KEY_ERROR] ? FRAME_BAD : FRAME_TAKEN;     /* of a trim */
    if (!head->has_number[KEY_NEXT] || !read_run_untrusted(&run, body, body_bytes)
        || head->numbers[KEY_NEXT] == 0)
        return FRAME_BAD;
    if (deliverer->next == FROM_NOW)
        deliverer->next = run.count ? get_u64(run.iids) : head->numbers[KEY_NEXT];
    if (deliverer->looking) {
        deliverer->looking = false;
        return FRAME_AGAIN;     /* what follows would be delivered too soon */
    }
    if (deliverer->ready) {
        deliverer->ready(deliverer->ready_owner);
        deliverer->ready = NULL;
    }
    enum verdict verdict = deliver_run(deliverer, &run);
    if (verdict == FRAME_TAKEN)
        link_flush(deliverer->link);    /* what the callback asked for */
    return verdict;
}

static void stop(void *owner)
{
    struct deliverer *deliverer = owner;
    link_free(deliverer->link);
    buffer_clear(&deliverer->value);
    free(deliverer);
}

static const struct link_owner link_owner = {
    .name = "delivering", .opened = opened, .frame = frame_untrusted,
    .stop = stop,
};

struct deliverer *deliverer_new(struct event_base *base, const struct addresses *addresses,
                                int first, bool catch_up, deliver_function deliver, void *arg)
{
    struct deliverer *deliverer = must_allocate(sizeof *deliverer);
    *deliverer = (struct deliverer){
        .deliver = deliver, .arg = arg, .next = catch_up ? 1 : FROM_NOW, .next_id = DELIVER_ID,
    };
    deliverer->link = link_new(base, addresses, first, &link_owner, deliverer);
    return deliverer;
}

void deliverer_free(struct deliverer *deliverer)
{
    deliverer->freed = true;
    if (!deliverer->inside)
        stop(deliverer);
}

void deliverer_look_where(struct deliverer *deliverer, double seconds)
{
    double until = monotonic_s() + seconds;
    deliverer->looking = deliverer->next == FROM_NOW;
    while (deliverer->looking && monotonic_s() < until)
        link_wait(deliverer->link);
    deliverer->looking = false;
}

void deliverer_when_ready(struct deliverer *deliverer, void (*ready)(void *owner), void *owner)
{
    deliverer->ready = ready;
    deliverer->ready_owner = owner;
}

uint64_t deliverer_through(const struct deliverer *deliverer)
{
    return deliverer->next == FROM_NOW ? 0 : deliverer->next - 1;
}

void deliverer_go_on(struct deliverer *deliverer, uint64_t through)
{
    if (through + 1 == deliverer->next)
        return;
    /* What the server is sending goes on below it, or from where it has passed. */
    deliverer->next = through + 1;
    deliverer->restart = true;
    if (link_is_open(deliverer->link) && !deliverer->inside)
        link_again(deliverer->link);
}

void deliverer_trim(struct deliverer *deliverer, uint64_t through)
{
    deliverer->trim = through;
    if (!link_is_open(deliverer->link))
        return;
    ask_to_trim(deliverer);
    if (!deliverer->inside)
        link_flush(deliverer->link);
}

void deliverer_count(const struct deliverer *deliverer, struct p4xos_counters *counters)
{
    counters->delivered += deliverer->delivered;
    link_count(deliverer->link, counters);
}
