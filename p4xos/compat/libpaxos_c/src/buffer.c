#include "buffer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LEAST_BYTES 4096
#define KEPT_BYTES (1 << 20)    /* of an empty buffer; more is given back */

void *must_resize(void *old, size_t bytes)
{
    void *fresh = realloc(old, bytes ? bytes : 1);
    if (!fresh) {
        fprintf(stderr, "libevpaxos: no memory for %zu bytes\n", bytes);
        abort();
    }
    return fresh;
}

void *must_allocate(size_t bytes)
{
    return must_resize(NULL, bytes);
}

unsigned char *buffer_reserve(struct buffer *buffer, size_t bytes)
{
    size_t length = buffer_length(buffer);
    if (buffer->capacity - buffer->end < bytes) {
        if (buffer->capacity - length < bytes) {
            size_t wanted = buffer->capacity ? buffer->capacity : LEAST_BYTES;
            while (wanted - length < bytes)
                wanted *= 2;
            unsigned char *fresh = must_allocate(wanted);
            if (length)
                memcpy(fresh, buffer_front(buffer), length);
            free(buffer->data);
            buffer->data = fresh;
            buffer->capacity = wanted;
        } else {
            memmove(buffer->data, buffer_front(buffer), length);
        }
        buffer->start = 0;
        buffer->end = length;
    }
    return buffer->data + buffer->end;
}

void buffer_append(struct buffer *buffer, const void *data, size_t bytes)
{
    if (!bytes)
        return;
    memcpy(buffer_reserve(buffer, bytes), data, bytes);
    buffer->end += bytes;
}

void buffer_take(struct buffer *buffer, size_t bytes)
{
    buffer->start += bytes;
    if (buffer->start < buffer->end)
        return;
    buffer->start = buffer->end = 0;
    if (buffer->capacity > KEPT_BYTES)
        buffer_clear(buffer);
}

void buffer_clear(struct buffer *buffer)
{
    free(buffer->data);
    *buffer = (struct buffer){0};
}
