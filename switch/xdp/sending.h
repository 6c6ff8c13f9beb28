// Where a packet goes: the one place that decides it. Whatever has no verdict is dropped.
//
// An XDP program sends one packet for one, so those that are for an audience are given to a map of
// devices, which copies them. The kernel runs one program on all that wait for a device: it tells
// the copies that leave there apart by their order (`copies`).

#ifndef SENDING_H
#define SENDING_H

#include "admission.h"

enum verdict {
    SILENCE,
    REPLY, // back to who sent the message
    TELL,  // to all of the audience
};

// What leaves, in the order of the machine; its value is in `struct value`.
struct answer {
    __u64 instance;
    __u64 low;
    __u32 round;
    __u32 vround;
    __u32 incarnation; // as on the wire
    __u16 length;
    __u16 bytes; // behind the header
    __u8 type;
    __u8 verdict;
    __u8 same_value; // it is in the packet already
};

// Whom this program tells: acceptors, or learners; those behind one interface stand together.
// Written by the controller, as the maps below.
struct receiver {
    __be32 host;
    __be16 port;
    __u8 mac[ETH_ALEN]; // of the next machine on the way
    __u8 own[ETH_ALEN]; // of the interface
    __u16 unused;
};

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, RECEIVERS_MAX);
    __type(key, __u32);
    __type(value, struct receiver);
} receivers SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_DEVMAP);
    __uint(max_entries, RECEIVERS_MAX);
    __uint(key_size, sizeof(__u32));
    __uint(value_size, sizeof(struct bpf_devmap_val));
} audience SEC(".maps");

// The receivers behind an interface: so many from the first on.
struct behind {
    __u32 first;
    __u32 count;
};

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, RECEIVERS_MAX);
    __type(key, __u32); // the interface's number
    __type(value, struct behind);
} interfaces SEC(".maps");

// By processor: the number of the last packet that was told, in entry 0; and how far the copies
// that leave by an interface are, in the entry of its first receiver.
struct telling {
    __u16 number;
    __u16 copied_number;
    __u32 copies;
};

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, RECEIVERS_MAX);
    __type(key, __u32);
    __type(value, struct telling);
} tellings SEC(".maps");

INLINE struct telling *telling(__u32 entry)
{
    return bpf_map_lookup_elem(&tellings, &entry);
}

INLINE void address(struct headers *headers, const struct endpoint *endpoint, __u8 verdict)
{
    __u8 source[ETH_ALEN];
    __builtin_memcpy(source, headers->ethernet->h_source, ETH_ALEN);
    __builtin_memcpy(headers->ethernet->h_source, headers->ethernet->h_dest, ETH_ALEN);
    if (verdict == REPLY) {
        __builtin_memcpy(headers->ethernet->h_dest, source, ETH_ALEN);
        headers->ip->daddr = headers->ip->saddr;
        headers->udp->dest = headers->udp->source;
    } else {
        headers->ip->daddr = 0; // each copy gets its own
        headers->udp->dest = 0;
    }
    headers->ip->saddr = endpoint->host;
    headers->udp->source = endpoint->port;
}

INLINE void write_header(struct headers *headers, const struct endpoint *endpoint,
                         const struct answer *answer)
{
    headers->paxos->type = answer->type;
    headers->paxos->instance = bpf_cpu_to_be64(answer->instance);
    headers->paxos->round = bpf_htonl(answer->round);
    headers->paxos->vround = bpf_htonl(answer->vround);
    headers->paxos->sender = endpoint->id;
    headers->paxos->length = bpf_htons(answer->length);
    headers->paxos->incarnation = answer->incarnation;
    headers->paxos->low = bpf_cpu_to_be64(answer->low);
}

