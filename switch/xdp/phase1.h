// PHASE1A: promises.

#ifndef PHASE1_H
#define PHASE1_H

#include "registers.h"

INLINE enum outcome summary(struct step *s, __u32 votes)
{
    sign(s, PHASE1B, REPLY);
    s->value->words[0] = bpf_cpu_to_be64(s->registers->highest);
    s->value->words[1] = bpf_cpu_to_be64((__u64)votes << 32 | s->m->vround);
    tell_seen(s, 2);
    s->answer->instance = s->first;
    s->answer->vround = NO_ROUND;
    s->answer->length = SUMMARY_BYTES;
    s->answer->bytes = SUMMARY_BYTES + 4;
    return PROMISES;
}

// For every instance, to the end of the log.
INLINE enum outcome promise_log(struct step *s)
{
    s->registers->floor = s->m->round;
    promise(s);
    return summary(s, ASK_ONE_BY_ONE);
}

// For one: the slot's round, and what the slot voted.
INLINE enum outcome promise_instance(struct step *s)
{
    if (s->m->round < s->round)
        return STALE_ROUND;
    s->slot->instance = s->first; // one of another instance is emptied
    s->slot->round = s->m->round;
    s->slot->vround = s->vround;
    s->slot->length = s->length;
    promise(s);
    sign(s, PHASE1B, REPLY);
    tell_slot(s);
    return PROMISES;
}

INLINE enum outcome phase1a(struct step *s)
{
    if (s->m->round == NO_ROUND)
        return ROUND_ZERO;
    if (!s->well_formed)
        return MALFORMED;
    if (s->m->round < s->registers->floor)
        return STALE_ROUND;
    if (s->end == END_OF_LOG)
        return promise_log(s);
    if (s->end <= s->first || !in_window(s))
        return summary(s, 0); // nothing of the range is in the window; this tells where that is
    if (s->end - s->first == 1 || s->first - s->registers->low == WINDOW - 1)
        return promise_instance(s);
    return RANGE;
}

#endif
