// The acceptor's program by itself, run again and again on one packet by BPF_PROG_TEST_RUN: before
// each run the packet, which the last one made a vote, is made the PHASE2A of the next instance.
// What that costs is part of the figure; sending is not.

#include "acceptor.bpf.c"

struct question {
    __u64 instance; // of the next packet
    __u64 unused;
    __u8 packet[VALUE_AT + 6]; // instance and low 0, checksum for that
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
    struct headers found, *headers = &found;
    struct question *question = bpf_map_lookup_elem(&questions, &zero);
    if (!question || bpf_xdp_store_bytes(ctx, 0, question->packet, VALUE_AT))
        return XDP_ABORTED;
    if (!find_headers(ctx, headers))
        return XDP_ABORTED;
    __u64 instance = question->instance++;
    __u64 low = instance > WINDOW / 2 ? instance - WINDOW / 2 : 1;
    headers->paxos->instance = bpf_cpu_to_be64(instance);
    headers->paxos->low = bpf_cpu_to_be64(low);
    __u64 sum = (__u16)~headers->udp->check;
    sum = add(add(sum, headers->paxos->instance), headers->paxos->low);
    headers->udp->check = ~fold(sum);
    return receive(ctx);
}
