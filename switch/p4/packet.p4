// A packet: Ethernet, IPv4, UDP, the Paxos header and a value. What both programs have in common:
// headers, metadata, parser, checksums, deparser.

#ifndef PACKET_P4
#define PACKET_P4

#include "sizes.p4"
#include "headers.p4"
#include "outcomes.p4"

const bit<16> ETHERTYPE_IPV4 = 0x0800;
const bit<8> IPV4_PLAIN = 0x45; // version 4, a header of 20 bytes: no options
const bit<8> PROTOCOL_UDP = 17;
const bit<16> IPV4_BYTES = 20;
const bit<16> MESSAGE_BYTES = 8 + HEADER_BYTES; // UDP's header and ours: udp.length of no value
const bit<16> SEEN_BYTES = 4 * ACCEPTORS + 4;   // padded: ACCEPTORS is odd
const bit<16> SUMMARY_BYTES = 16;

header ethernet_t {
    bit<48> destination;
    bit<48> source;
    bit<16> ether_type;
}

header ipv4_t {
    bit<8> version_ihl;
    bit<8> service;
    bit<16> total_length;
    bit<16> identification;
    bit<16> fragment;
    bit<8> ttl;
    bit<8> protocol;
    bit<16> checksum;
    bit<32> source;
    bit<32> destination;
}

header udp_t {
    bit<16> source;
    bit<16> destination;
    bit<16> length;
    bit<16> checksum;
}

// Values arrive in any multiple of 8 bytes: a word at a time.
header word_t {
    bit<64> data;
}

// They leave in full, zeros behind them.
header value_t {
    bit<VALUE_BITS> data;
}

// PHASE1B, summary: `seen` follows.
header summary_t {
    bit<64> highest;
    bit<32> votes;
    bit<32> nonce;
}

header seen_t {
    bit<SEEN_BITS> incarnations; // of acceptor 0 first, 32 bits each
    bit<32> padding;
}

struct headers_t {
    ethernet_t ethernet;
    ipv4_t ipv4;
    udp_t udp;
    paxos_t paxos;
    word_t word0;
#if VALUE_BYTES >= 16
    word_t word1;
#endif
#if VALUE_BYTES >= 32
    word_t word2;
    word_t word3;
#endif
#if VALUE_BYTES >= 64
    word_t word4;
    word_t word5;
    word_t word6;
    word_t word7;
#endif
#if VALUE_BYTES >= 128
    word_t word8;
    word_t word9;
    word_t word10;
    word_t word11;
    word_t word12;
    word_t word13;
    word_t word14;
    word_t word15;
#endif
    value_t value;
    summary_t summary;
    seen_t seen;
}

struct metadata_t {
    bit<1> complete;         // the datagram was parsed to its end
    bit<1> too_long;         // its value is longer than VALUE_BYTES
    bit<VALUE_BITS> value;   // what came behind the header, zeros behind that
    bit<8> outcome;          // what became of the packet: outcomes.p4
    bit<GROUP_BITS> group;   // of this switch's groups
    bit<16> id;              // this switch's, within its role in that group
    bit<32> incarnation;     // of this acceptor
    bit<16> audience;        // the multicast group of those it tells: learners, or acceptors
    bit<8> verdict;          // where the packet goes: sending.p4
    bit<16> value_bytes;     // how much follows the header when it goes
}

// Word k of a value, the first on top.
#define WORD(k) VALUE_BITS - 1 - 64 * (k) : VALUE_BITS - 64 - 64 * (k)

// The state behind the last word that VALUE_BYTES has room for.
#if VALUE_BYTES == 8
#define AFTER_WORD_0 too_long
#else
#define AFTER_WORD_0 word1
#endif
#if VALUE_BYTES == 16
#define AFTER_WORD_1 too_long
#else
#define AFTER_WORD_1 word2
#endif
#if VALUE_BYTES == 32
#define AFTER_WORD_3 too_long
#else
#define AFTER_WORD_3 word4
#endif
#if VALUE_BYTES == 64
#define AFTER_WORD_7 too_long
#else
#define AFTER_WORD_7 word8
#endif

