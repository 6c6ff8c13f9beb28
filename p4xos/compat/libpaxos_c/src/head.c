#include "head.h"

#include <assert.h>
#include <string.h>

#include "bytes.h"

/* Reading -------------------------------------------------------------------------------------- */

struct reader {
    const unsigned char *at, *end;
};

enum kind { NUMBER, TEXT, MAP, OTHER };

/* One item without those that are in it. */
struct item {
    enum kind kind;
    uint64_t number;        /* a number's value; how many items follow that belong to it */
    struct text text;
};

static bool take(struct reader *reader, size_t bytes, const unsigned char **taken)
{
    if ((size_t)(reader->end - reader->at) < bytes)
        return false;
    *taken = reader->at;
    reader->at += bytes;
    return true;
}

/* An unsigned number of 1, 2, 4 or 8 bytes. */
static bool take_number(struct reader *reader, size_t bytes, uint64_t *value)
{
    const unsigned char *from;
    if (!take(reader, bytes, &from))
        return false;
    *value = 0;
    for (size_t k = 0; k < bytes; k++)
        *value = *value << 8 | from[k];
    return true;
}

static bool take_bytes(struct reader *reader, size_t bytes, struct text *text)
{
    const unsigned char *from;
    if (!take(reader, bytes, &from))
        return false;
    *text = (struct text){(const char *)from, bytes};
    return true;
}

/* Bytes behind a length of so many bytes, and so many more. */
static bool take_counted(struct reader *reader, size_t length_bytes, size_t more, struct text *text)
{
    uint64_t length;
    return take_number(reader, length_bytes, &length) && length <= SIZE_MAX - more
        && take_bytes(reader, (size_t)length + more, text);
}

static bool read_marked(struct reader *reader, unsigned char mark, struct item *item)
{
    const unsigned char *skipped;
    struct text bytes;
    switch (mark) {
    case 0xc0: case 0xc2: case 0xc3:                        /* nil, false, true */
        return true;
    case 0xc4: case 0xc5: case 0xc6:                        /* bin */
        return take_counted(reader, (size_t)1 << (mark - 0xc4), 0, &bytes);
    case 0xc7: case 0xc8: case 0xc9:                        /* ext: a length, a type */
        return take_counted(reader, (size_t)1 << (mark - 0xc7), 1, &bytes);
    case 0xca: case 0xcb:                                   /* float */
        return take(reader, mark == 0xca ? 4 : 8, &skipped);
    case 0xcc: case 0xcd: case 0xce: case 0xcf:             /* unsigned */
        item->kind = NUMBER;
        return take_number(reader, (size_t)1 << (mark - 0xcc), &item->number);
    case 0xd0: case 0xd1: case 0xd2: case 0xd3:             /* signed: nothing here is negative */
        return take(reader, (size_t)1 << (mark - 0xd0), &skipped);
    case 0xd4: case 0xd5: case 0xd6: case 0xd7: case 0xd8:  /* ext: a type, 1 to 16 bytes */
        return take(reader, ((size_t)1 << (mark - 0xd4)) + 1, &skipped);
    case 0xd9: case 0xda: case 0xdb:                        /* text */
        item->kind = TEXT;
        return take_counted(reader, (size_t)1 << (mark - 0xd9), 0, &item->text);
    case 0xdc: case 0xdd:                                   /* array */
        return take_number(reader, mark == 0xdc ? 2 : 4, &item->number);
    case 0xde: case 0xdf:                                   /* map */
        item->kind = MAP;
        if (!take_number(reader, mark == 0xde ? 2 : 4, &item->number))
            return false;
        item->number *= 2;
        return true;
    default:                                                /* 0xc1 means nothing */
        return false;
    }
}

static bool read_item(struct reader *reader, struct item *item)
{
    const unsigned char *mark;
    *item = (struct item){.kind = OTHER};
    if (!take(reader, 1, &mark))
        return false;
    if (*mark < 0x80) {
        *item = (struct item){.kind = NUMBER, .number = *mark};
        return true;
    }
    if (*mark < 0x90) {
        *item = (struct item){.kind = MAP, .number = 2 * (*mark & 0x0fu)};
        return true;
    }
    if (*mark < 0xa0) {
        item->number = *mark & 0x0fu;
        return true;
    }
    if (*mark < 0xc0) {
        item->kind = TEXT;
        return take_bytes(reader, *mark & 0x1fu, &item->text);
    }
    if (*mark >= 0xe0)
        return true;                                        /* a small negative number */
    return read_marked(reader, *mark, item);
}

/* What belongs to an item that was read. Each has a byte at least, so this ends; nothing is
 * nested on the stack. */
static bool skip_content(struct reader *reader, const struct item *item)
{
    uint64_t left = item->kind == NUMBER || item->kind == TEXT ? 0 : item->number;
    while (left) {
        struct item inner;
        if (left > (size_t)(reader->end - reader->at) || !read_item(reader, &inner))
            return false;
        left--;
        if (inner.kind != NUMBER)
            left += inner.number;
    }
    return true;
}

static const char *const number_names[NUMBER_KEYS] = {
    [KEY_ID] = "id", [KEY_NEXT] = "next", [KEY_CLUSTER] = "cluster",
    [KEY_VERSION] = "version", [KEY_LIBPAXOS] = "libpaxos",
};
static const char *const text_names[TEXT_KEYS] = {
    [KEY_ERROR] = "error", [KEY_TEXT] = "text", [KEY_LOG] = "log",
};

bool text_equals(struct text text, const char *other)
{
    return strlen(other) == text.bytes && memcmp(text.start, other, text.bytes) == 0;
}

static bool keep(struct head *head, struct text key, const struct item *item)
{
    for (int k = 0; k < NUMBER_KEYS; k++)
        if (text_equals(key, number_names[k])) {
            head->has_number[k] = true;
            head->numbers[k] = item->number;
            return item->kind == NUMBER;
        }
    for (int k = 0; k < TEXT_KEYS; k++)
        if (text_equals(key, text_names[k])) {
            head->has_text[k] = true;
            head->texts[k] = item->text;
            return item->kind == TEXT;
        }
    return true;
}

bool head_read_untrusted(struct head *head, const unsigned char *data, size_t bytes)
{
    struct reader reader = {data, data + bytes};
    struct item map, key, value;
    *head = (struct head){0};
    if (!read_item(&reader, &map) || map.kind != MAP)
        return false;
    for (uint64_t left = map.number; left; left -= 2) {
        if (!read_item(&reader, &key) || key.kind != TEXT || !read_item(&reader, &value)
            || !keep(head, key.text, &value) || !skip_content(&reader, &value))
            return false;
    }
    return reader.at == reader.end;
}

/* Writing -------------------------------------------------------------------------------------- */

void head_begin(struct buffer *out, unsigned int keys)
{
    assert(keys < 16);
    buffer_append(out, &(unsigned char){(unsigned char)(0x80 | keys)}, 1);
}

static void add_short_text(struct buffer *out, const char *text)
{
    size_t bytes = strlen(text);
    assert(bytes < 32);
    buffer_append(out, &(unsigned char){(unsigned char)(0xa0 | bytes)}, 1);
    buffer_append(out, text, bytes);
}

void head_add_text(struct buffer *out, const char *key, const char *value)
{
    add_short_text(out, key);
    add_short_text(out, value);
}

void head_add_number(struct buffer *out, const char *key, uint64_t value)
{
    unsigned char packed[9] = {0xcf};
    add_short_text(out, key);
    put_u64(packed + 1, value);
    buffer_append(out, packed, sizeof packed);
}
