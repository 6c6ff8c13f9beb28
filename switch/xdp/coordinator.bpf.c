// The coordinator's data plane (docs/PROTOCOL.md, section 4; the numpy one is
// p4xos/roles/sequencer.py).
//
//     REQUEST, round != NO_ROUND, next < low + WINDOW:  PHASE2A (next, round, value) to all
//                                                       acceptors; next = next + 1
//     any other REQUEST, and anything else:             the process beside it, which is the
//                                                       coordinator; and a counter
//
// Only the controller writes `round` and `low`. For a takeover it writes round 0, then low and
// next, then the round. Registers are 0 at first: a machine that restarts is inactive.
//
//     admission.h  is it for this program, and from whom?      sending.h  where a packet goes
//     packet.h     headers, checksums

#include "admission.h"
#include "sending.h"

struct settings {
    __u64 round; // won by phase 1 to the end of the log; NO_ROUND: inactive
    __u64 low;   // nothing below is proposed
};

struct sequence {
    struct bpf_spin_lock lock;
    __u32 unused;
    __u64 next; // never proposed in this round
};

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct settings);
} control SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct sequence);
} numbers SEC(".maps");

INLINE enum outcome propose(const struct message *m, struct answer *answer, __u64 instance,
                            __u32 round, __u64 low)
{
    answer->type = PHASE2A;
    answer->verdict = TELL;
    answer->instance = instance;
    answer->round = round;
    answer->low = low;
    answer->length = m->length;
    answer->bytes = m->bytes;
    answer->same_value = 1;
    return PROPOSED;
}

// Round, low and next are read together: a packet sees them all before a takeover, or none.
INLINE enum outcome request(const struct message *m, struct answer *answer)
{
    __u32 zero = 0;
    struct settings *settings = bpf_map_lookup_elem(&control, &zero);
    struct sequence *sequence = bpf_map_lookup_elem(&numbers, &zero);
    enum outcome outcome;
    if (!settings || !sequence)
        return INACTIVE;
    bpf_spin_lock(&sequence->lock);
    __u32 round = settings->round;
    __u64 low = settings->low;
    // The controller raises low alone: checkpoints may have passed what was proposed here.
    if (sequence->next < low)
        sequence->next = low;
    if (round == NO_ROUND)
        outcome = INACTIVE;
    else if (m->length > VALUE_BYTES)
        outcome = VALUE_TOO_LONG;
    else if (sequence->next - low >= WINDOW)
        outcome = WINDOW_FULL;
    else
        outcome = propose(m, answer, sequence->next++, round, low);
    bpf_spin_unlock(&sequence->lock);
    return outcome;
}

// The process queues requests, follows others, asks for promises: all that is not numbering.
INLINE int is_for_coordinator(enum outcome outcome)
{
    return outcome == IGNORED || outcome == INACTIVE || outcome == WINDOW_FULL;
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
        if (m.type != REQUEST)
            outcome = IGNORED;
        else if (!m.injected && !endpoint->ready)
            outcome = HANDED_UP;
        else
            outcome = request(&m, &answer);
    }
    count(outcome);
    if (is_for_process(outcome) || is_for_coordinator(outcome))
        return XDP_PASS;
    return send(ctx, endpoint, &answer, value);
}

SEC("xdp")
int coordinator(struct xdp_md *ctx)
{
    return receive(ctx);
}

char LICENSE[] SEC("license") = "GPL"; // else the kernel forbids some of what is called here
