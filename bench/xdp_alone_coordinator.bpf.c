// The coordinator's program by itself, run again and again by BPF_PROG_TEST_RUN: before each run the
// packet, which the last one made a proposal, is made the REQUEST again, and the window follows.
// What that costs is part of the figure; sending is not.

#include "coordinator.bpf.c"

struct question {
    __u8 packet[VALUE_AT + 6];
};

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct question);
} questions SEC(".maps");

SEC("xdp")
int alone(struct xdp_md *ctx)
{
    __u32 zero = 0;
    struct question *question = bpf_map_lookup_elem(&questions, &zero);
    struct settings *settings = bpf_map_lookup_elem(&control, &zero);
    struct sequence *sequence = bpf_map_lookup_elem(&numbers, &zero);
    if (!question || !settings || !sequence)
        return XDP_ABORTED;
    if (bpf_xdp_store_bytes(ctx, 0, question->packet, VALUE_AT))
        return XDP_ABORTED;
    settings->low = sequence->next;
    return receive(ctx);
}