// Lengths and checksums of a packet that is otherwise complete.
INLINE void seal(struct headers *headers, const struct value *value, __u32 bytes, __u16 number)
{
    headers->udp->len = bpf_htons(sizeof(struct udphdr) + HEADER_BYTES + bytes);
    headers->ip->tot_len = bpf_htons(sizeof(struct iphdr) + sizeof(struct udphdr) + HEADER_BYTES + bytes);
    headers->ip->id = bpf_htons(number); // one after the other: receivers join them (GRO)
    headers->ip->ttl = 64;
    headers->ip->check = 0;
    headers->ip->check = ~fold(sum_of_ip(headers->ip));
    headers->udp->check = 0;
    __u16 check = ~fold(sum_of_headers(headers) + sum_of_value(value, bytes));
    headers->udp->check = check ? check : 0xffff; // 0 would mean: none
}

// Makes room for the answer's value and writes it. A driver may have left too little behind the
// packet, which is then as it was: the process answers it. All that is answered so may come twice.
INLINE int write_value(struct xdp_md *ctx, const struct value *value, __u32 bytes)
{
    if (bpf_xdp_adjust_tail(ctx, (int)(VALUE_AT + bytes) - (int)bpf_xdp_get_buff_len(ctx)))
        return -1;
    if (bytes == 0)
        return 0;
    SEEN_BY_VERIFIER(bytes);
    if (bytes == 0 || bytes > sizeof(value->words))
        return -1;
    return bpf_xdp_store_bytes(ctx, VALUE_AT, (void *)value->words, bytes);
}

INLINE int send(struct xdp_md *ctx, const struct endpoint *endpoint, const struct answer *answer,
                const struct value *value)
{
    __u32 bytes = answer->bytes;
    __u16 number = 0;
    if (answer->verdict == SILENCE)
        return XDP_DROP;
    if (!answer->same_value && write_value(ctx, value, bytes) < 0) {
        count(HANDED_UP);
        return XDP_PASS;
    }
    struct headers found, *headers = &found;
    struct telling *told = telling(0);
    if (!told || !find_headers(ctx, headers))
        return XDP_ABORTED;
    if (answer->verdict == TELL)
        number = ++told->number;
    address(headers, endpoint, answer->verdict);
    write_header(headers, endpoint, answer);
    seal(headers, value, bytes, number);
    if (answer->verdict == REPLY) // XDP_TX does not wake a veth whose other end runs no program
        return bpf_redirect(ctx->ingress_ifindex, 0);
    return bpf_redirect_map(&audience, 0, BPF_F_BROADCAST);
}

// One copy after the other gets its address. They come in the order of the audience, packet by
// packet; a copy that the kernel had no memory for is lost like any other datagram.
SEC("xdp/devmap")
int copies(struct xdp_md *ctx)
{
    struct headers found, *headers = &found;
    __u32 interface = ctx->egress_ifindex;
    struct behind *behind = bpf_map_lookup_elem(&interfaces, &interface);
    struct telling *told = behind ? telling(behind->first) : 0;
    if (!told || !find_headers(ctx, headers))
        return XDP_DROP;
    if (told->copied_number != bpf_ntohs(headers->ip->id)) {
        told->copied_number = bpf_ntohs(headers->ip->id);
        told->copies = 0;
    }
    __u32 copy = behind->first + told->copies;
    if (told->copies++ >= behind->count)
        return XDP_DROP;
    struct receiver *to = bpf_map_lookup_elem(&receivers, &copy);
    if (!to)
        return XDP_DROP;
    __builtin_memcpy(headers->ethernet->h_dest, to->mac, ETH_ALEN);
    __builtin_memcpy(headers->ethernet->h_source, to->own, ETH_ALEN);
    headers->ip->daddr = to->host;
    headers->udp->dest = to->port;
    headers->ip->check = ~fold((__u16)~headers->ip->check + (__u64)to->host);
    __u16 check = ~fold((__u16)~headers->udp->check + (__u64)to->host + to->port);
    headers->udp->check = check ? check : 0xffff;
    return XDP_PASS;
}

#endif
