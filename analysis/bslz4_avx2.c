/* Compiled for AVX2 with BMI2; called only where bslz4_best_path has found it. */
#ifdef __x86_64__
#ifdef __clang__ /* which the fuzzers are compiled with */
#pragma clang attribute push(__attribute__((target("avx2,bmi,bmi2,popcnt,lzcnt"))), apply_to = function)
#else
#pragma GCC target("avx2,bmi,bmi2,popcnt,lzcnt")
#endif

#include "analysis/bslz4_vector.h"

INLINE void store_32(uint8_t *to, __m256i bytes) { _mm256_storeu_si256((__m256i *)to, bytes); }

INLINE __m256i load_32(const uint8_t *from) { return _mm256_loadu_si256((const __m256i *)from); }

#define PATTERN_ROW(o)                                                                                                 \
    {                                                                                                                  \
        0 % o, 1 % o, 2 % o, 3 % o, 4 % o, 5 % o, 6 % o, 7 % o, 8 % o, 9 % o, 10 % o, 11 % o, 12 % o, 13 % o, 14 % o,  \
            15 % o                                                                                                     \
    }

/* Row `offset` - 1: which byte of the 16 from op - offset on stands at each place of the repeated pattern. */
static const uint8_t pattern[16][16] __attribute__((aligned(16))) = {
    PATTERN_ROW(1),  PATTERN_ROW(2),  PATTERN_ROW(3),  PATTERN_ROW(4),  PATTERN_ROW(5),  PATTERN_ROW(6),
    PATTERN_ROW(7),  PATTERN_ROW(8),  PATTERN_ROW(9),  PATTERN_ROW(10), PATTERN_ROW(11), PATTERN_ROW(12),
    PATTERN_ROW(13), PATTERN_ROW(14), PATTERN_ROW(15), PATTERN_ROW(16)};

/* Offsets 3 to 31, mostly short matches. */
INLINE void copy_near(uint8_t *op, size_t offset, size_t n)
{
    const __m128i *from = (const __m128i *)(op - offset);
    if (offset > 16) {
#pragma GCC unroll 3
        for (size_t i = 0; i < 48; i += 16)
            _mm_storeu_si128((__m128i *)(op + i), _mm_loadu_si128((const __m128i *)(op - offset + i)));
        for (size_t i = 48; i < n; i += 16)
            _mm_storeu_si128((__m128i *)(op + i), _mm_loadu_si128((const __m128i *)(op - offset + i)));
        return;
    }
    __m128i places = _mm_load_si128((const __m128i *)pattern[offset - 1]);
    __m128i repeated = _mm_shuffle_epi8(_mm_loadu_si128(from), places);
    size_t stride = 16 - 16 % offset;
#pragma GCC unroll 4
    for (size_t i = 0; i < 4; i++)
        _mm_storeu_si128((__m128i *)(op + i * stride), repeated);
    for (size_t i = 4 * stride; i < n; i += stride)
        _mm_storeu_si128((__m128i *)(op + i), repeated);
}

INLINE void copy_match(uint8_t *op, size_t offset, size_t n)
{
    if (offset >= 32) {
#pragma GCC unroll 4
        for (size_t i = 0; i < 128; i += 32)
            store_32(op + i, load_32(op - offset + i));
        for (size_t i = 128; i < n; i += 32)
            store_32(op + i, load_32(op - offset + i));
        return;
    }
    if (offset <= 2) {
        __m256i repeated = _mm256_set1_epi16((short)(op[-(ptrdiff_t)offset] | op[-1] << 8));
#pragma GCC unroll 4
        for (size_t i = 0; i < 128; i += 32)
            store_32(op + i, repeated);
        for (size_t i = 128; i < n; i += 32)
            store_32(op + i, repeated);
        return;
    }
    copy_near(op, offset, n);
}

INLINE uint32_t *emit_word(uint32_t *event, uint64_t word, uint64_t ones, uint64_t twos, uint32_t pixel, uint32_t unit)
{
    int n = __builtin_popcountll(word);
    uint64_t left = word;
    for (int i = 0; i == 0 || i < n; i += 4) { /* four at a time; those beyond the last are overwritten */
#pragma GCC unroll 4
        for (int k = 0; k < 4; k++, left = _blsr_u64(left))
            event[i + k] = pixel + (uint32_t)_tzcnt_u64(left);
    }
    for (twos &= word; twos; twos = _blsr_u64(twos)) { /* few */
        uint64_t bit = _blsi_u64(twos);
        event[__builtin_popcountll(word & (bit - 1))] += ones & bit ? 2 * unit : unit;
    }
    return event + n;
}

INLINE void mark_words(const struct scan *s, const uint8_t *valid, size_t byte, size_t n_bytes, uint64_t *ret_words,
                       uint64_t *ret_any, uint64_t *ret_high)
{
    const __m256i zero = _mm256_setzero_si256();
    uint64_t any = 0, high = 0;
    for (size_t i = 0; i < n_bytes; i += 32) {
        const uint8_t *plane = s->planes + byte + i;
        __m256i mask = load_32(valid + byte + i), all = load_32(plane), above = zero;
        if (s->n_planes > 1)
            all = _mm256_or_si256(all, load_32(plane + s->plane_bytes));
        for (int p = 2; p < s->n_planes; p++)
            above = _mm256_or_si256(above, load_32(plane + (size_t)p * s->plane_bytes));
        above = _mm256_and_si256(above, mask);
        all = _mm256_or_si256(_mm256_and_si256(all, mask), above);
        uint64_t all_zero = (uint64_t)_mm256_movemask_pd(_mm256_castsi256_pd(_mm256_cmpeq_epi64(all, zero)));
        uint64_t above_zero = (uint64_t)_mm256_movemask_pd(_mm256_castsi256_pd(_mm256_cmpeq_epi64(above, zero)));
        any |= (all_zero ^ 15) << i / 8;
        high |= (above_zero ^ 15) << i / 8;
        _mm256_store_si256((__m256i *)(void *)(ret_words + i / 8), all);
    }
    *ret_any = any;
    *ret_high = high;
}

int bslz4_avx2_block(const struct bslz4_block *block, struct event_sink *sink)
{
    return decode_vector_block(block, sink);
}
#ifdef __clang__
#pragma clang attribute pop
#endif
#else
typedef int bslz4_avx2_is_for_x86;
#endif
