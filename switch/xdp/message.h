// Where the key of a message is: a map of msgpack, one of whose fields is the key. What is not plain
// (a number as key, lists and maps before it) the process reads.

#ifndef MESSAGE_H
#define MESSAGE_H

#include "crc32.h"
#include "steering.h"

#define NOT_UNDERSTOOD 0xffffffff

enum kind { OTHER, SCALAR, TEXT, BYTES };

// A value of msgpack: where it begins behind its head, and how long it is.
struct item {
    __u32 start;
    __u32 bytes;
    __u32 kind;
};

INLINE __u32 byte_at(const struct payload *payload, __u32 at)
{
    asm volatile("" : "+r"(at));
    return at < sizeof(payload->bytes) ? payload->bytes[at] : 0;
}

INLINE __u32 two_bytes_at(const struct payload *payload, __u32 at)
{
    return byte_at(payload, at) << 8 | byte_at(payload, at + 1);
}

INLINE void of_kind(struct item *item, __u32 kind, __u32 start, __u32 bytes)
{
    item->kind = kind;
    item->start = start;
    item->bytes = bytes;
}

// https://github.com/msgpack/msgpack/blob/master/spec.md, "Formats"
INLINE void read_item(const struct payload *payload, __u32 at, struct item *item)
{
    __u32 first = byte_at(payload, at);
    if (first <= 0x7f || first >= 0xe0 || first == 0xc0 || first == 0xc2 || first == 0xc3)
        of_kind(item, SCALAR, at + 1, 0);
    else if (first >= 0xa0 && first <= 0xbf)
        of_kind(item, TEXT, at + 1, first & 0x1f);
    else if (first == 0xd9)
        of_kind(item, TEXT, at + 2, byte_at(payload, at + 1));
    else if (first == 0xda)
        of_kind(item, TEXT, at + 3, two_bytes_at(payload, at + 1));
    else if (first == 0xc4)
        of_kind(item, BYTES, at + 2, byte_at(payload, at + 1));
    else if (first == 0xc5)
        of_kind(item, BYTES, at + 3, two_bytes_at(payload, at + 1));
    else if (first == 0xca || first == 0xcb) // floats
        of_kind(item, SCALAR, at + 1, 4 << (first & 1));
    else if (first >= 0xcc && first <= 0xd3) // integers
        of_kind(item, SCALAR, at + 1, 1 << (first & 3));
    else
        of_kind(item, OTHER, at, 0);
}

INLINE int is_named(const struct service *service, const struct payload *payload,
                    const struct item *name)
{
    if (name->bytes != service->name_bytes || name->bytes > NAME_BYTES)
        return 0;
#pragma clang loop unroll(disable)
    for (__u32 i = 0; i < NAME_BYTES; i++) {
        if (i >= name->bytes)
            break;
        if (byte_at(payload, name->start + i) != service->name[i])
            return 0;
    }
    return 1;
}

// The kernel does the looping (bpf_loop), so that the verifier need not follow a message of every
// length. What a loop changes is in a map, not on the stack: of that the verifier would keep count.
struct search {
    const struct service *service;
    struct payload *payload;
    __u32 bytes;
    __u32 found; // the kind of the key; OTHER: none
    struct item key;
};

static long look_at_field(__u32 __attribute__((unused)) number, struct search *s)
{
    struct item name, value;
    read_item(s->payload, s->payload->at, &name);
    __u32 at = name.start + name.bytes;
    if (name.kind != TEXT || at >= s->bytes)
        return 1;
    read_item(s->payload, at, &value);
    at = value.start + value.bytes;
    if (value.kind == OTHER || at > s->bytes)
        return 1;
    s->payload->at = at;
    if (!is_named(s->service, s->payload, &name))
        return 0;
    s->found = value.kind;
    s->key = value;
    return 1;
}

// Whether there is a key that is text or bytes, within the datagram.
INLINE int find_key(struct search *s, __u32 at)
{
    __u32 first = byte_at(s->payload, at);
    if ((first & 0xf0) != 0x80)
        return 0;
    s->payload->at = at + 1;
    bpf_loop(first & 0x0f, look_at_field, s, 0);
    return s->found == TEXT || s->found == BYTES;
}

struct hashing {
    struct payload *payload;
};

static long hash_byte(__u32 __attribute__((unused)) number, struct hashing *h)
{
    __u32 next = byte_at(h->payload, h->payload->at++);
    h->payload->crc = CRC32_TABLE[(h->payload->crc ^ next) & 0xff] ^ h->payload->crc >> 8;
    return 0;
}

// The same as shard_of in p4xos/chunnels/sharding.py; a test compares.
INLINE __u32 hash_of(struct payload *payload, const struct item *key)
{
    struct hashing hashing = {.payload = payload};
    payload->at = key->start;
    payload->crc = 0xffffffff;
    bpf_loop(key->bytes, hash_byte, &hashing, 0);
    return ~payload->crc;
}

// The shard that a client's datagram is for, or NOT_UNDERSTOOD.
INLINE __u32 shard_of(const struct service *service, const struct connection *connection,
                      struct payload *payload, __u32 bytes)
{
    __u32 at = sizeof(struct head), shards = service->shards;
    if (shards == 0)
        return NOT_UNDERSTOOD;
    if (connection->numbered) {
        __u32 kind = byte_at(payload, at), origin = byte_at(payload, at + ORIGIN_AT);
        __u32 acks = byte_at(payload, at + ACKS_AT);
        if (kind == SINGLY_ACK)
            return origin >= 1 && origin <= shards ? origin - 1 : NOT_UNDERSTOOD;
        if (kind != SINGLY_MESSAGE || acks > ACKS_MAX)
            return NOT_UNDERSTOOD;
        at += SINGLY_HEADER_BYTES + acks * ACK_BYTES;
    }
    struct search search = {.service = service, .payload = payload, .bytes = bytes};
    if (at >= bytes || !find_key(&search, at))
        return NOT_UNDERSTOOD;
    return hash_of(payload, &search.key) % shards;
}

#endif
