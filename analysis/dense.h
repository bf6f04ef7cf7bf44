/*
 * Frames that are not bitshuffled -> photon events: counts of 1, 2 or 4 bytes, little endian, one after the other,
 * either as they are or as LZ4 (HDF5 filter 32004). Pure.
 *
 * A chunk of filter 32004: 8 bytes uncompressed size and 4 bytes block size, big endian, then per block 4 bytes
 * compressed length, big endian, and a raw LZ4 block, or the bytes as they are when the length is that of the block.
 * Layout: HDF5 LZ4 filter (M. Rissi, DECTRIS), registered as 32004.
 */
#ifndef ANALYSIS_DENSE_H
#define ANALYSIS_DENSE_H

#include "analysis/event.h"
#include "base/err.h"

/* `bytes` [n_pixels * element_bytes] into `sink`, from its beginning. Errors: ERR_DATA (another size). */
int dense_decode_frame(const struct frame_shape *shape, const uint8_t *bytes, size_t n_bytes, struct event_sink *sink,
                       struct err *err);

/*
 * One chunk of filter 32004.
 *   scratch  [n_pixels * element_bytes], the decompressed frame: this format leaves no way around it
 * Errors: ERR_DATA with what was wrong and where in the chunk; `sink` then holds nothing.
 */
int dense_decode_lz4(const struct frame_shape *shape, const uint8_t *chunk, size_t n_chunk_bytes, uint8_t *scratch,
                     struct event_sink *sink, struct err *err);

#endif
