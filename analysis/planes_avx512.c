/* Compiled for AVX-512 with VPOPCNTDQ; called only where planes_best_path has found it. */
#ifdef __x86_64__
#ifdef __clang__ /* which the fuzzers are compiled with */
#pragma clang attribute push(__attribute__((target("avx512f,avx512vl,avx512vpopcntdq"))), apply_to = function)
#else
#pragma GCC target("avx512f,avx512vl,avx512vpopcntdq")
#endif

#include <immintrin.h>

#define VECTOR_WORDS 8
#define TILE 4

#include "analysis/planes_vector.h"

INLINE vector count_ones(vector bits) { return (vector)_mm512_popcnt_epi64((__m512i)bits); }

INLINE vector sum_words(vector ones) { return ones; }

/* Four vectors are turned and added at once: first the neighbours of two, then fours, then the halves. */
INLINE void add_counts(uint32_t pairs[TILE], const vector counts[TILE], int shift)
{
    __m512i a = (__m512i)counts[0], b = (__m512i)counts[1], c = (__m512i)counts[2], d = (__m512i)counts[3];
    __m512i ab = _mm512_add_epi64(_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b));
    __m512i cd = _mm512_add_epi64(_mm512_unpacklo_epi64(c, d), _mm512_unpackhi_epi64(c, d));
    __m512i halves = _mm512_add_epi64(_mm512_shuffle_i64x2(ab, cd, 0x88), _mm512_shuffle_i64x2(ab, cd, 0xdd));
    __m512i quarters = _mm512_add_epi64(halves, _mm512_shuffle_i64x2(halves, halves, 0xb1)); /* ab ab cd cd */
    __m256i sums = _mm512_castsi512_si256(_mm512_shuffle_i64x2(quarters, quarters, 0x08));
    __m128i added = _mm256_cvtepi64_epi32(_mm256_sll_epi64(sums, _mm_cvtsi32_si128(shift)));
    _mm_storeu_si128((__m128i *)pairs, _mm_add_epi32(_mm_loadu_si128((const __m128i *)pairs), added));
}

void planes_avx512_chunk(const struct planes_chunk *chunk) { count_chunk(chunk); }
#ifdef __clang__
#pragma clang attribute pop
#endif
#else
typedef int planes_avx512_is_for_x86;
#endif
