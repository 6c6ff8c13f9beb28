// What runs on an interface: each packet goes to the program of the role that it is for. So several
// roles of one machine share its interfaces, and one role may have many.
//
// The process that has the roles writes both maps. What is for none of them is the machine's own: it
// goes the way that it goes on a machine without programs.

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/udp.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define ROLES_MAX 64

struct service {
    __be32 host;
    __be16 port;
    __u16 unused;
};

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, ROLES_MAX);
    __type(key, struct service);
    __type(value, __u32);
} services SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_PROG_ARRAY);
    __uint(max_entries, ROLES_MAX);
    __type(key, __u32);
    __type(value, __u32);
} programs SEC(".maps");

SEC("xdp")
int port(struct xdp_md *ctx)
{
    const struct ethhdr *ethernet = (void *)(long)ctx->data;
    const struct iphdr *ip = (void *)(ethernet + 1);
    const struct udphdr *udp = (void *)(ip + 1);
    if ((void *)(udp + 1) > (void *)(long)ctx->data_end)
        return XDP_PASS;
    if (ethernet->h_proto != bpf_htons(ETH_P_IP) || ip->ihl != 5 || ip->protocol != IPPROTO_UDP)
        return XDP_PASS;
    struct service to = {.host = ip->daddr, .port = udp->dest};
    __u32 *role = bpf_map_lookup_elem(&services, &to);
    if (role)
        bpf_tail_call(ctx, &programs, *role);
    return XDP_PASS; // nobody's, or of a role that has just left
}

char LICENSE[] SEC("license") = "GPL"; // as the roles' programs
