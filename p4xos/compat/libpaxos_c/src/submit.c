/* A value on a connection that the program has made by itself, in libpaxos' own form. */
#include <event2/buffer.h>

#include "bytes.h"
#include "evpaxos/paxos.h"
#include "paxos.h"
#include "wire.h"

#define FIX_ARRAY_OF_2 0x92     /* msgpack: [CLIENT_VALUE, value] */
#define BIN_8 0xc4
#define BIN_32 0xc6

void paxos_submit(struct bufferevent *connection, char *value, int size)
{
    unsigned char start[7] = {FIX_ARRAY_OF_2, CLIENT_VALUE};
    size_t start_bytes = 4;
    if (size < 0 || size > VALUE_BYTES_MAX) {
        paxos_log_error("a value of %d bytes cannot be submitted: 0 to %d are possible", size,
                        VALUE_BYTES_MAX);
        return;
    }
    if (size < 256) {
        start[2] = BIN_8;
        start[3] = (unsigned char)size;
    } else {
        start[2] = BIN_32;
        put_u32(start + 3, (uint32_t)size);
        start_bytes = sizeof start;
    }
    struct evbuffer *out = bufferevent_get_output(connection);
    evbuffer_add(out, start, start_bytes);
    evbuffer_add(out, value, (size_t)size);
}
