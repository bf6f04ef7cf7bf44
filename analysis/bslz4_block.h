/*
 * One block of a chunk -> its events: what the three paths of analysis/bslz4.h provide. Private to them.
 */
#ifndef ANALYSIS_BSLZ4_BLOCK_H
#define ANALYSIS_BSLZ4_BLOCK_H

#include "analysis/bslz4.h"

#define BSLZ4_READ_SLACK 64 /* bytes behind the compressed block that a vector path may read */

struct bslz4_block {
    const struct frame_shape *frame;
    const uint8_t *in; /* [n_in], raw LZ4 */
    size_t n_in;
    size_t n_elements; /* a multiple of 8 */
    size_t first_pixel;
};

/* Appends the events of one block. Returns 0, or -1 when it is not LZ4 of n_elements * element_bytes bytes. */
typedef int bslz4_decode_block(const struct bslz4_block *block, struct event_sink *sink);

bslz4_decode_block bslz4_portable_block;

/*
 * Only for blocks with n_elements and first_pixel multiples of 512, count_max at least 3, and BSLZ4_READ_SLACK readable
 * bytes behind the block.
 */
bslz4_decode_block bslz4_avx2_block;
bslz4_decode_block bslz4_avx512_block;

/* 64 bits of a bitmap of n_words from bit `first` on; bits beyond its end are 0. */
static inline uint64_t bslz4_bits_at(const uint64_t *bits, size_t n_words, size_t first)
{
    size_t word = first / 64, shift = first % 64;
    uint64_t value = word < n_words ? bits[word] >> shift : 0;
    if (shift && word + 1 < n_words)
        value |= bits[word + 1] << (64 - shift);
    return value;
}

#endif
