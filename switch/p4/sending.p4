// Where a packet goes: the one place that decides it. Whatever has no verdict is dropped.

#ifndef SENDING_P4
#define SENDING_P4

#include "packet.p4"

control Sending(inout headers_t hdr,
                inout metadata_t meta,
                inout standard_metadata_t standard_metadata) {
    action silence() {
        mark_to_drop(standard_metadata);
    }

    action set_lengths() {
        hdr.udp.length = MESSAGE_BYTES + meta.value_bytes;
        hdr.ipv4.total_length = IPV4_BYTES + MESSAGE_BYTES + meta.value_bytes;
        hdr.ipv4.ttl = 64;
    }

    action reply() {
        bit<48> mac = hdr.ethernet.source;
        bit<32> host = hdr.ipv4.source;
        bit<16> port = hdr.udp.source;
        hdr.ethernet.source = hdr.ethernet.destination;
        hdr.ipv4.source = hdr.ipv4.destination;
        hdr.udp.source = hdr.udp.destination;
        hdr.ethernet.destination = mac;
        hdr.ipv4.destination = host;
        hdr.udp.destination = port;
        set_lengths();
        standard_metadata.egress_spec = standard_metadata.ingress_port;
    }

    // Each copy gets its destination in the egress pipeline.
    action tell() {
        hdr.ethernet.source = hdr.ethernet.destination;
        hdr.ipv4.source = hdr.ipv4.destination;
        hdr.udp.source = hdr.udp.destination;
        set_lengths();
        standard_metadata.egress_spec = standard_metadata.ingress_port; // no port of any copy
        standard_metadata.mcast_grp = meta.audience;
    }

    table verdicts {
        key = { meta.verdict: exact; }
        actions = { silence; reply; tell; }
        const entries = {
            VERDICT_REPLY: reply();
            VERDICT_TELL: tell();
        }
        const default_action = silence();
    }

    apply {
        verdicts.apply();
    }
}

// One copy for each of an audience: the multicast group says by which port, `copies` to whom.
control Copies(inout headers_t hdr,
               inout metadata_t meta,
               inout standard_metadata_t standard_metadata) {
    action nobody() {
        mark_to_drop(standard_metadata);
    }

    action to(bit<48> mac, bit<32> host, bit<16> port) {
        hdr.ethernet.destination = mac;
        hdr.ipv4.destination = host;
        hdr.udp.destination = port;
    }

    table copies {
        key = { standard_metadata.egress_rid: exact; }
        actions = { to; nobody; }
        const default_action = nobody();
        size = 256;
    }

    apply {
        if (meta.verdict == VERDICT_TELL) {
            copies.apply();
        }
    }
}

#endif
