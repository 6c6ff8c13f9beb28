// Whoever is inside may open a connection; from outside only answers come in. Which connections are
// open is kept in a Bloom filter of two registers.

#include <core.p4>
#include <v1model.p4>
#include "ethernet.p4"

#ifndef CELLS
#define CELLS 4096
#endif
#if CELLS < 2 || (CELLS & 1)
#error CELLS must be even
#endif

const bit<9> INSIDE = 1;
const bit<9> OUTSIDE = 2;

header ports_t {
    bit<16> source;
    bit<16> destination;
}

header tcp_t {
    bit<32> sequence;
    bit<32> acknowledged;
    bit<4> words;
    bit<4> reserved;
    bit<8> flags;
    bit<16> window;
    bit<16> checksum;
    bit<16> urgent;
}

struct headers_t {
    ethernet_t ethernet;
    ipv4_t ipv4;
    ports_t ports;
    tcp_t tcp;
}

struct connection_t {
    bit<32> inner;
    bit<32> outer;
    bit<16> inner_port;
    bit<16> outer_port;
}

struct metadata_t {
    connection_t connection;
    bit<1> open;
}

parser FirewallParser(packet_in packet,
                      out headers_t hdr,
                      inout metadata_t meta,
                      inout standard_metadata_t standard_metadata) {
    state start {
        packet.extract(hdr.ethernet);
        transition select(hdr.ethernet.ether_type) {
            EtherType.IPV4: ipv4;
            default: reject;
        }
    }
    state ipv4 {
        packet.extract(hdr.ipv4);
        packet.advance((bit<32>) (hdr.ipv4.words - 5) * 32);
        transition select(hdr.ipv4.fragment, hdr.ipv4.protocol) {
            (0, 6): tcp;
            (0, 17): udp;
            default: accept;
        }
    }
    state tcp {
        packet.extract(hdr.ports);
        packet.extract(hdr.tcp);
        transition accept;
    }
    state udp {
        packet.extract(hdr.ports);
        transition accept;
    }
}

control Verify(inout headers_t hdr, inout metadata_t meta) {
    apply { }
}

// One register of the filter; which cell a connection has is the algorithm's matter.
control Filter(in connection_t connection, in bool opens, out bit<1> found)(bit<32> cells) {
    register<bit<1>>(cells) seen;
    bit<32> cell;

    apply {
        if (cells == 0) {
            found = 0;
            return;
        }
        hash(cell, HashAlgorithm.crc32, 32w0, connection, cells);
        if (opens) {
            seen.write(cell, 1);
            found = 1;
            return;
        }
        seen.read(found, cell);
    }
}

control Firewall(inout headers_t hdr,
                 inout metadata_t meta,
                 inout standard_metadata_t standard_metadata) {
    Filter(CELLS) first;
    Filter(cells = CELLS / 2) second;
    counter(4, CounterType.packets) verdicts;

    action pass(bit<9> port) {
        standard_metadata.egress_spec = port;
    }
    action drop() {
        mark_to_drop(standard_metadata);
    }

    table ways {
        key = { standard_metadata.ingress_port: exact; }
        actions = { pass; drop; }
        default_action = drop;
        const entries = {
            INSIDE: pass(OUTSIDE);
            OUTSIDE: pass(INSIDE);
        }
    }

    action from_inside() {
        meta.connection = {
            hdr.ipv4.source, hdr.ipv4.destination, hdr.ports.source, hdr.ports.destination
        };
    }

    action from_outside() {
        meta.connection = {
            hdr.ipv4.destination, hdr.ipv4.source, hdr.ports.destination, hdr.ports.source
        };
    }

    apply {
        if (ways.apply().miss || !hdr.ports.isValid()) {
            drop();
            verdicts.count(0);
            return;
        }
        bool inside = standard_metadata.ingress_port == INSIDE;
        if (inside) {
            from_inside();
        } else {
            from_outside();
        }
        bool opens = inside && (!hdr.tcp.isValid() || hdr.tcp.flags & 2 != 0);
        bit<1> both = 0;
        first.apply(meta.connection, opens, meta.open);
        second.apply(meta.connection, opens, both);
        both = both & meta.open;
        verdicts.count((bit<32>) (inside ? 2w1 : 2w2 + (bit<2>) both));
        if (!inside && both == 0) {
            drop();
        }
    }
}

control Egress(inout headers_t hdr,
               inout metadata_t meta,
               inout standard_metadata_t standard_metadata) {
    apply { }
}

control Update(inout headers_t hdr, inout metadata_t meta) {
    apply { }
}

control FirewallDeparser(packet_out packet, in headers_t hdr) {
    apply {
        packet.emit(hdr.ethernet);
        packet.emit(hdr.ipv4);
        packet.emit(hdr.ports);
        packet.emit(hdr.tcp);
    }
}

V1Switch(FirewallParser(), Verify(), Firewall(), Egress(), Update(), FirewallDeparser()) main;
