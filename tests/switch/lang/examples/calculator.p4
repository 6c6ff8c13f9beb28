// Operand, operator, operand: the packet goes back with the result.

#include <v1model.p4>
#include "ethernet.p4"

enum Answer { NONE, RESULT, REFUSAL }

header calculator_t {
    bit<16> magic;
    bit<8> operator;
    bit<8> flags;
    int<32> left;
    int<32> right;
    bit<32> result;
}

struct headers_t {
    ethernet_t ethernet;
    calculator_t calculator;
}

struct metadata_t {
    Answer answer;
}

const bit<8> NEGATIVE = 1 << 0;
const bit<8> REFUSED = 1 << 7;

parser CalculatorParser(packet_in packet,
                        out headers_t hdr,
                        inout metadata_t meta,
                        inout standard_metadata_t standard_metadata) {
    state start {
        meta.answer = Answer.NONE;
        packet.extract(hdr.ethernet);
        transition select(hdr.ethernet.ether_type, packet.lookahead<bit<16>>()) {
            (EtherType.CALCULATOR, 0x5034): calculator;
            default: accept;
        }
    }

    state calculator {
        packet.extract(hdr.calculator);
        transition accept;
    }
}

control Verify(inout headers_t hdr, inout metadata_t meta) {
    apply { }
}

// What is done to the result, whoever computed it.
control Signs(in int<32> value, inout bit<8> flags) {
    apply {
        if (value >= 0) {
            return;
        }
        flags = flags | NEGATIVE;
    }
}

control Calculator(inout headers_t hdr,
                   inout metadata_t meta,
                   inout standard_metadata_t standard_metadata) {
    Signs() signs;

    action give(int<32> result) {
        hdr.calculator.result = (bit<32>) result;
        meta.answer = Answer.RESULT;
    }

    action add() { give(hdr.calculator.left + hdr.calculator.right); }
    action subtract() { give(hdr.calculator.left - hdr.calculator.right); }
    action multiply() { give(hdr.calculator.left * hdr.calculator.right); }
    action larger() {
        bool first = hdr.calculator.left > hdr.calculator.right;
        give(first ? hdr.calculator.left : hdr.calculator.right);
    }
    action shift(bit<5> by) { give(hdr.calculator.left >> by); }
    action halves() {
        hdr.calculator.result[31:16] = hdr.calculator.left[15:0];
        hdr.calculator.result[15:0] = (bit<16>) hdr.calculator.right[31:16];
        meta.answer = Answer.RESULT;
    }
    action refuse() { meta.answer = Answer.REFUSAL; }

    table operators {
        key = {
            hdr.calculator.operator: ternary;
            hdr.calculator.flags: range;
        }
        actions = { add; subtract; multiply; larger; shift; halves; refuse; }
        const default_action = refuse();
        const entries = {
            (0x2b, _): add();
            (0x2d, 0 .. 127): subtract();
            (0x2a, 0): multiply();
            (0x3e, _): larger();
            (0x2f, _): shift(by = 1);
            (0x68 &&& 0xfe, default): halves();
        }
    }

    apply {
        if (!hdr.calculator.isValid()) {
            mark_to_drop(standard_metadata);
            exit;
        }
        operators.apply();
        switch (meta.answer) {
            Answer.RESULT: { signs.apply((int<32>) hdr.calculator.result, hdr.calculator.flags); }
            Answer.REFUSAL: { hdr.calculator.flags = hdr.calculator.flags | REFUSED; }
        }
        mac_t source = hdr.ethernet.source;
        hdr.ethernet.source = hdr.ethernet.destination;
        hdr.ethernet.destination = source;
        standard_metadata.egress_spec = standard_metadata.ingress_port;
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

control CalculatorDeparser(packet_out packet, in headers_t hdr) {
    apply {
        packet.emit(hdr.ethernet);
        packet.emit(hdr.calculator);
    }
}

V1Switch(CalculatorParser(), Verify(), Calculator(), Egress(), Update(),
         CalculatorDeparser()) main;
