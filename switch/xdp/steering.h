// What a steering program knows: the service, its shards and connections, written by the process;
// its packets, and what became of them.

#ifndef STEERING_H
#define STEERING_H

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/udp.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "checksum.h"
#include "chunnels.h"

#define FRAGMENT 0x3fff // more of them, or an offset
#define FRAGMENT_AT 0x1fff
#define TCX_NEXT (-1)
#define SHARDS_MAX 64
#define CONNECTIONS_MAX 65536
#define NAME_BYTES 32
#define PAYLOAD_BYTES 1472 // of a frame; longer ones come in fragments, which the process puts together
#define SLACK_BYTES 64     // what may be read behind it without looking

struct service {
    __be32 host;
    __be16 port;
    __u16 shards;
    __u32 interface;
    __u32 name_bytes;
    __u8 name[NAME_BYTES]; // of the key's field, filled with zeros
};

struct shard {
    __be32 host;
    __be16 port;
    __u8 away;      // on another machine: it answers the server's address
    __u8 reachable; // its Ethernet address, or its gateway's, is known
    __u8 mac[ETH_ALEN];
    __u8 unused[2];
};

struct place {
    __be32 host;
    __be16 port;
    __u16 unused;
};

struct connection {
    __u64 up; // a bit for each shard that takes part in it
    __be32 host;
    __be16 port;
    __u8 numbered; // a layer below the messages numbers them
    __u8 placed; // its Ethernet address is known
    __u8 mac[ETH_ALEN]; // whence its packets come
    __u8 unused_too[2];
};

// Of the negotiation (p4xos/chunnels/messages.py): what a datagram of a connection begins with.
struct head {
    __u8 kind;
    __u8 id[ID_BYTES];
} __attribute__((packed));

struct ip_udp {
    struct ethhdr *ethernet;
    struct iphdr *ip;
    struct udphdr *udp;
    struct head *head;
};

struct payload {
    union {
        __u64 words[(PAYLOAD_BYTES + SLACK_BYTES) / 8];
        __u8 bytes[PAYLOAD_BYTES + SLACK_BYTES];
    };
    __u32 at; // where it is being read
    __u32 crc;
};

enum verdict {
    FOREIGN, // not for the server: the machine's own traffic
    CONTROL, // what is between client and server
    UNKNOWN, // a connection that is not steered
    STRANGER, // of such a connection, from elsewhere
    LENGTH,   // longer than a frame, or damaged
    NO_KEY,   // a message that the program does not understand
    SHARD_DOWN,
    NO_WAY,  // to another machine, whose Ethernet address is not known now
    STEERED, // to a shard of this machine
    SENT_ON, // to one of another machine
    ANSWERED,
    VERDICTS,
};

struct counts {
    __u64 of[VERDICTS];
};

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct service);
} services SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, SHARDS_MAX);
    __type(key, __u32);
    __type(value, struct shard);
} shards SEC(".maps");

// The number of the shard at an address.
struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, SHARDS_MAX);
    __type(key, struct place);
    __type(value, __u32);
} places SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, CONNECTIONS_MAX);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __uint(key_size, ID_BYTES);
    __uint(value_size, sizeof(struct connection));
} connections SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct payload);
} payloads SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct counts);
} verdicts SEC(".maps");

// Counts it, and is the other.
INLINE int verdict(enum verdict what, int then)
{
    __u32 zero = 0;
    struct counts *counts = bpf_map_lookup_elem(&verdicts, &zero);
    if (counts)
        counts->of[what]++;
    return then;
}

// Without options.
INLINE int is_udp(const struct iphdr *ip)
{
    return ip->version == 4 && ip->ihl == 5 && ip->protocol == IPPROTO_UDP;
}

INLINE int is_fragment(const struct iphdr *ip)
{
    return (ip->frag_off & bpf_htons(FRAGMENT)) != 0;
}

INLINE __u64 sum_of_pseudo_header(const struct ip_udp *p)
{
    return (__u64)p->ip->saddr + p->ip->daddr + bpf_htons(IPPROTO_UDP) + p->udp->len;
}

// What is behind the UDP header, the last word filled with zeros.
INLINE int load_payload(struct xdp_md *ctx, struct payload *payload, __u32 bytes)
{
    asm volatile("" : "+r"(bytes)); // the compiler drops tests that the verifier wants to see
    if (bytes == 0 || bytes > PAYLOAD_BYTES)
        return -1;
    __u32 last = (bytes - 1) / 8;
    asm volatile("" : "+r"(last));
    if (last >= PAYLOAD_BYTES / 8)
        return -1;
    payload->words[last] = 0;
    return bpf_xdp_load_bytes(ctx, sizeof(struct ethhdr) + sizeof(struct iphdr) + sizeof(struct udphdr),
                              payload->bytes, bytes);
}

#endif
