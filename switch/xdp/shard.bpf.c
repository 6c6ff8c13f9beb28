// Each message of a client to the shard that has its key (docs/xdp.md, "Shards"; what it is part of:
// p4xos/chunnels/steering.py).
//
//     a DATA of a steered connection, from its client:
//         a message:                 shard = CRC-32(key) mod shards             message.h, crc32.h
//         an acknowledgement:        shard = its origin - 1
//         that shard is up:          the shard's address; on this machine or by the interface
//     a DATA of such a connection, from a shard of another machine: the client's address
//     anything else:                 to the server's process, as it came
//
// And `answers`, where packets leave: what a shard of this machine says to such a client has the
// server's address, to which the client has sent.

#include "crc32.h"
#include "message.h"
#include "steering.h"

#define ETHERNET_TYPE_IPV4 bpf_htons(ETH_P_IP)

// Sums of the whole datagram: only where the sender has left them to a device.
INLINE __u64 sum_of_bytes(const struct payload *payload, __u32 bytes)
{
    __u64 sum = 0;
    for (__u32 i = 0; i < PAYLOAD_BYTES / 8; i++) {
        if (i * 8 >= bytes)
            break;
        sum = add(sum, payload->words[i]);
    }
    return sum;
}

INLINE __u64 sum_of_udp(const struct udphdr *udp)
{
    return (__u64)udp->source + udp->dest + udp->len + udp->check;
}

// What the sender has left to a device is done now: from here on the checksum is whole, or there is
// none. One that is whole already may look as if it were left, and is then right as it is.
INLINE void finish_checksum(struct ip_udp *p, const struct payload *payload, __u32 bytes)
{
    if (p->udp->check == 0 || p->udp->check != fold(sum_of_pseudo_header(p)))
        return;
    __u64 sum = sum_of_bytes(payload, bytes);
    if (fold(sum_of_pseudo_header(p) + sum_of_udp(p->udp) + sum) == 0xffff)
        return;
    p->udp->check = 0;
    __u16 check = ~fold(sum_of_pseudo_header(p) + sum_of_udp(p->udp) + sum);
    p->udp->check = check ? check : 0xffff;
}

// The address of one end is replaced by another, in both checksums.
INLINE void replace(struct ip_udp *p, __be32 *host, __be16 *port, __be32 new_host, __be16 new_port)
{
    __u64 hosts = (__u64)(__u32)~*host + new_host;
    __u64 ports = (__u64)(__u16)~*port + new_port;
    p->ip->check = ~fold((__u16)~p->ip->check + hosts);
    if (p->udp->check) {
        __u16 check = ~fold((__u16)~p->udp->check + hosts + ports);
        p->udp->check = check ? check : 0xffff;
    }
    *host = new_host;
    *port = new_port;
}

// By the interface on which it came, from this machine.
INLINE int send_on(struct ip_udp *p, const struct service *service, const __u8 *mac)
{
    __builtin_memcpy(p->ethernet->h_source, p->ethernet->h_dest, ETH_ALEN);
    __builtin_memcpy(p->ethernet->h_dest, mac, ETH_ALEN);
    return bpf_redirect(service->interface, 0);
}

INLINE int to_shard(struct ip_udp *p, const struct service *service, struct connection *connection,
                    const struct payload *payload, __u32 bytes, __u32 number)
{
    struct shard *shard = bpf_map_lookup_elem(&shards, &number);
    if (!shard || number >= SHARDS_MAX || !(connection->up >> number & 1))
        return verdict(SHARD_DOWN, XDP_PASS);
    finish_checksum(p, payload, bytes);
    if (shard->away) {
        if (!shard->reachable)
            return verdict(NO_WAY, XDP_PASS);
        __builtin_memcpy(connection->mac, p->ethernet->h_source, ETH_ALEN);
        connection->placed = 1;
        replace(p, &p->ip->saddr, &p->udp->source, service->host, service->port);
    }
    replace(p, &p->ip->daddr, &p->udp->dest, shard->host, shard->port);
    if (!shard->away)
        return verdict(STEERED, XDP_PASS);
    verdict(SENT_ON, 0);
    return send_on(p, service, shard->mac);
}

INLINE int to_client(struct ip_udp *p, const struct service *service,
                     const struct connection *connection, const struct payload *payload, __u32 bytes)
{
    finish_checksum(p, payload, bytes);
    replace(p, &p->ip->saddr, &p->udp->source, service->host, service->port);
    replace(p, &p->ip->daddr, &p->udp->dest, connection->host, connection->port);
    verdict(ANSWERED, 0);
    return send_on(p, service, connection->mac);
}

