/* Frames: u32 bytes of the head, u32 bytes of the body, both parts (p4xos/framing.py). */
#ifndef FRAME_H
#define FRAME_H

#include <stddef.h>

#include "buffer.h"
#include "head.h"

struct frame {
    size_t bytes;                   /* of all of it; 0: it is not all there yet */
    struct head head;
    const unsigned char *body;      /* inside of what was received */
    size_t body_bytes;
};

/* The first frame of what was received; NULL, or what is wrong with it. */
const char *frame_read_untrusted(struct frame *frame, const struct buffer *received);

/* Writes all of a frame but its body, and makes room for that. */
void frame_begin(struct buffer *out, const struct buffer *head, size_t body_bytes);

/* A server's words, for the log: nothing unprintable. */
void frame_show(char *to, size_t bytes, struct text from);

#endif
