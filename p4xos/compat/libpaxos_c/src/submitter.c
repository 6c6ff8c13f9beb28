#include "submitter.h"

#include <stdlib.h>
#include <sys/random.h>

#include "bytes.h"
#include "events.h"
#include "wire.h"

/* Of values in one frame, or one value that is longer: few frames cost the cluster little. Where a
 * thousand values of 64 bytes are outstanding, frames of 4 and 16 KiB were a third slower. */
#define BATCH_BYTES (64 << 10)
#define BATCH_VALUES 8192
#define COUNT_BYTES 4               /* in a frame's body: of the number of values, of each length */
#define ASKED_MAX 8                 /* frames without an answer */
#define ANSWER_S 15.0               /* without any, another address is tried */
_Static_assert(ASKED_MAX < FRAMES_AHEAD_MAX, "the cluster takes no frame too far ahead");
_Static_assert(BATCH_VALUES <= VALUES_MAX, "of one frame");
_Static_assert(BATCH_BYTES + COUNT_BYTES * (BATCH_VALUES + 1) <= FRAME_BYTES_MAX, "of one frame");

struct batch {
    struct batch *next;
    uint64_t client, number;        /* 0 until it is sent first */
    uint64_t id;                    /* of the request */
    uint32_t count;
    uint32_t tries;
    struct buffer lengths, values;
};

struct queue {
    struct batch *first, *last;
    unsigned int count;
};

struct submitter {
    struct link *link;
    struct queue waiting;           /* never sent, the last one still grows */
    struct queue asked;             /* sent, in the order of their ids */
    uint64_t client;
    bool held;                      /* nothing is sent yet */
    bool known;                     /* the log has the client: its number 1 was answered */
    uint64_t next_number, next_id;
    size_t pending_bytes;           /* of both queues */
    struct p4xos_counters counters;
    struct event send;              /* at the end of this turn of the loop */
};

/* Queues ----------------------------------------------------------------------------------------- */

static void push_last(struct queue *queue, struct batch *batch)
{
    batch->next = NULL;
    if (queue->last)
        queue->last->next = batch;
    else
        queue->first = batch;
    queue->last = batch;
    queue->count++;
}

static void push_first(struct queue *queue, struct batch *batch)
{
    batch->next = queue->first;
    queue->first = batch;
    if (!queue->last)
        queue->last = batch;
    queue->count++;
}

/* The batch of a request; NULL where there is none. */
static struct batch *remove_id(struct queue *queue, uint64_t id)
{
    struct batch *before = NULL;
    for (struct batch *batch = queue->first; batch; before = batch, batch = batch->next) {
        if (batch->id != id)
            continue;
        if (before)
            before->next = batch->next;
        else
            queue->first = batch->next;
        if (queue->last == batch)
            queue->last = before;
        queue->count--;
        return batch;
    }
    return NULL;
}

static struct batch *pop_first(struct queue *queue)
{
    return queue->first ? remove_id(queue, queue->first->id) : NULL;
}

static void free_batch(struct batch *batch)
{
    buffer_clear(&batch->lengths);
    buffer_clear(&batch->values);
    free(batch);
}

/* Sending ---------------------------------------------------------------------------------------- */

static void begin_session(struct submitter *submitter)
{
    submitter->client = 0;
    while (!submitter->client)
        if (getrandom(&submitter->client, sizeof submitter->client, 0)
            != sizeof submitter->client)
            submitter->client = 0;
    submitter->next_number = 1;
    submitter->known = false;
}

