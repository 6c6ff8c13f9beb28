// What the examples share.

#ifndef ETHERNET_P4
#define ETHERNET_P4

typedef bit<48> mac_t;

enum bit<16> EtherType {
    IPV4 = 0x0800,
    CALCULATOR = 0x1234
}

header ethernet_t {
    mac_t destination;
    mac_t source;
    EtherType ether_type;
}

header ipv4_t {
    bit<4> version;
    bit<4> words;
    bit<8> service;
    bit<16> length;
    bit<16> identification;
    bit<3> flags;
    bit<13> fragment;
    bit<8> ttl;
    bit<8> protocol;
    bit<16> checksum;
    bit<32> source;
    bit<32> destination;
}

#define IPV4_FIELDS(ip) \
    ip.version, ip.words, ip.service, ip.length, ip.identification, ip.flags, ip.fragment, \
    ip.ttl, ip.protocol, ip.source, ip.destination

#endif
