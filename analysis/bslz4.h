/*
 * One compressed EIGER2 frame -> photon events, without ever making the dense frame. Pure.
 *
 * A chunk of the HDF5 filter 32008 (bitshuffle, LZ4): 8 bytes uncompressed size and 4 bytes block size, big endian,
 * then per block 4 bytes compressed length, big endian, and a raw LZ4 block. A decompressed block of N elements holds
 * its bits as planes of N / 8 bytes, least significant plane first: bit j of byte i of plane p is bit p of element 8 i
 * + j. So the OR of the planes, AND the mask of valid pixels, marks the pixels with photons. Elements beyond a multiple
 * of 8 stand uncompressed at the end. Layout: bitshuffle (Masui et al., Astron. Comput. 12, 181 (2015), doi
 * 10.1016/j.ascom.2015.07.002) and the LZ4 block format.
 */
#ifndef ANALYSIS_BSLZ4_H
#define ANALYSIS_BSLZ4_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define BSLZ4_BLOCK_BYTES_MAX 65536

struct photon_event {
    uint32_t pixel; /* row * n_columns + column */
    uint32_t count; /* photons, >= 1 */
};

struct bslz4_frame {
    size_t n_pixels;
    int element_bytes;          /* 2 or 4 */
    uint32_t count_max;         /* larger counts are not photons (saturated, or flagged invalid in this frame) */
    const uint64_t *valid_bits; /* [(n_pixels + 63) / 64], bit i of word w: pixel 64 w + i is valid */
};

/*
 * Decodes one chunk.
 *   ret_events  [n_pixels], filled in pixel order
 *   ret_n       events written
 *   ret_n_invalid  valid pixels whose value is above count_max in this frame; they give no event
 * Errors: ERR_DATA with what was wrong and where in the chunk. Events may have been written when it fails.
 */
int bslz4_decode_frame(const struct bslz4_frame *frame, const uint8_t *chunk, size_t n_chunk_bytes,
                       struct photon_event *ret_events, size_t *ret_n, size_t *ret_n_invalid, struct err *err);

#endif
