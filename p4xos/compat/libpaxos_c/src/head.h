/* The head of a frame: a msgpack map with text keys (p4xos/framing.py). */
#ifndef HEAD_H
#define HEAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "buffer.h"

struct text {
    const char *start;      /* inside of the frame; not terminated */
    size_t bytes;
};

enum number_key { KEY_ID, KEY_NEXT, KEY_CLUSTER, KEY_VERSION, KEY_LIBPAXOS, NUMBER_KEYS };
enum text_key { KEY_ERROR, KEY_TEXT, KEY_LOG, TEXT_KEYS };

/* Of what a server tells, the part that matters here. */
struct head {
    bool has_number[NUMBER_KEYS], has_text[TEXT_KEYS];
    uint64_t numbers[NUMBER_KEYS];
    struct text texts[TEXT_KEYS];
};

/* False where the bytes are no map with text keys, or a key has a value of another kind. */
bool head_read_untrusted(struct head *head, const unsigned char *data, size_t bytes);

bool text_equals(struct text text, const char *other);

/* Writing one: the number of keys, then key after key. */
void head_begin(struct buffer *out, unsigned int keys);     /* at most 15 */
void head_add_text(struct buffer *out, const char *key, const char *value);
void head_add_number(struct buffer *out, const char *key, uint64_t value);

#endif