static void send_batch(struct submitter *submitter, struct batch *batch)
{
    struct buffer head = {0};
    unsigned char count[COUNT_BYTES];
    size_t lengths = buffer_length(&batch->lengths), values = buffer_length(&batch->values);
    head_begin(&head, 4);
    head_add_text(&head, "ask", "submit");
    head_add_number(&head, "id", batch->id);
    head_add_number(&head, "client", batch->client);
    head_add_number(&head, "number", batch->number);
    struct buffer *out = link_begin_frame(submitter->link, &head, sizeof count + lengths + values);
    put_u32(count, batch->count);
    buffer_append(out, count, sizeof count);
    buffer_append(out, buffer_front(&batch->lengths), lengths);
    buffer_append(out, buffer_front(&batch->values), values);
    buffer_clear(&head);
    submitter->counters.sent_again += batch->tries++ != 0;
}

/* Sends what waits, as far as it may go. */
static void send_waiting(struct submitter *submitter)
{
    if (submitter->held || !link_is_open(submitter->link))
        return;
    bool sent = false;
    /* Number 1 makes the client known, and one that is not known is refused: it goes alone, so that
     * it cannot be overtaken where two gateways are asked. */
    unsigned int most = submitter->known ? ASKED_MAX : 1;
    while (submitter->waiting.first && submitter->asked.count < most) {
        struct batch *batch = pop_first(&submitter->waiting);
        batch->client = submitter->client;
        batch->number = submitter->next_number++;
        batch->id = submitter->next_id++;
        push_last(&submitter->asked, batch);
        send_batch(submitter, batch);
        sent = true;
    }
    if (!sent)
        return;
    link_expect_within(submitter->link, ANSWER_S);
    link_flush(submitter->link);
}

static void on_send(evutil_socket_t fd, short what, void *context)
{
    (void)fd, (void)what;
    send_waiting(context);
}

/* The connection --------------------------------------------------------------------------------- */

static void opened(void *owner)
{
    struct submitter *submitter = owner;
    for (struct batch *batch = submitter->asked.first; batch; batch = batch->next)
        send_batch(submitter, batch);
    if (submitter->asked.count) {
        link_expect_within(submitter->link, ANSWER_S);
        link_flush(submitter->link);
    }
    send_waiting(submitter);
}

static void give_up(struct submitter *submitter, struct batch *batch, uint64_t *counter)
{
    *counter += batch->count;
    submitter->pending_bytes -= buffer_length(&batch->lengths) + buffer_length(&batch->values);
    free_batch(batch);
}

/* The cluster no longer knows the client, or does not take a frame: the numbers of that client have
 * a hole for ever, and a new one is needed. */
static void failed(struct submitter *submitter, struct batch *batch, const struct head *head)
{
    bool session_lost = text_equals(head->texts[KEY_ERROR], "SessionLost");
    struct text text = head->has_text[KEY_TEXT] ? head->texts[KEY_TEXT] : (struct text){"", 0};
    if (batch->client == submitter->client)
        begin_session(submitter);
    if (session_lost && batch->tries == 1) {
        push_first(&submitter->waiting, batch);     /* sent only once, and refused: not taken */
        batch->tries = 0;
        return;
    }
    paxos_log_error("%u values: %s: %.*s", batch->count,
                    session_lost ? "nobody knows whether they are delivered" : "refused",
                    (int)text.bytes, text.start);
    give_up(submitter, batch,
            session_lost ? &submitter->counters.unknown : &submitter->counters.refused);
}

static enum verdict frame_untrusted(void *owner, const struct head *head,
                                    const unsigned char *body, size_t body_bytes)
{
    struct submitter *submitter = owner;
    (void)body, (void)body_bytes;   /* the first iid: whoever wants to know them delivers */
    if (!head->has_number[KEY_ID])
        return FRAME_BAD;
    struct batch *batch = remove_id(&submitter->asked, head->numbers[KEY_ID]);
    if (!batch)
        return FRAME_BAD;
    if (!head->has_text[KEY_ERROR]) {
        submitter->known |= batch->client == submitter->client;
        give_up(submitter, batch, &submitter->counters.settled);
    } else if (text_equals(head->texts[KEY_ERROR], "SessionLost")
               || text_equals(head->texts[KEY_ERROR], "Refused")) {
        failed(submitter, batch, head);
    } else {
        push_first(&submitter->asked, batch);       /* elsewhere it may succeed */
        return FRAME_BAD;
    }
    link_expect_within(submitter->link, submitter->asked.count ? ANSWER_S : 0);
    send_waiting(submitter);
    return FRAME_TAKEN;
}

