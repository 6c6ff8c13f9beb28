// PHASE2A: votes.

#ifndef PHASE2_H
#define PHASE2_H

#include "registers.h"

// A vote implies the promise, for its own instance: the floor does not move.
INLINE enum outcome cast_vote(struct step *s)
{
    s->slot->instance = s->first;
    s->slot->round = s->m->round;
    s->slot->vround = s->m->round;
    s->slot->length = s->m->length;
    store_value(s->slot, s->value, s->m->length);
    promise(s);
    if (s->registers->highest < s->first)
        s->registers->highest = s->first;
    sign(s, PHASE2B, TELL);
    s->answer->vround = s->m->round;
    s->answer->length = s->m->length;
    s->answer->bytes = s->m->bytes;
    s->answer->same_value = 1;
    return VOTES;
}

// A vote that was cast in this round is told again, never overwritten: no values are compared.
INLINE enum outcome phase2a(struct step *s)
{
    if (s->m->round == NO_ROUND)
        return ROUND_ZERO;
    if (!in_window(s))
        return OUT_OF_WINDOW;
    if (s->m->length > VALUE_BYTES)
        return VALUE_TOO_LONG;
    if (s->m->round < s->registers->floor || s->m->round < s->round)
        return STALE_ROUND;
    if (s->vround != s->m->round)
        return cast_vote(s);
    tell_vote(s, TELL);
    return REPEATED_VOTES;
}

#endif
