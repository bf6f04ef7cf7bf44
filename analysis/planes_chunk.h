/*
 * The pairs of a batch of frames with all earlier ones, in one chunk of their planes: what the three paths of
 * analysis/planes.h provide. Private to them.
 */
#ifndef ANALYSIS_PLANES_CHUNK_H
#define ANALYSIS_PLANES_CHUNK_H

#include "analysis/planes.h"

#define PLANES_CHUNK_ROWS 31   /* so that the ones of a byte, eight a row, can be added up in a byte */
#define PLANES_CHUNK_COLUMNS 8 /* words: half of the groups */
#define PLANES_TILE_MAX 4      /* frames; planes are there up to a multiple of it, the last ones zero */

struct planes_chunk {
    const uint64_t *words; /* [n_digits][frame][n_rows][PLANES_CHUNK_COLUMNS], 64-byte aligned */
    size_t digit_words;    /* from one digit to the next */
    size_t n_rows;         /* up to PLANES_CHUNK_ROWS */
    int n_digits;
    size_t first, end; /* frames of the batch */
    const uint8_t *range_of_lag;
    uint32_t *rows; /* [PLANES_BATCH][row_words], frame t at t % PLANES_BATCH: pairs are added */
    size_t row_words;
    uint64_t (*group_pairs)[TTCF_GROUPS]; /* by range of lags; the chunk's first group stands first: pairs are added */
};

typedef void planes_count_chunk(const struct planes_chunk *chunk);

planes_count_chunk planes_portable_chunk;
planes_count_chunk planes_avx2_chunk;
planes_count_chunk planes_avx512_chunk;

#endif
