// What a program is built for; the controller gives them to the compiler: -D VALUE_BYTES=1432

#ifndef SIZES_H
#define SIZES_H

#include "wire.h"

// Acceptors of a group, odd, 1 to 15.
#ifndef ACCEPTORS
#define ACCEPTORS 3
#endif

// The largest value: a multiple of 8, up to what one frame carries.
#ifndef VALUE_BYTES
#define VALUE_BYTES (PAYLOAD_BYTES_MAX - HEADER_BYTES)
#endif

// The window is 2 to the power of this: the slots of the group. It is the same in the whole cluster.
#ifndef SLOT_BITS
#define SLOT_BITS 14
#endif

#define WINDOW (1ULL << SLOT_BITS)
#define VALUE_WORDS (VALUE_BYTES / 8)
#define PAYLOAD_WORDS ((PAYLOAD_BYTES_MAX - HEADER_BYTES) / 8)
#define SEEN_BYTES (4 * ACCEPTORS)
#define SUMMARY_BYTES (16 + SEEN_BYTES)
#define RECEIVERS_MAX 128 // more than there can be acceptors, or learners

_Static_assert(VALUE_BYTES % 8 == 0 && VALUE_WORDS <= PAYLOAD_WORDS, "a value fits one frame");
_Static_assert(ACCEPTORS % 2 == 1 && ACCEPTORS <= 15, "acceptors are odd, 1 to 15");

#endif
