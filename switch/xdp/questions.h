// LEARN, READ_INDEX, RECORD: questions, which promise nothing.

#ifndef QUESTIONS_H
#define QUESTIONS_H

#include "registers.h"

// Of a range the first: the process is given the others.
INLINE enum outcome learn(struct step *s)
{
    if (!s->well_formed)
        return MALFORMED;
    if (!in_window(s) || s->end <= s->first || s->vround == NO_ROUND)
        return NOT_HELD;
    tell_vote(s, REPLY);
    return ANSWERS;
}

INLINE enum outcome read_index(struct step *s)
{
    if (s->m->instance > 1)
        return MALFORMED; // neither a proposer asks nor a coordinator
    sign(s, READ_INDEX_REPLY, REPLY);
    s->answer->instance = s->registers->highest;
    s->answer->round = s->registers->highest_round;
    s->answer->low = s->registers->low;
    return ANSWERS;
}

// Another one has forgotten: what it showed before is told apart from what it will show.
INLINE enum outcome record(struct step *s)
{
    __u32 forgetful = s->m->sender;
    if (s->m->length != 4 || s->m->instance != forgetful || forgetful >= ACCEPTORS)
        return MALFORMED;
    if (bpf_htons(forgetful) == s->endpoint->id)
        return IGNORED; // a question of its own former life
    __u32 told = bpf_be64_to_cpu(s->value->words[0]) >> 32;
    if (s->registers->seen[forgetful & 15] < told)
        s->registers->seen[forgetful & 15] = told;
    sign(s, RECORDED, REPLY);
    s->answer->round = s->registers->highest_round;
    s->answer->length = SEEN_BYTES;
    s->answer->bytes = SEEN_BYTES + 4;
    tell_seen(s, 0);
    return ANSWERS;
}

#endif
