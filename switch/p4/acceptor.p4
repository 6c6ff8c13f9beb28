// The acceptor (docs/PROTOCOL.md, section 3; the numpy one is p4xos/roles/acceptor.py).
//
//     PHASE1A, PHASE2A, HEARTBEAT, msg.low > low:  low = msg.low; highest = max(highest, low - 1)
//
//     PHASE1A to the end, round >= floor:          floor = round; reply PHASE1B summary
//     PHASE1A of i alone, round >= promised(i):    slot[i].round = round; reply PHASE1B vote
//     PHASE2A i in window, round >= promised(i):   slot[i] = (i, round, round, value);
//                                                  highest = max(highest, i); tell PHASE2B
//     PHASE2A i voted in that round already:       tell PHASE2B from the slot
//     LEARN [i, j):                                reply PHASE2B of i from the slot, if it voted
//     READ_INDEX:                                  reply READ_INDEX_REPLY highest, highest_round, low
//     RECORD of another acceptor a:                seen[a] = max(seen[a], incarnation told);
//                                                  reply RECORDED highest_round, low, seen
//     anything else, and every stale round:        silence and a counter
//
// promised(i) = max(floor, slot.round if slot.instance == i). A switch sends one packet for one, so
// it says in its summary that it is to be asked for one instance at a time.
//
// Registers are 0 at first: a switch that restarts has forgotten what it promised. Its controller
// writes what section 8 says and only then opens its port, by the entry in `admission.endpoint`.

#include <core.p4>
#include <v1model.p4>

#include "spec.p4"
#include "packet.p4"
#include "admission.p4"
#include "sending.p4"

