/*
 * One compressed EIGER2 frame -> photon events, without ever making the dense frame. Pure.
 *
 * A chunk of the HDF5 filter 32008 (bitshuffle, LZ4): 8 bytes uncompressed size and 4 bytes block size, big endian,
 * then per block 4 bytes compressed length, big endian, and a raw LZ4 block. A decompressed block of N elements holds
 * its bits as planes of N / 8 bytes, least significant plane first: bit j of byte i of plane p is bit p of element 8 i
 * + j. So the OR of the planes, AND the mask of valid pixels, marks the pixels with photons. Elements beyond a multiple
 * of 8 stand uncompressed at the end. Layout: bitshuffle (Masui et al., Astron. Comput. 12, 181 (2015), doi
 * 10.1016/j.ascom.2015.07.002) and the LZ4 block format.
 *
 * Three paths give the same events; the best that the processor has is taken at run time. `portable` (bslz4_portable.c)
 * is liblz4 and a scan of the planes: it decides what is right. The two others share bslz4_vector.h. Blocks without a
 * valid pixel are skipped unread, by their length.
 */
#ifndef ANALYSIS_BSLZ4_H
#define ANALYSIS_BSLZ4_H

#include "analysis/event.h"
#include "base/err.h"

#define BSLZ4_BLOCK_BYTES_MAX 65536

enum bslz4_path { BSLZ4_PORTABLE, BSLZ4_AVX2, BSLZ4_AVX512, BSLZ4_PATH_COUNT };

/*
 * Decodes one chunk into `sink`, from its beginning.
 * Errors: ERR_DATA with what was wrong and where in the chunk; `sink` then holds part of the frame.
 */
int bslz4_decode_frame(const struct frame_shape *frame, const uint8_t *chunk, size_t n_chunk_bytes,
                       struct event_sink *sink, struct err *err);

/* The same by one path, which must be no better than bslz4_best_path(): for tests and benchmarks. */
int bslz4_decode_frame_by(enum bslz4_path path, const struct frame_shape *frame, const uint8_t *chunk,
                          size_t n_chunk_bytes, struct event_sink *sink, struct err *err);

enum bslz4_path bslz4_best_path(void);

/* "portable", "avx2", "avx512" */
const char *bslz4_path_name(enum bslz4_path path);

#endif