SEC("xdp")
int steer(struct xdp_md *ctx)
{
    __u32 zero = 0;
    struct service *service = bpf_map_lookup_elem(&services, &zero);
    struct payload *payload = bpf_map_lookup_elem(&payloads, &zero);
    struct ip_udp found, *p = &found;
    if (!service || !payload)
        return XDP_PASS;
    p->ethernet = (void *)(long)ctx->data;
    p->ip = (void *)(p->ethernet + 1);
    p->udp = (void *)(p->ip + 1);
    p->head = (void *)(p->udp + 1);
    if ((void *)(p->head + 1) > (void *)(long)ctx->data_end ||
        p->ethernet->h_proto != ETHERNET_TYPE_IPV4 || !is_udp(p->ip) || is_fragment(p->ip) ||
        p->ip->daddr != service->host || p->udp->dest != service->port)
        return verdict(FOREIGN, XDP_PASS);
    if (p->head->kind != DATA)
        return verdict(CONTROL, XDP_PASS);
    struct connection *connection = bpf_map_lookup_elem(&connections, p->head->id);
    if (!connection)
        return verdict(UNKNOWN, XDP_PASS);
    __u32 bytes = bpf_ntohs(p->udp->len) - sizeof(struct udphdr);
    if (load_payload(ctx, payload, bytes) < 0)
        return verdict(LENGTH, XDP_PASS);
    if (p->ip->saddr == connection->host && p->udp->source == connection->port) {
        __u32 number = shard_of(service, connection, payload, bytes);
        if (number == NOT_UNDERSTOOD)
            return verdict(NO_KEY, XDP_PASS);
        return to_shard(p, service, connection, payload, bytes, number);
    }
    struct place from = {.host = p->ip->saddr, .port = p->udp->source};
    __u32 *number = bpf_map_lookup_elem(&places, &from);
    struct shard *shard = number ? bpf_map_lookup_elem(&shards, number) : 0;
    if (!shard || !shard->away)
        return verdict(STRANGER, XDP_PASS);
    if (!connection->placed)
        return verdict(NO_WAY, XDP_PASS);
    return to_client(p, service, connection, payload, bytes);
}

// The first part of a long answer has all that changes, where both have the same host.
INLINE int begins(const struct iphdr *ip, const struct service *service)
{
    return !is_fragment(ip) ||
           (!(ip->frag_off & bpf_htons(FRAGMENT_AT)) && ip->saddr == service->host);
}

#define IP_AT sizeof(struct ethhdr)
#define UDP_AT (IP_AT + sizeof(struct iphdr))
#define HEAD_AT (UDP_AT + sizeof(struct udphdr))

SEC("tc")
int answers(struct __sk_buff *skb)
{
    __u32 zero = 0;
    struct service *service = bpf_map_lookup_elem(&services, &zero);
    struct iphdr ip;
    struct udphdr udp;
    struct head head;
    if (!service || skb->protocol != ETHERNET_TYPE_IPV4 ||
        bpf_skb_load_bytes(skb, IP_AT, &ip, sizeof(ip)) || !is_udp(&ip) || !begins(&ip, service) ||
        bpf_skb_load_bytes(skb, UDP_AT, &udp, sizeof(udp)) ||
        bpf_skb_load_bytes(skb, HEAD_AT, &head, sizeof(head)))
        return TCX_NEXT;
    struct place from = {.host = ip.saddr, .port = udp.source};
    if (head.kind != DATA || !bpf_map_lookup_elem(&places, &from))
        return TCX_NEXT;
    struct connection *connection = bpf_map_lookup_elem(&connections, head.id);
    if (!connection || connection->host != ip.daddr || connection->port != udp.dest)
        return TCX_NEXT;
    __u32 udp_check = UDP_AT + offsetof(struct udphdr, check);
    bpf_l3_csum_replace(skb, IP_AT + offsetof(struct iphdr, check), ip.saddr, service->host, 4);
    bpf_l4_csum_replace(skb, udp_check, ip.saddr, service->host,
                        BPF_F_PSEUDO_HDR | BPF_F_MARK_MANGLED_0 | 4);
    bpf_l4_csum_replace(skb, udp_check, udp.source, service->port, BPF_F_MARK_MANGLED_0 | 2);
    bpf_skb_store_bytes(skb, IP_AT + offsetof(struct iphdr, saddr), &service->host, 4, 0);
    bpf_skb_store_bytes(skb, UDP_AT + offsetof(struct udphdr, source), &service->port, 2, 0);
    return verdict(ANSWERED, TCX_NEXT);
}

char LICENSE[] SEC("license") = "GPL"; // else the kernel forbids some of what is called here