static const struct link_owner link_owner = {
    .name = "submitting", .opened = opened, .frame = frame_untrusted,
};

/* For the owner ---------------------------------------------------------------------------------- */

struct submitter *submitter_new(struct event_base *base, const struct addresses *addresses)
{
    struct submitter *submitter = must_allocate(sizeof *submitter);
    *submitter = (struct submitter){.next_id = 1};
    begin_session(submitter);
    event_assign(&submitter->send, base, -1, 0, on_send, submitter);
    submitter->link = link_new(base, addresses, 0, &link_owner, submitter);
    return submitter;
}

void submitter_hold(struct submitter *submitter)
{
    submitter->held = true;
}

void submitter_begin(void *context)
{
    struct submitter *submitter = context;
    submitter->held = false;
    send_waiting(submitter);
}

void submitter_free(struct submitter *submitter)
{
    uint64_t left = submitter->counters.submitted - submitter->counters.settled
        - submitter->counters.unknown - submitter->counters.refused;
    if (left)
        paxos_log_info("%llu values were submitted and not yet known to be delivered",
                       (unsigned long long)left);
    events_remove(&submitter->send);
    link_free(submitter->link);
    for (struct batch *batch; (batch = pop_first(&submitter->waiting));)
        free_batch(batch);
    for (struct batch *batch; (batch = pop_first(&submitter->asked));)
        free_batch(batch);
    free(submitter);
}

static struct batch *batch_for(struct submitter *submitter, size_t bytes)
{
    struct batch *last = submitter->waiting.last;
    if (last && last->count < BATCH_VALUES && !last->tries
        && buffer_length(&last->values) + bytes <= BATCH_BYTES)
        return last;
    last = must_allocate(sizeof *last);
    *last = (struct batch){0};
    push_last(&submitter->waiting, last);
    return last;
}

static void wait_for_room(struct submitter *submitter)
{
    if (submitter->held || submitter->pending_bytes < P4XOS_PENDING_BYTES_MAX)
        return;
    paxos_log_debug("submitting: %zu bytes have no answer; waiting", submitter->pending_bytes);
    send_waiting(submitter);
    while (submitter->pending_bytes >= P4XOS_PENDING_BYTES_MAX)
        if (!link_wait(submitter->link))
            return;     /* a signal: the program's loop has to see it */
}

void submitter_submit(struct submitter *submitter, const void *value, size_t bytes)
{
    unsigned char length[COUNT_BYTES];
    submitter->counters.submitted++;
    if (bytes > VALUE_BYTES_MAX) {
        submitter->counters.refused++;
        paxos_log_error("a value has %zu bytes and the limit is %d: it is not submitted; split it",
                        bytes, VALUE_BYTES_MAX);
        return;
    }
    wait_for_room(submitter);
    struct batch *batch = batch_for(submitter, bytes);
    put_u32(length, (uint32_t)bytes);
    buffer_append(&batch->lengths, length, sizeof length);
    buffer_append(&batch->values, value, bytes);
    batch->count++;
    submitter->pending_bytes += sizeof length + bytes;
    event_active(&submitter->send, EV_TIMEOUT, 0);
}

void submitter_count(const struct submitter *submitter, struct p4xos_counters *counters)
{
    counters->submitted += submitter->counters.submitted;
    counters->settled += submitter->counters.settled;
    counters->unknown += submitter->counters.unknown;
    counters->refused += submitter->counters.refused;
    counters->sent_again += submitter->counters.sent_again;
    link_count(submitter->link, counters);
}
