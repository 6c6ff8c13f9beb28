/* A run of bytes that grows at its end and is taken from its beginning. */
#ifndef BUFFER_H
#define BUFFER_H

#include <stddef.h>

struct buffer {
    unsigned char *data;
    size_t start, end, capacity;    /* start <= end <= capacity */
};

static inline size_t buffer_length(const struct buffer *buffer)
{
    return buffer->end - buffer->start;
}

static inline unsigned char *buffer_front(const struct buffer *buffer)
{
    return buffer->data + buffer->start;
}

/* Room for so many bytes behind the end; what is there may move. */
unsigned char *buffer_reserve(struct buffer *buffer, size_t bytes);
void buffer_append(struct buffer *buffer, const void *data, size_t bytes);
void buffer_take(struct buffer *buffer, size_t bytes);
void buffer_clear(struct buffer *buffer);   /* and gives its memory back */

/* As malloc and realloc, but the process ends where there is no memory: a value that was taken
 * must not be lost without a word. */
void *must_allocate(size_t bytes);
void *must_resize(void *old, size_t bytes);

#endif
