// Which packets are for this program and from whom: only those of configured senders pass.
//
// The controller writes both maps from the cluster file. While `open` is 0 the port is closed:
// nothing reaches the registers, and the process beside the program hears what arrives.

#ifndef ADMISSION_H
#define ADMISSION_H

#include "packet.h"

struct endpoint {
    __be32 host;
    __be16 port;
    __be16 group;
    __be32 cluster;
    __be32 incarnation; // of this acceptor
    __be16 id;          // within its role
    __u16 open;
    __u32 ready; // all receivers are known
};

struct sender {
    __be32 host;
    __be16 port;
    __be16 id;
    __u32 type;
};

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct endpoint);
} endpoints SEC(".maps");

// What each address may send, and under which id (docs/PROTOCOL.md, section 2).
struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, 2048);
    __type(key, struct sender);
    __type(value, __u8);
} senders SEC(".maps");

struct counts {
    __u64 of[OUTCOMES];
};

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct counts);
} outcomes SEC(".maps");

INLINE void count(__u32 outcome)
{
    __u32 zero = 0;
    struct counts *counts = bpf_map_lookup_elem(&outcomes, &zero);
    if (counts && outcome < OUTCOMES)
        __sync_fetch_and_add(&counts->of[outcome], 1); // the process's packets count here too
}

INLINE int from_configured(const struct headers *headers)
{
    struct sender sender = {
        .host = headers->ip->saddr,
        .port = headers->udp->source,
        .id = headers->paxos->sender,
        .type = headers->paxos->type,
    };
    return bpf_map_lookup_elem(&senders, &sender) != 0;
}

// Plain UDP over IPv4 to this program's address; a fragment has no whole message.
INLINE int is_for(const struct headers *headers, const struct endpoint *endpoint)
{
    return headers->ethernet->h_proto == bpf_htons(ETH_P_IP) && headers->ip->version == 4 &&
           headers->ip->ihl == 5 && !(headers->ip->frag_off & bpf_htons(FRAGMENT)) &&
           headers->ip->protocol == IPPROTO_UDP && headers->ip->daddr == endpoint->host &&
           headers->udp->dest == endpoint->port;
}

// What is too short for our header may still be meant for this program.
INLINE enum outcome cut_short(const struct headers *headers, const void *end,
                              const struct endpoint *endpoint)
{
    if ((void *)headers->paxos > end || !is_for(headers, endpoint))
        return FOREIGN;
    return endpoint->open ? SHORT : CLOSED;
}

INLINE void read_message(const struct headers *headers, struct message *m)
{
    m->type = headers->paxos->type;
    m->instance = bpf_be64_to_cpu(headers->paxos->instance);
    m->low = bpf_be64_to_cpu(headers->paxos->low);
    m->round = bpf_ntohl(headers->paxos->round);
    m->vround = bpf_ntohl(headers->paxos->vround);
    m->sender = bpf_ntohs(headers->paxos->sender);
    m->length = bpf_ntohs(headers->paxos->length);
}

// PASSED: the message is read, and its value.
INLINE enum outcome admit(struct xdp_md *ctx, const struct endpoint *endpoint,
                          struct message *m, struct value *value)
{
    struct headers found, *headers = &found;
    if (!find_headers(ctx, headers))
        return cut_short(headers, (void *)(long)ctx->data_end, endpoint);
    if (!is_for(headers, endpoint))
        return FOREIGN;
    if (!endpoint->open)
        return CLOSED;
    __u32 udp_bytes = bpf_ntohs(headers->udp->len);
    if (udp_bytes < sizeof(struct udphdr) + HEADER_BYTES)
        return SHORT;
    __u32 bytes = udp_bytes - sizeof(struct udphdr) - HEADER_BYTES;
    if (bytes > sizeof(value->words) || load_value(ctx, value, bytes) < 0)
        return LENGTH;
    if (fold(sum_of_ip(headers->ip)) != 0xffff || !valid_checksum(headers, value, bytes))
        return CHECKSUM;
    if (headers->paxos->version != WIRE_VERSION)
        return VERSION;
    if (headers->paxos->type == 0 || headers->paxos->type > TYPE_MAX)
        return TYPE;
    if (headers->paxos->cluster != endpoint->cluster || headers->paxos->group != endpoint->group)
        return CLUSTER;
    if (bpf_ntohs(headers->paxos->length) > bytes)
        return LENGTH;
    if (!from_configured(headers))
        return SENDER;
    read_message(headers, m);
    m->bytes = bytes;
    return PASSED;
}

// The machine's own packets, and what the process wants to hear.
INLINE int is_for_process(enum outcome outcome)
{
    return outcome == FOREIGN || outcome == CLOSED || outcome == VERSION || outcome == HANDED_UP;
}

#endif
