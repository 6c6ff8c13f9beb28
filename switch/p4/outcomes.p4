// What becomes of a packet. Every packet has one outcome, and every outcome is counted.

#ifndef OUTCOMES_P4
#define OUTCOMES_P4

const bit<8> OUTCOME_PASSED = 0; // nothing has been decided yet

// Admission: packets that no rule sees.
const bit<8> OUTCOME_FOREIGN = 1;  // not UDP over IPv4 for one of this switch's groups
const bit<8> OUTCOME_CHECKSUM = 2;
const bit<8> OUTCOME_SHORT = 3;
const bit<8> OUTCOME_VERSION = 4;
const bit<8> OUTCOME_TYPE = 5;
const bit<8> OUTCOME_CLUSTER = 6;
const bit<8> OUTCOME_LENGTH = 7;
const bit<8> OUTCOME_SENDER = 8;

// Silence.
const bit<8> OUTCOME_IGNORED = 9;
const bit<8> OUTCOME_MALFORMED = 10;
const bit<8> OUTCOME_VALUE_TOO_LONG = 11;
const bit<8> OUTCOME_LOW_JUMP = 12;
const bit<8> OUTCOME_ROUND_ZERO = 13;
const bit<8> OUTCOME_STALE_ROUND = 14;
const bit<8> OUTCOME_OUT_OF_WINDOW = 15;
const bit<8> OUTCOME_RANGE = 16;    // of several instances: more than one packet can answer
const bit<8> OUTCOME_NOT_HELD = 17; // a LEARN of what this acceptor has not voted for
const bit<8> OUTCOME_HEARTBEATS = 18;
const bit<8> OUTCOME_INACTIVE = 19;
const bit<8> OUTCOME_WINDOW_FULL = 20;

// A packet leaves.
const bit<8> OUTCOME_PROMISES = 21;
const bit<8> OUTCOME_VOTES = 22;
const bit<8> OUTCOME_REPEATED_VOTES = 23;
const bit<8> OUTCOME_ANSWERS = 24;
const bit<8> OUTCOME_PROPOSED = 25;

const bit<32> OUTCOMES = 32;

// Where a packet goes, by its outcome; `sending.p4` does it.

const bit<8> VERDICT_SILENCE = 0;
const bit<8> VERDICT_REPLY = 1; // back to who sent the message
const bit<8> VERDICT_TELL = 2;  // to all of `meta.audience`

#endif
