/* Compiled for AVX2; called only where planes_best_path has found it. */
#ifdef __x86_64__
#ifdef __clang__ /* which the fuzzers are compiled with */
#pragma clang attribute push(__attribute__((target("avx2"))), apply_to = function)
#else
#pragma GCC target("avx2")
#endif

#include <immintrin.h>

#define VECTOR_WORDS 4
#define TILE 2

#include "analysis/planes_vector.h"

/* By byte: the ones of its two nibbles, from a table (Mula, Kurz and Lemire, Comput. J. 61, 111 (2018), doi
 * 10.1093/comjnl/bxx046). */
INLINE vector count_ones(vector bits)
{
    const __m256i ones = _mm256_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4, 0, 1, 1, 2, 1, 2, 2, 3, 1, 2,
                                          2, 3, 2, 3, 3, 4);
    const __m256i nibble = _mm256_set1_epi8(15), low = (__m256i)bits;
    __m256i high = _mm256_and_si256(_mm256_srli_epi16(low, 4), nibble);
    return (vector)_mm256_add_epi8(_mm256_shuffle_epi8(ones, _mm256_and_si256(low, nibble)),
                                   _mm256_shuffle_epi8(ones, high));
}

INLINE vector sum_words(vector ones) { return (vector)_mm256_sad_epu8((__m256i)ones, _mm256_setzero_si256()); }

INLINE void add_counts(uint32_t pairs[TILE], const vector counts[TILE], int shift)
{
    for (size_t i = 0; i < TILE; i++)
        pairs[i] += (uint32_t)((counts[i][0] + counts[i][1] + counts[i][2] + counts[i][3]) << shift);
}

void planes_avx2_chunk(const struct planes_chunk *chunk) { count_chunk(chunk); }
#ifdef __clang__
#pragma clang attribute pop
#endif
#else
typedef int planes_avx2_is_for_x86;
#endif
