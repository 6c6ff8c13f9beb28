// A packet: Ethernet, IPv4, UDP, the Paxos header and a value. What is read of one, and checksums.

#ifndef PACKET_H
#define PACKET_H

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/udp.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "checksum.h"
#include "sizes.h"

// The compiler drops a test that it can prove; the kernel's verifier wants to see it.
#define SEEN_BY_VERIFIER(number) asm volatile("" : "+r"(number))
#define FRAGMENT 0x3fff // more of them, or an offset
#define VALUE_AT                                                                              \
    (sizeof(struct ethhdr) + sizeof(struct iphdr) + sizeof(struct udphdr) + HEADER_BYTES)

// IPv4 without options: else the machine's stack reads the packet, and the process behind it.
struct headers {
    struct ethhdr *ethernet;
    struct iphdr *ip;
    struct udphdr *udp;
    struct paxos *paxos;
};

// A message in the order of the machine.
struct message {
    __u64 instance;
    __u64 low;
    __u32 round;
    __u32 vround;
    __u16 sender;
    __u16 length; // of the value
    __u16 bytes;  // behind the header
    __u8 type;
    __u8 injected; // by the process, not from the wire
};

// What the process hands over has a namespace's first interface, the loopback: no port ever is it.
INLINE int is_injected(const struct xdp_md *ctx)
{
    return ctx->ingress_ifindex == 1;
}

// A value on its way: what came behind the header, then what leaves behind it.
struct value {
    __u64 words[PAYLOAD_WORDS];
};

// Packets of the wire and those of the process may meet on one processor: a value for each.
struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, 2);
    __type(key, __u32);
    __type(value, struct value);
} values SEC(".maps");

INLINE __u64 sum_of_ip(const struct iphdr *ip)
{
    const __u16 *half = (const void *)ip;
    __u64 sum = 0;
#pragma unroll
    for (int i = 0; i < 10; i++)
        sum += half[i];
    return sum;
}

// The pseudo header: where the stack leaves the rest to a device, its sum is the packet's checksum.
INLINE __u64 sum_of_pseudo(const struct headers *headers)
{
    return (__u64)headers->ip->saddr + headers->ip->daddr + bpf_htons(IPPROTO_UDP) + headers->udp->len;
}

INLINE __u64 sum_of_headers(const struct headers *headers)
{
    const __u16 *half = (const void *)headers->udp;
    __u64 sum = sum_of_pseudo(headers);
#pragma unroll
    for (int i = 0; i < (int)(sizeof(struct udphdr) + HEADER_BYTES) / 2; i++)
        sum += half[i];
    return sum;
}

INLINE __u64 sum_of_value(const struct value *value, __u32 bytes)
{
    __u32 words = (bytes + 7) / 8;
    __u64 sum = 0;
    for (__u32 i = 0; i < PAYLOAD_WORDS; i++) {
        if (i >= words)
            break;
        sum = add(sum, value->words[i]);
    }
    return sum;
}

// Where the headers are, as far as the packet goes; whether it has room for all of them.
INLINE int find_headers(struct xdp_md *ctx, struct headers *headers)
{
    headers->ethernet = (void *)(long)ctx->data;
    headers->ip = (void *)(headers->ethernet + 1);
    headers->udp = (void *)(headers->ip + 1);
    headers->paxos = (void *)(headers->udp + 1);
    return (void *)(headers->paxos + 1) <= (void *)(long)ctx->data_end;
}

// The value as it came, the last word filled with zeros.
INLINE int load_value(struct xdp_md *ctx, struct value *value, __u32 bytes)
{
    __u32 last = (bytes - 1) / 8;
    if (bytes == 0)
        return 0;
    SEEN_BY_VERIFIER(last);
    SEEN_BY_VERIFIER(bytes);
    if (last >= PAYLOAD_WORDS || bytes == 0 || bytes > sizeof(value->words))
        return -1;
    value->words[last] = 0;
    return bpf_xdp_load_bytes(ctx, VALUE_AT, value->words, bytes);
}

INLINE int valid_checksum(const struct headers *headers, const struct value *value, __u32 bytes)
{
    if (headers->udp->check == 0 || headers->udp->check == fold(sum_of_pseudo(headers)))
        return 1; // none, or one that a device of this machine was to finish
    return fold(sum_of_headers(headers) + sum_of_value(value, bytes)) == 0xffff;
}

#endif
