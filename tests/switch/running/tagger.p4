#include <core.p4>
#include <v1model.p4>

// A frame has a kind and a mark; kinds are forwarded by a table, 9 goes to a multicast group.
header tag_t {
    bit<8> kind;
    bit<8> mark;
}

struct headers_t { tag_t tag; }
struct metadata_t { bit<8> seen; }

parser Tags(packet_in packet, out headers_t hdr, inout metadata_t meta,
            inout standard_metadata_t standard_metadata) {
    state start {
        packet.extract(hdr.tag);
        transition accept;
    }
}

control Verify(inout headers_t hdr, inout metadata_t meta) {
    apply { }
}

control Ingress(inout headers_t hdr, inout metadata_t meta,
                inout standard_metadata_t standard_metadata) {
    register<bit<8>>(4) marks;
    counter(2, CounterType.packets) passed;

    action drop() {
        mark_to_drop(standard_metadata);
    }
    action forward(bit<9> port) {
        standard_metadata.egress_spec = port;
    }
    action spread() {
        standard_metadata.mcast_grp = 1;
    }
    table kinds {
        key = { hdr.tag.kind: ternary; }
        actions = { drop; forward; spread; }
        default_action = drop();
        size = 8;
    }

    apply {
        kinds.apply();
        if (hdr.tag.isValid() && hdr.tag.kind < 4) {
            marks.read(meta.seen, (bit<32>) hdr.tag.kind);
            marks.write((bit<32>) hdr.tag.kind, hdr.tag.mark);
            hdr.tag.mark = meta.seen;
            passed.count(1);
        }
    }
}

control Egress(inout headers_t hdr, inout metadata_t meta,
               inout standard_metadata_t standard_metadata) {
    apply {
        if (standard_metadata.egress_rid != 0) {
            hdr.tag.mark = (bit<8>) standard_metadata.egress_rid;
        }
    }
}

control Update(inout headers_t hdr, inout metadata_t meta) {
    apply { }
}

control Out(packet_out packet, in headers_t hdr) {
    apply { packet.emit(hdr.tag); }
}

V1Switch(Tags(), Verify(), Ingress(), Egress(), Update(), Out()) main;
