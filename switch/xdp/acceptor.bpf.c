// The acceptor (docs/PROTOCOL.md, section 3; the numpy one is p4xos/roles/acceptor.py).
//
//     PHASE1A, PHASE2A, HEARTBEAT, msg.low > low:  low = msg.low; highest = max(highest, low - 1)
//
//     PHASE1A to the end, round >= floor:          floor = round; reply PHASE1B summary   phase1.h
//     PHASE1A of i alone, round >= promised(i):    slot[i].round = round; reply PHASE1B vote
//     PHASE2A i in window, round >= promised(i):   slot[i] = (i, round, round, value);    phase2.h
//                                                  highest = max(highest, i); tell PHASE2B
//     PHASE2A i voted in that round already:       tell PHASE2B from the slot
//     LEARN [i, j):                                reply PHASE2B of i from the slot       questions.h
//     READ_INDEX:                                  reply highest, highest_round, low
//     RECORD of another acceptor a:                seen[a] = max(seen[a], incarnation told);
//                                                  reply highest_round, low, seen
//     anything else, and every stale round:        silence and a counter
//
// promised(i) = max(floor, slot.round if slot.instance == i). One packet leaves for one, so a
// summary says that it is to be asked for one instance at a time.
//
//     admission.h  is it for this program, and from whom?      registers.h  what it holds
//     packet.h     headers, checksums                          sending.h    where a packet goes

#include "admission.h"
#include "phase1.h"
#include "phase2.h"
#include "questions.h"
#include "registers.h"
#include "sending.h"

// Message type -> action.
INLINE enum outcome rules(struct step *s)
{
    switch (s->m->type) {
    case PHASE1A:
        return phase1a(s);
    case PHASE2A:
        return phase2a(s);
    case HEARTBEAT:
        return HEARTBEATS;
    case LEARN:
        return learn(s);
    case READ_INDEX:
        return read_index(s);
    case RECORD:
        return record(s);
    default:
        return IGNORED;
    }
}

// The end of a range is the whole value, or there is none.
INLINE void read_end(struct step *s)
{
    s->end = s->m->length == 8 ? bpf_be64_to_cpu(s->value->words[0]) : 0;
    s->well_formed = s->m->length == 8 && s->end >= s->m->instance;
}

// The bound is part of the index: nothing else ever is one. What is out of the window finds a
// slot too, and `in_window` keeps every rule from looking at it.
INLINE enum outcome act(struct step *s)
{
    __u32 zero = 0;
    enum outcome outcome;
    s->registers = bpf_map_lookup_elem(&group, &zero);
    if (!s->registers)
        return IGNORED;
    s->first = first_asked(s->m, s->registers->low);
    __u32 index = s->first & (WINDOW - 1);
    s->slot = bpf_map_lookup_elem(&slots, &index);
    if (!s->slot)
        return IGNORED;
    bpf_spin_lock(&s->registers->lock);
    if (!raise_low(s->registers, s->m)) {
        outcome = LOW_JUMP;
    } else if (s->first != first_asked(s->m, s->registers->low)) {
        outcome = RACED;
    } else {
        load_slot(s);
        outcome = rules(s);
    }
    bpf_spin_unlock(&s->registers->lock);
    return outcome;
}

// What one packet cannot answer, the process does, on the same registers.
INLINE int is_too_much(const struct step *s)
{
    if (s->m->injected)
        return 0;
    if (asks_range(s->m->type))
        return s->well_formed && s->end - s->m->instance > 1;
    return s->m->type == PHASE2A && !s->endpoint->ready;
}

INLINE int receive(struct xdp_md *ctx)
{
    __u32 zero = 0;
    struct endpoint *endpoint = bpf_map_lookup_elem(&endpoints, &zero);
    if (!endpoint)
        return XDP_PASS;
    struct message m = {.injected = is_injected(ctx)};
    __u32 of = m.injected;
    struct value *value = bpf_map_lookup_elem(&values, &of);
    if (!value)
        return XDP_PASS;
    struct answer answer = {};
    enum outcome outcome = admit(ctx, endpoint, &m, value);
    if (outcome == PASSED) {
        struct step s = {.m = &m, .endpoint = endpoint, .value = value, .answer = &answer};
        read_end(&s);
        outcome = is_too_much(&s) ? HANDED_UP : act(&s);
    }
    count(outcome);
    return is_for_process(outcome) ? XDP_PASS : send(ctx, endpoint, &answer, value);
}

SEC("xdp")
int acceptor(struct xdp_md *ctx)
{
    return receive(ctx);
}

char LICENSE[] SEC("license") = "GPL"; // else the kernel forbids some of what is called here
