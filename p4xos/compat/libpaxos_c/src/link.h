/* One connection to whichever address answers: dialled, greeted, and dialled again when it is lost.
 *
 * Frames and hello are those of p4xos/framing.py and p4xos/service.py. What a server sends is
 * checked here as far as it is a frame; the owner checks what is in it.
 */
#ifndef LINK_H
#define LINK_H

#include <event2/event.h>
#include <stdbool.h>
#include <stdint.h>

#include "buffer.h"
#include "config.h"
#include "evpaxos/p4xos.h"
#include "head.h"

enum verdict {
    FRAME_TAKEN,
    FRAME_BAD,          /* not what was asked for: the connection is closed and counted */
    FRAME_AGAIN,        /* the owner wants another connection */
    FRAME_STOP,         /* the owner wants to go: its `stop` is called, and nothing after that */
};

struct link_owner {
    const char *name;                   /* in the log */
    void (*opened)(void *owner);        /* it may post; what it posted before may be lost */
    enum verdict (*frame)(void *owner, const struct head *head, const unsigned char *body,
                          size_t body_bytes);
    void (*stop)(void *owner);
};

struct link;

struct link *link_new(struct event_base *base, const struct addresses *addresses, int first,
                      const struct link_owner *owner, void *context);
void link_free(struct link *link);
void link_count(const struct link *link, struct p4xos_counters *counters);

bool link_is_open(const struct link *link);

/* A frame: its head, then body_bytes that the caller appends to the same buffer. */
struct buffer *link_begin_frame(struct link *link, const struct buffer *head, size_t body_bytes);
void link_flush(struct link *link);

/* An open connection that brings no frame until then is given up; 0 or less: none is expected. */
void link_expect_within(struct link *link, double seconds);
void link_again(struct link *link);             /* closes, and dials at once */

/* Waits once for what the link waits for, outside of the event loop; false when a signal came. */
bool link_wait(struct link *link);

#endif
