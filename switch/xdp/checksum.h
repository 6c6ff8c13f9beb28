// Internet checksums: sums of 16 bits in the order of the bytes.

#ifndef CHECKSUM_H
#define CHECKSUM_H

#include <linux/types.h>

#include <bpf/bpf_helpers.h>

#define INLINE static __always_inline

INLINE __u64 add(__u64 sum, __u64 word)
{
    return sum + (word & 0xffffffff) + (word >> 32);
}

INLINE __u16 fold(__u64 sum)
{
    sum = (sum & 0xffffffff) + (sum >> 32);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    return sum;
}

#endif
