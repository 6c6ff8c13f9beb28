#include "frame.h"

#include "bytes.h"
#include "wire.h"

#define PREFIX_BYTES 8

const char *frame_read_untrusted(struct frame *frame, const struct buffer *received)
{
    const unsigned char *data = buffer_front(received);
    size_t there = buffer_length(received);
    frame->bytes = 0;
    if (there < PREFIX_BYTES)
        return NULL;
    size_t head_bytes = get_u32(data), body_bytes = get_u32(data + 4);
    if (head_bytes == 0 || head_bytes > HEAD_BYTES_MAX || body_bytes > BODY_BYTES_MAX)
        return "what came is no frame of P4xos";
    if (there - PREFIX_BYTES < head_bytes + body_bytes)
        return NULL;
    if (!head_read_untrusted(&frame->head, data + PREFIX_BYTES, head_bytes))
        return "the head of a frame is not what it has to be";
    frame->bytes = PREFIX_BYTES + head_bytes + body_bytes;
    frame->body = data + PREFIX_BYTES + head_bytes;
    frame->body_bytes = body_bytes;
    return NULL;
}

void frame_begin(struct buffer *out, const struct buffer *head, size_t body_bytes)
{
    unsigned char prefix[PREFIX_BYTES];
    put_u32(prefix, (uint32_t)buffer_length(head));
    put_u32(prefix + 4, (uint32_t)body_bytes);
    buffer_reserve(out, sizeof prefix + buffer_length(head) + body_bytes);
    buffer_append(out, prefix, sizeof prefix);
    buffer_append(out, buffer_front(head), buffer_length(head));
}

void frame_show(char *to, size_t bytes, struct text from)
{
    size_t count = from.bytes < bytes - 1 ? from.bytes : bytes - 1;
    for (size_t k = 0; k < count; k++)
        to[k] = from.start[k] >= ' ' && from.start[k] < 127 ? from.start[k] : '?';
    to[count] = 0;
}
