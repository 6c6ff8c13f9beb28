// The wire format (docs/PROTOCOL.md, section 2). Generated from p4xos/wire.py by
// `python -m switch.p4.generate`: change that one.

#ifndef HEADERS_P4
#define HEADERS_P4

const bit<8> VERSION = 1;
const bit<16> HEADER_BYTES = 40;
const bit<32> NO_ROUND = 0;
const bit<64> END_OF_LOG = 0xffffffffffffffff;
const bit<32> ASK_ONE_BY_ONE = 0xffffffff;
const bit<64> LOW_JUMP_MAX = 0x10000000000;

const bit<8> PHASE1A = 1; // coordinator, to acceptors
const bit<8> PHASE1B = 2; // acceptor, to that coordinator
const bit<8> PHASE2A = 3; // coordinator, to acceptors
const bit<8> PHASE2B = 4; // acceptor, to learners
const bit<8> REQUEST = 5; // proposer, to the coordinator
const bit<8> HEARTBEAT = 6; // coordinator, to all
const bit<8> RECOVER = 7; // learner, to coordinators
const bit<8> LEARN = 8; // learner, to acceptors
const bit<8> CHECKPOINT = 9; // learner, to coordinators
const bit<8> READ_INDEX = 10; // proposer or coordinator, to acceptors
const bit<8> READ_INDEX_REPLY = 11; // acceptor, to who asked
const bit<8> RECORD = 12; // acceptor that forgot, to acceptors
const bit<8> RECORDED = 13; // acceptor, to that one
const bit<8> RECOVERING = 14; // acceptor that forgot, to coordinators
const bit<8> ASK_CHECKPOINT = 15; // acceptor that forgot, to learners
const bit<8> TYPE_MAX = 15;

header paxos_t {
    bit<8> version;
    bit<8> message_type;
    bit<16> group;
    bit<32> cluster;
    bit<64> instance;
    bit<32> round;
    bit<32> vround;
    bit<16> sender;
    bit<16> length;
    bit<32> incarnation;
    bit<64> low;
}

#define PAXOS_FIELDS(h) \
    h.version, h.message_type, h.group, h.cluster, \
    h.instance, h.round, h.vround, h.sender, \
    h.length, h.incarnation, h.low

#endif
