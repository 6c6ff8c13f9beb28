// What a switch is built for. Each can be given to the compiler: -D VALUE_BYTES=128

#ifndef SIZES_P4
#define SIZES_P4

// Acceptors of a group, odd, 1 to 15.
#ifndef ACCEPTORS
#define ACCEPTORS 3
#endif

// The largest value: 8, 16, 32, 64 or 128 bytes.
#ifndef VALUE_BYTES
#define VALUE_BYTES 64
#endif

// The window is 2 to the power of this: the slots of a group. It is the same in the whole cluster.
#ifndef SLOT_BITS
#define SLOT_BITS 12
#endif

// A switch serves 2 to the power of this groups, each with registers of its own.
#ifndef GROUP_BITS
#define GROUP_BITS 1
#endif

#define VALUE_BITS (8 * VALUE_BYTES)
#define SEEN_BITS (32 * ACCEPTORS)
#define INDEX_BITS (GROUP_BITS + SLOT_BITS)

const bit<64> WINDOW = 64w1 << SLOT_BITS;
const bit<32> GROUPS = 32w1 << GROUP_BITS;
const bit<32> SLOTS = 32w1 << INDEX_BITS;
const bit<16> VALUE_BYTES_MAX = VALUE_BYTES;
const bit<16> ACCEPTORS_OF_GROUP = ACCEPTORS;

#endif