parser PacketParser(packet_in packet,
                    out headers_t hdr,
                    inout metadata_t meta,
                    inout standard_metadata_t standard_metadata) {
    state start {
        meta.complete = 0;
        meta.too_long = 0;
        meta.value = 0;
        meta.outcome = OUTCOME_PASSED;
        meta.group = 0;
        meta.id = 0;
        meta.incarnation = 0;
        meta.audience = 0;
        meta.verdict = VERDICT_SILENCE;
        meta.value_bytes = 0;
        packet.extract(hdr.ethernet);
        transition select(hdr.ethernet.ether_type) {
            ETHERTYPE_IPV4: ipv4;
            default: accept;
        }
    }

    // A fragment has no whole message.
    state ipv4 {
        packet.extract(hdr.ipv4);
        transition select(hdr.ipv4.version_ihl, hdr.ipv4.fragment, hdr.ipv4.protocol) {
            (IPV4_PLAIN, 0 &&& 0x3fff, PROTOCOL_UDP): udp;
            default: accept;
        }
    }

    state udp {
        packet.extract(hdr.udp);
        packet.extract(hdr.paxos);
        transition select(hdr.udp.length) {
            MESSAGE_BYTES: complete;
            default: word0;
        }
    }

    state word0 {
        packet.extract(hdr.word0);
        meta.value[WORD(0)] = hdr.word0.data;
        transition select(hdr.udp.length) {
            MESSAGE_BYTES + 8: complete;
            default: AFTER_WORD_0;
        }
    }

#if VALUE_BYTES >= 16
    state word1 {
        packet.extract(hdr.word1);
        meta.value[WORD(1)] = hdr.word1.data;
        transition select(hdr.udp.length) {
            MESSAGE_BYTES + 16: complete;
            default: AFTER_WORD_1;
        }
    }
#endif

#if VALUE_BYTES >= 32
    state word2 {
        packet.extract(hdr.word2);
        meta.value[WORD(2)] = hdr.word2.data;
        transition select(hdr.udp.length) {
            MESSAGE_BYTES + 24: complete;
            default: word3;
        }
    }

    state word3 {
        packet.extract(hdr.word3);
        meta.value[WORD(3)] = hdr.word3.data;
        transition select(hdr.udp.length) {
            MESSAGE_BYTES + 32: complete;
            default: AFTER_WORD_3;
        }
    }
#endif

#if VALUE_BYTES >= 64
    state word4 {
        packet.extract(hdr.word4);
        meta.value[WORD(4)] = hdr.word4.data;
        transition select(hdr.udp.length) {
            MESSAGE_BYTES + 40: complete;
            default: word5;
        }
    }

    state word5 {
        packet.extract(hdr.word5);
        meta.value[WORD(5)] = hdr.word5.data;
        transition select(hdr.udp.length) {
            MESSAGE_BYTES + 48: complete;
            default: word6;
        }
    }

    state word6 {
        packet.extract(hdr.word6);
        meta.value[WORD(6)] = hdr.word6.data;
        transition select(hdr.udp.length) {
            MESSAGE_BYTES + 56: complete;
            default: word7;
        }
    }

    state word7 {
        packet.extract(hdr.word7);
        meta.value[WORD(7)] = hdr.word7.data;
        transition select(hdr.udp.length) {
            MESSAGE_BYTES + 64: complete;
            default: AFTER_WORD_7;
        }
    }
#endif

#if VALUE_BYTES >= 128
    state word8 {
        packet.extract(hdr.word8);
        meta.value[WORD(8)] = hdr.word8.data;
        transition select(hdr.udp.length) {
            MESSAGE_BYTES + 72: complete;
            default: word9;
        }
    }

    state word9 {
        packet.extract(hdr.word9);
        meta.value[WORD(9)] = hdr.word9.data;
        transition select(hdr.udp.length) {
            MESSAGE_BYTES + 80: complete;
            default: word10;
        }
    }

    state word10 {
        packet.extract(hdr.word10);
        meta.value[WORD(10)] = hdr.word10.data;
        transition select(hdr.udp.length) {
            MESSAGE_BYTES + 88: complete;
            default: word11;
        }
    }

    state word11 {
        packet.extract(hdr.word11);
        meta.value[WORD(11)] = hdr.word11.data;
        transition select(hdr.udp.length) {
            MESSAGE_BYTES + 96: complete;
            default: word12;
        }
    }

    state word12 {
        packet.extract(hdr.word12);
        meta.value[WORD(12)] = hdr.word12.data;
        transition select(hdr.udp.length) {
            MESSAGE_BYTES + 104: complete;
            default: word13;
        }
    }

    state word13 {
        packet.extract(hdr.word13);
        meta.value[WORD(13)] = hdr.word13.data;
        transition select(hdr.udp.length) {
            MESSAGE_BYTES + 112: complete;
            default: word14;
        }
    }

    state word14 {
        packet.extract(hdr.word14);
        meta.value[WORD(14)] = hdr.word14.data;
        transition select(hdr.udp.length) {
            MESSAGE_BYTES + 120: complete;
            default: word15;
        }
    }

    state word15 {
        packet.extract(hdr.word15);
        meta.value[WORD(15)] = hdr.word15.data;
        transition select(hdr.udp.length) {
            MESSAGE_BYTES + 128: complete;
            default: too_long;
        }
    }
#endif

    state complete {
        meta.complete = 1;
        transition accept;
    }

    state too_long {
        meta.too_long = 1;
        transition accept;
    }
}

