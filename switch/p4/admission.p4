// Which packets are for this switch and from whom: only those of configured senders pass.
//
// The control plane fills both tables from the cluster file. A group without an entry in
// `endpoint` is a closed port: nothing reaches its registers.

#ifndef ADMISSION_P4
#define ADMISSION_P4

#include "spec.p4"
#include "packet.p4"

control Admission(inout headers_t hdr,
                  inout metadata_t meta,
                  inout standard_metadata_t standard_metadata) {
    // As the entry of the endpoint has it.
    bit<16> group = 0;
    bit<32> cluster = 0;

    action foreign() {
        meta.outcome = OUTCOME_FOREIGN;
    }

    // A group that this switch serves: where its registers are, and who the switch is in it.
    action serve(bit<GROUP_BITS> registers,
                 bit<16> group_id,
                 bit<32> cluster_id,
                 bit<16> id,
                 bit<32> incarnation,
                 bit<16> audience) {
        ASSUME(audience != 0);
        meta.group = registers;
        group = group_id;
        cluster = cluster_id;
        meta.id = id;
        meta.incarnation = incarnation;
        meta.audience = audience;
    }

    table endpoint {
        key = {
            hdr.ipv4.destination: exact;
            hdr.udp.destination: exact;
        }
        actions = { serve; foreign; }
        const default_action = foreign();
        size = GROUPS;
    }

    action stranger() {
        meta.outcome = OUTCOME_SENDER;
    }

    action configured() { }

    // What each address may send, and under which id (docs/PROTOCOL.md, section 2).
    table senders {
        key = {
            meta.group: exact;
            hdr.ipv4.source: exact;
            hdr.udp.source: exact;
            hdr.paxos.message_type: exact;
            hdr.paxos.sender: exact;
        }
        actions = { configured; stranger; }
        const default_action = stranger();
        size = 1024;
    }

    apply {
        if (!hdr.udp.isValid()) {
            meta.outcome = OUTCOME_FOREIGN;
        } else if (standard_metadata.checksum_error == 1) {
            meta.outcome = OUTCOME_CHECKSUM;
        } else {
            endpoint.apply();
        }
        if (meta.outcome == OUTCOME_PASSED) {
            if (!hdr.paxos.isValid() || hdr.udp.length < MESSAGE_BYTES) {
                meta.outcome = OUTCOME_SHORT;
            } else if (hdr.paxos.version != VERSION) {
                meta.outcome = OUTCOME_VERSION;
            } else if (hdr.paxos.message_type == 0 || hdr.paxos.message_type > TYPE_MAX) {
                meta.outcome = OUTCOME_TYPE;
            } else if (hdr.paxos.cluster != cluster || hdr.paxos.group != group) {
                meta.outcome = OUTCOME_CLUSTER;
            } else if (meta.complete == 0 && meta.too_long == 0) {
                meta.outcome = OUTCOME_LENGTH;
            } else if (hdr.paxos.length > hdr.udp.length - MESSAGE_BYTES) {
                meta.outcome = OUTCOME_LENGTH;
            } else {
                senders.apply();
            }
        }
    }
}

#endif
