// The wire format (docs/PROTOCOL.md, section 2) and the outcomes of packets. Generated
// from p4xos/wire.py and switch/xdp/outcomes.py by `python -m switch.xdp.generate`:
// change those.

#ifndef WIRE_H
#define WIRE_H

#include <linux/types.h>

#define WIRE_VERSION 1
#define HEADER_BYTES 40
#define PAYLOAD_BYTES_MAX 1472
#define NO_ROUND 0
#define END_OF_LOG 0xffffffffffffffffULL
#define ASK_ONE_BY_ONE 0xffffffffU
#define LOW_JUMP_MAX 0x10000000000ULL

enum message_type {
    PHASE1A = 1,
    PHASE1B = 2,
    PHASE2A = 3,
    PHASE2B = 4,
    REQUEST = 5,
    HEARTBEAT = 6,
    RECOVER = 7,
    LEARN = 8,
    CHECKPOINT = 9,
    READ_INDEX = 10,
    READ_INDEX_REPLY = 11,
    RECORD = 12,
    RECORDED = 13,
    RECOVERING = 14,
    ASK_CHECKPOINT = 15,
    TYPE_MAX = 15,
};

struct paxos {
    __u8 version;
    __u8 type;
    __be16 group;
    __be32 cluster;
    __be64 instance;
    __be32 round;
    __be32 vround;
    __be16 sender;
    __be16 length;
    __be32 incarnation;
    __be64 low;
};
_Static_assert(sizeof(struct paxos) == HEADER_BYTES, "the header");

enum outcome {
    PASSED = 0,
    FOREIGN = 1,
    CHECKSUM = 2,
    SHORT = 3,
    VERSION = 4,
    TYPE = 5,
    CLUSTER = 6,
    LENGTH = 7,
    SENDER = 8,
    IGNORED = 9,
    MALFORMED = 10,
    VALUE_TOO_LONG = 11,
    LOW_JUMP = 12,
    ROUND_ZERO = 13,
    STALE_ROUND = 14,
    OUT_OF_WINDOW = 15,
    RANGE = 16,
    NOT_HELD = 17,
    HEARTBEATS = 18,
    INACTIVE = 19,
    WINDOW_FULL = 20,
    PROMISES = 21,
    VOTES = 22,
    REPEATED_VOTES = 23,
    ANSWERS = 24,
    PROPOSED = 25,
    HANDED_UP = 26,
    CLOSED = 27,
    RACED = 28,
    OUTCOMES = 32,
};

#endif
