/* Reads heads, each behind its length in four bytes, and prints what is understood of each. */
#include <stdio.h>
#include <stdlib.h>

#include "bytes.h"
#include "head.h"

static void print_head(const struct head *head)
{
    for (int k = 0; k < NUMBER_KEYS; k++) {
        if (head->has_number[k])
            printf("%llu ", (unsigned long long)head->numbers[k]);
        else
            printf("- ");
    }
    for (int k = 0; k < TEXT_KEYS; k++) {
        printf(head->has_text[k] ? "'" : "-");
        for (size_t n = 0; n < head->texts[k].bytes; n++)
            printf("%02x", (unsigned char)head->texts[k].start[n]);
        putchar(k == TEXT_KEYS - 1 ? '\n' : ' ');
    }
}

int main(void)
{
    unsigned char length[4];
    while (fread(length, sizeof length, 1, stdin) == 1) {
        size_t bytes = get_u32(length);
        /* Allocated anew, so that what is read behind the end is found. */
        unsigned char *data = malloc(bytes ? bytes : 1);
        struct head head;
        if (!data || (bytes && fread(data, bytes, 1, stdin) != 1))
            return 1;
        if (head_read_untrusted(&head, data, bytes))
            print_head(&head);
        else
            puts("bad");
        free(data);
    }
    return 0;
}