// What every UDP checksum of ours is over, before what follows the header: the pseudo header, UDP's
// header without the checksum, the Paxos header.
#define CHECKED \
    hdr.ipv4.source, hdr.ipv4.destination, 8w0, hdr.ipv4.protocol, hdr.udp.length, \
    hdr.udp.source, hdr.udp.destination, hdr.udp.length, \
    PAXOS_FIELDS(hdr.paxos)

#define IPV4_CHECKED \
    hdr.ipv4.version_ihl, hdr.ipv4.service, hdr.ipv4.total_length, hdr.ipv4.identification, \
    hdr.ipv4.fragment, hdr.ipv4.ttl, hdr.ipv4.protocol, hdr.ipv4.source, hdr.ipv4.destination

// RFC 768: 0 says that there is no checksum, so a sum that comes out as 0 is sent as all ones, which
// no csum16 is ever equal to. Of these packets, one in 65,535, it is not looked at.
#define HAS_CHECKSUM hdr.udp.checksum != 0 && hdr.udp.checksum != 0xffff

// A UDP checksum of 0 is none, which any receiver of IPv4 takes. Of a value that is too long the
// rest is payload; behind any other there may be what pads a frame.
control Verify(inout headers_t hdr, inout metadata_t meta) {
    apply {
        verify_checksum(hdr.ipv4.isValid(), { IPV4_CHECKED }, hdr.ipv4.checksum,
                        HashAlgorithm.csum16);
        verify_checksum(meta.complete == 1 && HAS_CHECKSUM, { CHECKED, meta.value },
                        hdr.udp.checksum, HashAlgorithm.csum16);
        verify_checksum_with_payload(meta.too_long == 1 && HAS_CHECKSUM,
                                     { CHECKED, meta.value }, hdr.udp.checksum,
                                     HashAlgorithm.csum16);
    }
}

// What leaves always has a checksum. The sum of one packet in 65,535 comes out as 0, which says
// that there is none: nobody refuses it.
control Update(inout headers_t hdr, inout metadata_t meta) {
    apply {
        update_checksum(hdr.ipv4.isValid(), { IPV4_CHECKED }, hdr.ipv4.checksum,
                        HashAlgorithm.csum16);
        update_checksum(hdr.paxos.isValid() && !hdr.value.isValid() && !hdr.seen.isValid(),
                        { CHECKED }, hdr.udp.checksum, HashAlgorithm.csum16);
        update_checksum(hdr.paxos.isValid() && hdr.value.isValid(),
                        { CHECKED, hdr.value.data }, hdr.udp.checksum, HashAlgorithm.csum16);
        update_checksum(hdr.paxos.isValid() && hdr.seen.isValid() && !hdr.summary.isValid(),
                        { CHECKED, hdr.seen.incarnations, hdr.seen.padding },
                        hdr.udp.checksum, HashAlgorithm.csum16);
        update_checksum(hdr.paxos.isValid() && hdr.seen.isValid() && hdr.summary.isValid(),
                        { CHECKED, hdr.summary.highest, hdr.summary.votes, hdr.summary.nonce,
                          hdr.seen.incarnations, hdr.seen.padding },
                        hdr.udp.checksum, HashAlgorithm.csum16);
    }
}

// The words of what came in are left out: what leaves has been put together anew.
control PacketDeparser(packet_out packet, in headers_t hdr) {
    apply {
        packet.emit(hdr.ethernet);
        packet.emit(hdr.ipv4);
        packet.emit(hdr.udp);
        packet.emit(hdr.paxos);
        packet.emit(hdr.value);
        packet.emit(hdr.summary);
        packet.emit(hdr.seen);
    }
}

#endif
