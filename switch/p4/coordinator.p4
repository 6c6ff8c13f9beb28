// The coordinator's data plane (docs/PROTOCOL.md, section 4; the numpy one is
// p4xos/roles/sequencer.py).
//
//     REQUEST, round != NO_ROUND, next < low + WINDOW:  PHASE2A (next, round, value) to all
//                                                       acceptors; next = next + 1
//     anything else:                                    silence and a counter
//
// Only the controller writes `round` and `low`. For a takeover it writes round 0, then low and
// next, then the round. Registers are 0 at first: a switch that restarts is inactive.

#include <core.p4>
#include <v1model.p4>

#include "spec.p4"
#include "packet.p4"
#include "admission.p4"
#include "sending.p4"

control Coordinator(inout headers_t hdr,
                    inout metadata_t meta,
                    inout standard_metadata_t standard_metadata) {
    Admission() admission;
    Sending() sending;

    // By group.
    register<bit<32>>(GROUPS) round; // won by phase 1 to the end of the log; NO_ROUND: inactive
    register<bit<64>>(GROUPS) next;  // never proposed in this round
    register<bit<64>>(GROUPS) low;   // nothing below is proposed

    counter(OUTCOMES, CounterType.packets) outcomes;

    bit<32> round_now = NO_ROUND;
    bit<64> next_now = 0;
    bit<64> low_now = 0;

    action load() {
        round.read(round_now, (bit<32>) meta.group);
        next.read(next_now, (bit<32>) meta.group);
        low.read(low_now, (bit<32>) meta.group);
    }

    action propose() {
        ASSERT(round_now != NO_ROUND && next_now - low_now < WINDOW);
        hdr.paxos.message_type = PHASE2A;
        hdr.paxos.instance = next_now;
        hdr.paxos.round = round_now;
        hdr.paxos.vround = 0;
        hdr.paxos.sender = meta.id;
        hdr.paxos.incarnation = 0;
        hdr.paxos.low = low_now;
        hdr.value.setValid();
        hdr.value.data = meta.value;
        meta.value_bytes = VALUE_BYTES;
        next.write((bit<32>) meta.group, next_now + 1);
        meta.verdict = VERDICT_TELL;
        meta.outcome = OUTCOME_PROPOSED;
    }

    action request() {
        // The controller raises low alone: checkpoints may have passed what this switch proposed.
        if (next_now < low_now) {
            next_now = low_now;
        }
        if (round_now == NO_ROUND) {
            meta.outcome = OUTCOME_INACTIVE;
        } else if (meta.too_long == 1 || hdr.paxos.length > VALUE_BYTES) {
            meta.outcome = OUTCOME_VALUE_TOO_LONG;
        } else if (next_now - low_now >= WINDOW) {
            meta.outcome = OUTCOME_WINDOW_FULL;
        } else {
            propose();
        }
    }

    action ignore() {
        meta.outcome = OUTCOME_IGNORED;
    }

    // Message type -> action.
    table rules {
        key = { hdr.paxos.message_type: exact; }
        actions = { request; ignore; }
        const entries = {
            REQUEST: request();
        }
        const default_action = ignore();
    }

    apply {
        mark_to_drop(standard_metadata);
        admission.apply(hdr, meta, standard_metadata);
        if (meta.outcome == OUTCOME_PASSED) {
            load();
            rules.apply();
        }
        outcomes.count((bit<32>) meta.outcome);
        sending.apply(hdr, meta, standard_metadata);
    }
}

V1Switch(PacketParser(), Verify(), Coordinator(), Copies(), Update(), PacketDeparser()) main;
