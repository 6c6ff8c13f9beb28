// A router: longest prefix, next hop, ttl, checksums.

#include <core.p4>
#include <v1model.p4>
#include "ethernet.p4"

#define LARGER(a, b) ((a) > (b) ? (a) : (b))

const int ROUTES = LARGER(512, 1 << 10);

type bit<9> port_t;
typedef bit<32> address_t;

error {
    Version,
    Options
}

struct headers_t {
    ethernet_t ethernet;
    ipv4_t ipv4;
}

struct hop_t {
    address_t address;
    port_t port;
}

struct metadata_t {
    hop_t hop;
    bool routed;
}

parser Ipv4Parser(packet_in packet, out ipv4_t ipv4) {
    state start {
        packet.extract(ipv4);
        verify(ipv4.version == 4, error.Version);
        verify(ipv4.words == 5, error.Options);
        transition accept;
    }
}

@name("router")
parser RouterParser(packet_in packet,
                    out headers_t hdr,
                    inout metadata_t meta,
                    inout standard_metadata_t standard_metadata) {
    Ipv4Parser() ipv4;

    state start {
        meta.routed = false;
        meta.hop = { 0, (port_t) 9w0 };
        packet.extract(hdr.ethernet);
        transition select(hdr.ethernet.ether_type) {
            EtherType.IPV4: network;
            _: accept;
        }
    }

    state network {
        ipv4.apply(packet, hdr.ipv4);
        transition accept;
    }
}

control Verify(inout headers_t hdr, inout metadata_t meta) {
    apply {
        verify_checksum(hdr.ipv4.isValid(), { IPV4_FIELDS(hdr.ipv4) }, hdr.ipv4.checksum,
                        HashAlgorithm.csum16);
    }
}

control Router(inout headers_t hdr,
               inout metadata_t meta,
               inout standard_metadata_t standard_metadata) {
    direct_counter(CounterType.packets_and_bytes) by_route;

    action drop() {
        mark_to_drop(standard_metadata);
    }

    action decrement(inout bit<8> ttl, out bool alive) {
        alive = ttl > 1;
        ttl = ttl |-| 1;
    }

    action route(address_t hop, port_t port) {
        meta.hop = { port = port, address = hop };
        standard_metadata.egress_spec = (bit<9>) port;
        by_route.count();
    }

    @defaultonly
    action no_route() {
        drop();
    }

    table routes {
        key = { hdr.ipv4.destination: lpm @name("destination"); }
        actions = { route; drop; no_route; }
        default_action = no_route();
        size = ROUTES;
        counters = by_route;
    }

    action rewrite(mac_t mac) {
        hdr.ethernet.source = hdr.ethernet.destination;
        hdr.ethernet.destination = mac;
    }

    table hops {
        key = { meta.hop.address: exact; }
        actions = { rewrite; drop; }
        const default_action = drop();
        const entries = {
            0x0a000001: rewrite(0x020000000001);
            0x0a000002: rewrite(0x020000000002);
        }
    }

    apply {
        bool alive = false;
        if (!hdr.ipv4.isValid() || standard_metadata.checksum_error == 1
            || standard_metadata.parser_error != error.NoError) {
            drop();
            return;
        }
        decrement(hdr.ipv4.ttl, alive);
        if (!alive) {
            drop();
        } else if (routes.apply().hit) {
            meta.routed = true;
            switch (hops.apply().action_run) {
                rewrite: { }
                default: { meta.routed = false; }
            }
        }
    }
}

control Egress(inout headers_t hdr,
               inout metadata_t meta,
               inout standard_metadata_t standard_metadata) {
    apply {
        // Nothing goes back to where it came from.
        if (standard_metadata.egress_port == standard_metadata.ingress_port) {
            mark_to_drop(standard_metadata);
        }
    }
}

control Update(inout headers_t hdr, inout metadata_t meta) {
    apply {
        update_checksum(meta.routed, { IPV4_FIELDS(hdr.ipv4) }, hdr.ipv4.checksum,
                        HashAlgorithm.csum16);
    }
}

control RouterDeparser(packet_out packet, in headers_t hdr) {
    apply {
        packet.emit(hdr);
    }
}

V1Switch(RouterParser(), Verify(), Router(), Egress(), Update(), RouterDeparser()) main;
