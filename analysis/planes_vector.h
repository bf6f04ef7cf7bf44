/*
 * The paths of analysis/planes.h. Included once by each of their files, which set the target and VECTOR_WORDS and TILE
 * before and define the three functions below after.
 *
 * A tile is TILE earlier frames x TILE new ones: their TILE^2 sums stay in registers down the rows, and a vector that
 * is read serves TILE of them. Tiles begin at multiples of TILE; what lies beyond the batch or is no pair t1 < t2 is
 * counted and left out.
 */
#ifndef ANALYSIS_PLANES_VECTOR_H
#define ANALYSIS_PLANES_VECTOR_H

#include "analysis/planes_chunk.h"

#define INLINE static inline __attribute__((always_inline))
#define VECTORS (PLANES_CHUNK_COLUMNS / VECTOR_WORDS) /* a row */

typedef uint64_t vector __attribute__((vector_size(VECTOR_WORDS * 8), may_alias));

_Static_assert(PLANES_TILE_MAX % TILE == 0 && PLANES_BATCH % PLANES_TILE_MAX == 0, "tiles do not straddle batches");

/* The ones of `bits`, by word or by byte, such that PLANES_CHUNK_ROWS of these can be added. */
INLINE vector count_ones(vector bits);

/* Sums of such, by word. */
INLINE vector sum_words(vector ones);

/* pairs[i] += the sum of the words of counts[i] << shift */
INLINE void add_counts(uint32_t pairs[TILE], const vector counts[TILE], int shift);

/* Frames earlier .. earlier + TILE - 1 with later .. later + TILE - 1, of two digits. */
struct tile {
    size_t earlier, later;
    const vector *a, *b; /* their planes */
    const char *ahead;   /* n_rows lines of the earlier frames that come next; beyond the last ones nothing is read */
    int shift;
    bool is_whole; /* all are pairs of the batch */
};

INLINE void add_some(const struct planes_chunk *chunk, const struct tile *tile, size_t column,
                     vector counts[TILE][TILE])
{
    for (size_t j = 0; j < TILE; j++)
        for (size_t i = 0; i < TILE; i++) {
            size_t t1 = tile->earlier + i, t2 = tile->later + j;
            if (t1 >= t2 || t2 < chunk->first || t2 >= chunk->end)
                continue;
            uint64_t *groups = chunk->group_pairs[chunk->range_of_lag[t2 - t1]] + column * VECTOR_WORDS;
            uint64_t pairs = 0;
            for (size_t k = 0; k < VECTOR_WORDS; k++) {
                groups[k] += counts[j][i][k] << tile->shift;
                pairs += counts[j][i][k] << tile->shift;
            }
            chunk->rows[t2 % PLANES_BATCH * chunk->row_words + t1] += (uint32_t)pairs;
        }
}

INLINE void add_group_pairs(uint64_t *groups, vector counts, int shift) { *(vector *)groups += counts << shift; }

INLINE void add_all(const struct planes_chunk *chunk, const struct tile *tile, size_t column, vector counts[TILE][TILE])
{
    const uint8_t *range = chunk->range_of_lag + tile->later - tile->earlier;
    size_t at = column * VECTOR_WORDS;
#pragma GCC unroll 4
    for (size_t j = 0; j < TILE; j++)
        add_counts(chunk->rows + (tile->later + j) % PLANES_BATCH * chunk->row_words + tile->earlier, counts[j],
                   tile->shift);
    if (range[1 - TILE] == range[TILE - 1]) { /* nearly always: ranges grow with the lag */
        vector sum = {0};
#pragma GCC unroll 4
        for (size_t j = 0; j < TILE; j++)
#pragma GCC unroll 4
            for (size_t i = 0; i < TILE; i++)
                sum += counts[j][i];
        add_group_pairs(chunk->group_pairs[range[0]] + at, sum, tile->shift);
        return;
    }
#pragma GCC unroll 4
    for (size_t j = 0; j < TILE; j++)
#pragma GCC unroll 4
        for (size_t i = 0; i < TILE; i++)
            add_group_pairs(chunk->group_pairs[range[(ptrdiff_t)j - (ptrdiff_t)i]] + at, counts[j][i], tile->shift);
}

INLINE void count_tile(const struct planes_chunk *chunk, const struct tile *tile)
{
    size_t n = chunk->n_rows * VECTORS;
    for (size_t column = 0; column < VECTORS; column++) {
        vector counts[TILE][TILE] = {{{0}}};
        for (size_t v = column; v < n; v += VECTORS) {
            __builtin_prefetch(tile->ahead + v / VECTORS * 64);
#pragma GCC unroll 4
            for (size_t j = 0; j < TILE; j++)
#pragma GCC unroll 4
                for (size_t i = 0; i < TILE; i++)
                    counts[j][i] += count_ones(tile->a[i * n + v] & tile->b[j * n + v]);
        }
#pragma GCC unroll 4
        for (size_t j = 0; j < TILE; j++)
#pragma GCC unroll 4
            for (size_t i = 0; i < TILE; i++)
                counts[j][i] = sum_words(counts[j][i]);
        if (tile->is_whole) {
            add_all(chunk, tile, column, counts);
            continue;
        }
        vector kept[TILE][TILE]; /* that are asked for by number; those above stay in registers */
#pragma GCC unroll 4
        for (size_t j = 0; j < TILE; j++)
#pragma GCC unroll 4
            for (size_t i = 0; i < TILE; i++)
                kept[j][i] = counts[j][i];
        add_some(chunk, tile, column, kept);
    }
}

/* TILE earlier frames, once from memory, with all new ones. */
INLINE void count_chunk(const struct planes_chunk *chunk)
{
    size_t frame_words = chunk->n_rows * PLANES_CHUNK_COLUMNS;
    for (size_t earlier = 0; earlier < chunk->end; earlier += TILE)
        for (size_t later = (earlier > chunk->first ? earlier : chunk->first) / TILE * TILE; later < chunk->end;
             later += TILE)
            for (int j = 0; j < chunk->n_digits; j++)
                for (int k = 0; k < chunk->n_digits; k++) {
                    const uint64_t *a = chunk->words + (size_t)j * chunk->digit_words + earlier * frame_words;
                    const uint64_t *b = chunk->words + (size_t)k * chunk->digit_words + later * frame_words;
                    const struct tile tile = {.earlier = earlier,
                                              .later = later,
                                              .a = (const vector *)a,
                                              .b = (const vector *)b,
                                              .ahead = (const char *)(a + (TILE + later / TILE % TILE) * frame_words),
                                              .shift = j + k,
                                              .is_whole = earlier + TILE <= later && later >= chunk->first &&
                                                          later + TILE <= chunk->end};
                    count_tile(chunk, &tile);
                }
}

#endif
