// The acceptor's registers (docs/PROTOCOL.md, section 3), and what is done to them at one place.
//
// One lock guards all of them, for packets come in on all processors; what it guards may not call
// the kernel, so a slot is looked up before, and what was looked up for is checked again behind it.

#ifndef REGISTERS_H
#define REGISTERS_H

#include "sending.h"

// All 0 at first: a machine that restarts has forgotten. The controller writes what section 8 says.
struct registers {
    struct bpf_spin_lock lock;
    __u32 floor;         // promised for every instance, voted or not
    __u32 highest_round; // >= floor and every slot's round
    __u32 unused;
    __u64 low;     // every instance below is forgotten
    __u64 highest; // of all votes; never below low - 1
    __u32 seen[16]; // incarnations of all acceptors
};

struct slot {
    __u64 instance; // 0: the slot never held one
    __u32 round;    // promised, >= vround
    __u32 vround;   // NO_ROUND: no vote
    __u64 length;   // bytes of the value
    __u64 value[VALUE_WORDS];
};

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct registers);
} group SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, WINDOW);
    __type(key, __u32);
    __type(value, struct slot);
} slots SEC(".maps");

// A message on its way through the rules, with all that it meets.
struct step {
    const struct message *m;
    const struct endpoint *endpoint;
    struct registers *registers;
    struct slot *slot;
    struct value *value;
    struct answer *answer;
    __u64 first; // the instance that the slot is looked up for
    __u64 end;   // PHASE1A, LEARN: exclusive
    __u32 round; // of the slot, for `first`; likewise:
    __u32 vround;
    __u32 length;
    __u8 well_formed; // PHASE1A, LEARN: there is an end
};

// What the message asks for: [first, end), `first` clipped to low.
INLINE int moves_low(__u8 type)
{
    return type == PHASE1A || type == PHASE2A || type == HEARTBEAT;
}

INLINE int asks_range(__u8 type)
{
    return type == PHASE1A || type == LEARN;
}

INLINE __u64 first_asked(const struct message *m, __u64 low)
{
    if (moves_low(m->type) && m->low > low)
        low = m->low;
    return asks_range(m->type) && m->instance < low ? low : m->instance;
}

// The window's lower end moves, only up.
INLINE int raise_low(struct registers *registers, const struct message *m)
{
    if (!moves_low(m->type) || m->low <= registers->low)
        return 1;
    if (m->low - registers->low > LOW_JUMP_MAX)
        return 0;
    registers->low = m->low;
    if (registers->highest < m->low - 1)
        registers->highest = m->low - 1;
    return 1;
}

INLINE int in_window(const struct step *s)
{
    return s->first >= s->registers->low && s->first - s->registers->low < WINDOW;
}

// What the slot holds of `first`: a slot of another instance holds nothing.
INLINE void load_slot(struct step *s)
{
    int same = in_window(s) && s->slot->instance == s->first;
    s->round = same ? s->slot->round : NO_ROUND;
    s->vround = same ? s->slot->vround : NO_ROUND;
    s->length = same ? s->slot->length : 0;
}

INLINE void promise(struct step *s)
{
    if (s->registers->highest_round < s->m->round)
        s->registers->highest_round = s->m->round;
}

// Zeros behind the first bytes of a word.
INLINE __u64 first_bytes(__u64 word, __u32 bytes)
{
    return word & bpf_cpu_to_be64(~0ULL << (64 - 8 * bytes));
}

INLINE void store_value(struct slot *slot, const struct value *value, __u32 length)
{
    __u32 words = length / 8, rest = length % 8;
    for (__u32 i = 0; i < VALUE_WORDS; i++) {
        if (i >= words)
            break;
        slot->value[i] = value->words[i];
    }
    SEEN_BY_VERIFIER(words);
    if (rest && words < VALUE_WORDS)
        slot->value[words] = first_bytes(value->words[words], rest);
}

INLINE void fetch_value(struct value *value, const struct slot *slot, __u32 length)
{
    __u32 words = (length + 7) / 8;
    for (__u32 i = 0; i < VALUE_WORDS; i++) {
        if (i >= words)
            break;
        value->words[i] = slot->value[i];
    }
}

// Answers -----------------------------------------------------------------------------------------

INLINE void sign(struct step *s, __u8 type, __u8 verdict)
{
    s->answer->type = type;
    s->answer->verdict = verdict;
    s->answer->instance = s->m->instance;
    s->answer->round = s->m->round;
    s->answer->vround = s->m->vround;
    s->answer->incarnation = s->endpoint->incarnation;
}

// The slot's value leaves with it, filled with zeros to a whole word.
INLINE void tell_slot(struct step *s)
{
    fetch_value(s->value, s->slot, s->length);
    s->answer->instance = s->first;
    s->answer->vround = s->vround;
    s->answer->length = s->length;
    s->answer->bytes = (s->length + 7) & ~7u;
}

// The PHASE2B of the slot's vote: its round is the vote's, whatever was promised since.
INLINE void tell_vote(struct step *s, __u8 verdict)
{
    sign(s, PHASE2B, verdict);
    tell_slot(s);
    s->answer->round = s->vround;
}

INLINE void tell_seen(struct step *s, __u32 word)
{
    __be32 *cell = (__be32 *)&s->value->words[word];
#pragma unroll
    for (int a = 0; a < ACCEPTORS; a++)
        cell[a] = bpf_htonl(s->registers->seen[a]);
    cell[ACCEPTORS] = 0; // ACCEPTORS is odd: up to a whole word
    s->answer->low = s->registers->low;
}

#endif
