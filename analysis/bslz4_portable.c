#include <endian.h>
#include <string.h>

#include "analysis/bslz4_block.h"
#include "analysis/lz4_strict.h"

#define WORDS_MAX (BSLZ4_BLOCK_BYTES_MAX / 8 / 8) /* of the planes of a block of bytes, the longest */

/* 64 pixels of one plane, the first the lowest bit on every machine; `n` bytes are there, 1 to 8. */
static uint64_t plane_word(const uint8_t *plane, size_t n)
{
    uint64_t word = 0;
    memcpy(&word, plane, n);
    return le64toh(word);
}

/* [n_words] the pixels of a block that have a bit in any plane, the mask not yet applied. */
static void unite_planes(const uint8_t *planes, int n_planes, size_t plane_bytes, uint64_t *ret_words)
{
    size_t n_whole = plane_bytes / 8, n_rest = plane_bytes % 8;
    memset(ret_words, 0, (n_whole + 1) * sizeof *ret_words);
    for (int p = 0; p < n_planes; p++) {
        const uint8_t *plane = planes + (size_t)p * plane_bytes;
        for (size_t i = 0; i < n_whole; i++)
            ret_words[i] |= plane_word(plane + 8 * i, 8);
        if (n_rest)
            ret_words[n_whole] |= plane_word(plane + 8 * n_whole, n_rest);
    }
}

static uint32_t gather_count(const uint8_t *planes, int n_planes, size_t plane_bytes, size_t element)
{
    uint32_t count = 0;
    for (int p = 0; p < n_planes; p++)
        count |= (uint32_t)(planes[(size_t)p * plane_bytes + element / 8] >> element % 8 & 1) << p;
    return count;
}

int bslz4_portable_block(const struct bslz4_block *block, struct event_sink *sink)
{
    const struct frame_shape *frame = block->frame;
    size_t plane_bytes = block->n_elements / 8, n_mask_words = (frame->n_pixels + 63) / 64;
    int n_planes = 8 * frame->element_bytes;
    size_t n_out = block->n_elements * (size_t)frame->element_bytes;
    uint8_t planes[BSLZ4_BLOCK_BYTES_MAX];
    uint64_t words[WORDS_MAX + 1];
    if (!lz4_decode_strict(block->in, block->n_in, planes, n_out))
        return -1;
    unite_planes(planes, n_planes, plane_bytes, words);
    for (size_t i = 0; 8 * i < plane_bytes; i++) {
        uint64_t word = words[i] & bslz4_bits_at(frame->valid_bits, n_mask_words, block->first_pixel + 64 * i);
        for (; word; word &= word - 1) {
            size_t element = 64 * i + (size_t)__builtin_ctzll(word);
            event_put(sink, frame, block->first_pixel + element, gather_count(planes, n_planes, plane_bytes, element));
        }
    }
    return 0;
}
