/*
 * LZ4_decompress_safe, and no offset of 0: the block format forbids it ("the offset 0 is an invalid value"), and liblz4
 * up to 1.9.4 decodes it into whatever was in the memory before.
 */
#ifndef ANALYSIS_LZ4_STRICT_H
#define ANALYSIS_LZ4_STRICT_H

#include <lz4.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A length that did not fit its four bits. */
static inline size_t lz4_more_length(const uint8_t *in, size_t n_in, size_t *at)
{
    size_t length = 0;
    for (uint8_t byte = 255; byte == 255 && *at < n_in;)
        length += byte = in[(*at)++];
    return length;
}

/* Of a stream that liblz4 has accepted. */
static inline bool lz4_has_offset_0(const uint8_t *in, size_t n_in)
{
    for (size_t at = 0; at < n_in;) {
        uint8_t token = in[at++];
        size_t n_literals = token >> 4;
        if (n_literals == 15)
            n_literals += lz4_more_length(in, n_in, &at);
        at += n_literals;
        if (at + 2 > n_in)
            return false;
        if (in[at] == 0 && in[at + 1] == 0)
            return true;
        at += 2;
        if ((token & 15) == 15)
            lz4_more_length(in, n_in, &at);
    }
    return false;
}

/* Whether [n_in] bytes are a block of LZ4 of exactly [n_out]. */
static inline bool lz4_decode_strict(const uint8_t *in, size_t n_in, uint8_t *ret_out, size_t n_out)
{
    return LZ4_decompress_safe((const char *)in, (char *)ret_out, (int)n_in, (int)n_out) == (int)n_out &&
           !lz4_has_offset_0(in, n_in);
}

#endif
