// What datagrams of connections begin with. Generated from p4xos/chunnels/messages.py
// and singly.py by `python -m switch.xdp.generate`: change those.

#ifndef CHUNNELS_H
#define CHUNNELS_H

#define DATA 0xb7
#define ID_BYTES 8
#define SINGLY_MESSAGE 1
#define SINGLY_ACK 2
#define SINGLY_HEADER_BYTES 27
#define ORIGIN_AT 1
#define ACKS_AT 26
#define ACK_BYTES 8
#define ACKS_MAX 16

#endif