control Acceptor(inout headers_t hdr,
                 inout metadata_t meta,
                 inout standard_metadata_t standard_metadata) {
    Admission() admission;
    Sending() sending;

    // By group.
    register<bit<32>>(GROUPS) floor;         // promised for every instance, voted or not
    register<bit<32>>(GROUPS) highest_round; // >= floor and every slot's round
    register<bit<64>>(GROUPS) low;           // every instance below is forgotten
    register<bit<64>>(GROUPS) highest;       // of all votes; never below low - 1
    register<bit<SEEN_BITS>>(GROUPS) seen;   // incarnations of all acceptors

    // By group and slot.
    register<bit<64>>(SLOTS) slot_instance;        // 0: the slot never held one
    register<bit<32>>(SLOTS) slot_round;           // promised, >= slot_vround
    register<bit<32>>(SLOTS) slot_vround;          // NO_ROUND: no vote
    register<bit<16>>(SLOTS) slot_length;          // bytes of the value
    register<bit<VALUE_BITS>>(SLOTS) slot_value;   // as it came, zeros behind it

    counter(OUTCOMES, CounterType.packets) outcomes;

    // The group's registers.
    bit<32> floor_now = NO_ROUND;
    bit<32> highest_round_now = NO_ROUND;
    bit<64> low_now = 0;
    bit<64> highest_now = 0;
    bit<SEEN_BITS> seen_now = 0;

    // What the message asks for: [first, end), `first` clipped to low.
    bit<64> first = 0;
    bit<64> end = 0;
    bit<1> well_formed = 0;
    bit<1> in_window = 0;

    // The registers of the slot of `first`.
    bit<INDEX_BITS> slot = 0;
    bit<64> instance = 0;
    bit<32> round = NO_ROUND;
    bit<32> vround = NO_ROUND;
    bit<16> length = 0;
    bit<VALUE_BITS> value = 0;
    bit<1> changed = 0;

    // Registers -----------------------------------------------------------------------------------

    action load_group() {
        floor.read(floor_now, (bit<32>) meta.group);
        highest_round.read(highest_round_now, (bit<32>) meta.group);
        low.read(low_now, (bit<32>) meta.group);
        highest.read(highest_now, (bit<32>) meta.group);
        seen.read(seen_now, (bit<32>) meta.group);
    }

    action store_group() {
        floor.write((bit<32>) meta.group, floor_now);
        highest_round.write((bit<32>) meta.group, highest_round_now);
        low.write((bit<32>) meta.group, low_now);
        highest.write((bit<32>) meta.group, highest_now);
        seen.write((bit<32>) meta.group, seen_now);
    }

    // A slot that holds another instance is first emptied.
    action load_slot() {
        slot = meta.group ++ first[SLOT_BITS - 1:0];
        slot_instance.read(instance, (bit<32>) slot);
        slot_round.read(round, (bit<32>) slot);
        slot_vround.read(vround, (bit<32>) slot);
        slot_length.read(length, (bit<32>) slot);
        slot_value.read(value, (bit<32>) slot);
        if (instance != first) {
            instance = first;
            round = NO_ROUND;
            vround = NO_ROUND;
            length = 0;
            value = 0;
        }
    }

    action store_slot() {
        ASSERT(in_window == 1 && instance == first && round != NO_ROUND);
        slot_instance.write((bit<32>) slot, instance);
        slot_round.write((bit<32>) slot, round);
        slot_vround.write((bit<32>) slot, vround);
        slot_length.write((bit<32>) slot, length);
        slot_value.write((bit<32>) slot, value);
    }

    // The window ----------------------------------------------------------------------------------

    // The window's lower end moves, only up.
    action raise_low() {
        if (hdr.paxos.low > low_now) {
            if (hdr.paxos.low - low_now > LOW_JUMP_MAX) {
                meta.outcome = OUTCOME_LOW_JUMP;
            } else {
                low_now = hdr.paxos.low;
                if (highest_now < low_now - 1) {
                    highest_now = low_now - 1;
                }
            }
        }
    }

    table window {
        key = { hdr.paxos.message_type: exact; }
        actions = { raise_low; NoAction; }
        const entries = {
            PHASE1A: raise_low();
            PHASE2A: raise_low();
            HEARTBEAT: raise_low();
        }
        const default_action = NoAction();
    }

    action ask_instance() {
        first = hdr.paxos.instance;
        end = first;
    }

    // What is below low is forgotten, and not asked for. An end is the whole value, or there is none.
    action ask_range() {
        first = hdr.paxos.instance;
        if (first < low_now) {
            first = low_now;
        }
        end = meta.value[WORD(0)];
        if (meta.too_long == 0 && hdr.paxos.length == 8 && end >= hdr.paxos.instance) {
            well_formed = 1;
        }
    }

    table asked {
        key = { hdr.paxos.message_type: exact; }
        actions = { ask_instance; ask_range; }
        const entries = {
            PHASE1A: ask_range();
            LEARN: ask_range();
        }
        const default_action = ask_instance();
    }

    // Answers -------------------------------------------------------------------------------------

    action sign(in bit<8> message_type) {
        hdr.paxos.message_type = message_type;
        hdr.paxos.sender = meta.id;
        hdr.paxos.incarnation = meta.incarnation;
        hdr.paxos.length = 0;
        hdr.paxos.low = 0;
        meta.value_bytes = 0;
    }

    action tell_slot() {
        hdr.paxos.instance = instance;
        hdr.paxos.vround = vround;
        hdr.paxos.length = length;
        hdr.value.setValid();
        hdr.value.data = value;
        meta.value_bytes = VALUE_BYTES;
    }

    action tell_seen() {
        hdr.paxos.low = low_now;
        hdr.seen.setValid();
        hdr.seen.incarnations = seen_now;
        hdr.seen.padding = 0;
    }

    // The PHASE2B of the slot's vote: its round is the vote's, whatever was promised since.
    action vote() {
        sign(PHASE2B);
        tell_slot();
        hdr.paxos.round = vround;
    }

    action summary(in bit<32> votes) {
        hdr.summary.setValid();
        hdr.summary.highest = highest_now;
        hdr.summary.votes = votes;
        hdr.summary.nonce = hdr.paxos.vround;
        sign(PHASE1B);
        tell_seen();
        hdr.paxos.instance = first;
        hdr.paxos.vround = NO_ROUND;
        hdr.paxos.length = SUMMARY_BYTES + 4 * ACCEPTORS;
        meta.value_bytes = SUMMARY_BYTES + SEEN_BYTES;
        meta.verdict = VERDICT_REPLY;
        meta.outcome = OUTCOME_PROMISES;
    }

    // Phase 1 -------------------------------------------------------------------------------------

    action promise() {
        if (highest_round_now < hdr.paxos.round) {
            highest_round_now = hdr.paxos.round;
        }
    }

    // For every instance, to the end of the log.
    action promise_log() {
        ASSERT(hdr.paxos.round >= floor_now);
        floor_now = hdr.paxos.round;
        promise();
        summary(ASK_ONE_BY_ONE);
    }

    // For one: the slot's round, and what the slot voted.
    action promise_instance() {
        if (hdr.paxos.round < round) {
            meta.outcome = OUTCOME_STALE_ROUND;
        } else {
            round = hdr.paxos.round;
            changed = 1;
            promise();
            sign(PHASE1B);
            tell_slot();
            meta.verdict = VERDICT_REPLY;
            meta.outcome = OUTCOME_PROMISES;
        }
    }

    action phase1a() {
        if (hdr.paxos.round == NO_ROUND) {
            meta.outcome = OUTCOME_ROUND_ZERO;
        } else if (well_formed == 0) {
            meta.outcome = OUTCOME_MALFORMED;
        } else if (hdr.paxos.round < floor_now) {
            meta.outcome = OUTCOME_STALE_ROUND;
        } else if (end == END_OF_LOG) {
            promise_log();
        } else if (end <= first || in_window == 0) {
            summary(0); // nothing of the range is in the window; this tells where that is
        } else if (end - first == 1 || first - low_now == WINDOW - 1) {
            promise_instance();
        } else {
            meta.outcome = OUTCOME_RANGE;
        }
    }

    // Phase 2 -------------------------------------------------------------------------------------

    // A vote implies the promise, for its own instance: the floor does not move.
    action cast_vote() {
        ASSERT(hdr.paxos.round >= floor_now && hdr.paxos.round >= round);
        round = hdr.paxos.round;
        vround = hdr.paxos.round;
        length = hdr.paxos.length;
        value = meta.value;
        changed = 1;
        promise();
        if (highest_now < first) {
            highest_now = first;
        }
        meta.outcome = OUTCOME_VOTES;
    }

    // A vote that was cast in this round is told again, never overwritten: no values are compared.
    action phase2a() {
        if (hdr.paxos.round == NO_ROUND) {
            meta.outcome = OUTCOME_ROUND_ZERO;
        } else if (in_window == 0) {
            meta.outcome = OUTCOME_OUT_OF_WINDOW;
        } else if (meta.too_long == 1 || hdr.paxos.length > VALUE_BYTES) {
            meta.outcome = OUTCOME_VALUE_TOO_LONG;
        } else if (hdr.paxos.round < floor_now || hdr.paxos.round < round) {
            meta.outcome = OUTCOME_STALE_ROUND;
        } else {
            if (vround == hdr.paxos.round) {
                meta.outcome = OUTCOME_REPEATED_VOTES;
            } else {
                cast_vote();
            }
            vote();
            meta.verdict = VERDICT_TELL;
        }
    }

    // Questions -----------------------------------------------------------------------------------

    action heartbeat() {
        meta.outcome = OUTCOME_HEARTBEATS;
    }

    // Of a range the first: who asked asks again for the rest.
    action learn() {
        if (well_formed == 0) {
            meta.outcome = OUTCOME_MALFORMED;
        } else if (in_window == 0 || end <= first || vround == NO_ROUND) {
            meta.outcome = OUTCOME_NOT_HELD;
        } else {
            vote();
            meta.verdict = VERDICT_REPLY;
            meta.outcome = OUTCOME_ANSWERS;
        }
    }

    action read_index() {
        if (meta.too_long == 1 || hdr.paxos.instance > 1) {
            meta.outcome = OUTCOME_MALFORMED; // neither a proposer asks nor a coordinator
        } else {
            sign(READ_INDEX_REPLY);
            hdr.paxos.instance = highest_now;
            hdr.paxos.round = highest_round_now;
            hdr.paxos.low = low_now;
            meta.verdict = VERDICT_REPLY;
            meta.outcome = OUTCOME_ANSWERS;
        }
    }

    // seen[a] = max(seen[a], told), in a register that holds them all.
    action see(in bit<32> told) {
        bit<16> shift = (ACCEPTORS - 1 - hdr.paxos.sender) << 5;
        bit<32> known = (bit<32>) (seen_now >> shift);
        if (known < told) {
            seen_now = seen_now & ~((bit<SEEN_BITS>) 32w0xffffffff << shift);
            seen_now = seen_now | ((bit<SEEN_BITS>) told << shift);
        }
    }

    action record() {
        if (meta.too_long == 1 || hdr.paxos.length != 4
            || hdr.paxos.instance != (bit<64>) hdr.paxos.sender
            || hdr.paxos.sender >= ACCEPTORS) {
            meta.outcome = OUTCOME_MALFORMED;
        } else if (hdr.paxos.sender == meta.id) {
            meta.outcome = OUTCOME_IGNORED; // a question of its own former life
        } else {
            see(meta.value[VALUE_BITS - 1:VALUE_BITS - 32]);
            sign(RECORDED);
            tell_seen();
            hdr.paxos.round = highest_round_now;
            hdr.paxos.length = 4 * ACCEPTORS;
            meta.value_bytes = SEEN_BYTES;
            meta.verdict = VERDICT_REPLY;
            meta.outcome = OUTCOME_ANSWERS;
        }
    }

    action ignore() {
        meta.outcome = OUTCOME_IGNORED;
    }

    // Message type -> action.
    table rules {
        key = { hdr.paxos.message_type: exact; }
        actions = { phase1a; phase2a; heartbeat; learn; read_index; record; ignore; }
        const entries = {
            PHASE1A: phase1a();
            PHASE2A: phase2a();
            HEARTBEAT: heartbeat();
            LEARN: learn();
            READ_INDEX: read_index();
            RECORD: record();
        }
        const default_action = ignore();
    }

    apply {
        mark_to_drop(standard_metadata);
        admission.apply(hdr, meta, standard_metadata);
        if (meta.outcome == OUTCOME_PASSED) {
            load_group();
            window.apply();
            if (meta.outcome == OUTCOME_PASSED) {
                asked.apply();
                if (first >= low_now && first - low_now < WINDOW) {
                    in_window = 1;
                    load_slot(); // the bound first: nothing else is ever an index
                }
                rules.apply();
                if (changed == 1) {
                    store_slot();
                }
            }
            store_group();
        }
        outcomes.count((bit<32>) meta.outcome);
        sending.apply(hdr, meta, standard_metadata);
    }
}

V1Switch(PacketParser(), Verify(), Acceptor(), Copies(), Update(), PacketDeparser()) main;
