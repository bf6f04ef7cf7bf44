/* Compiled for AVX-512 with VBMI2; called only where bslz4_best_path has found it. */
#ifdef __x86_64__
#ifdef __clang__ /* which the fuzzers are compiled with */
#pragma clang attribute push(                                                                                          \
    __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vbmi2,avx2,bmi,bmi2,popcnt,lzcnt"))),   \
    apply_to = function)
#else
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vbmi2,avx2,bmi,bmi2,popcnt,lzcnt")
#endif

#include "analysis/bslz4_vector.h"

#define PATTERN_ROW(o)                                                                                                 \
    {                                                                                                                  \
        0 % o, 1 % o, 2 % o, 3 % o, 4 % o, 5 % o, 6 % o, 7 % o, 8 % o, 9 % o, 10 % o, 11 % o, 12 % o, 13 % o, 14 % o,  \
            15 % o, 16 % o, 17 % o, 18 % o, 19 % o, 20 % o, 21 % o, 22 % o, 23 % o, 24 % o, 25 % o, 26 % o, 27 % o,    \
            28 % o, 29 % o, 30 % o, 31 % o, 32 % o, 33 % o, 34 % o, 35 % o, 36 % o, 37 % o, 38 % o, 39 % o, 40 % o,    \
            41 % o, 42 % o, 43 % o, 44 % o, 45 % o, 46 % o, 47 % o, 48 % o, 49 % o, 50 % o, 51 % o, 52 % o, 53 % o,    \
            54 % o, 55 % o, 56 % o, 57 % o, 58 % o, 59 % o, 60 % o, 61 % o, 62 % o, 63 % o                             \
    }
#define PATTERN_ROWS(o)                                                                                                \
    PATTERN_ROW(o), PATTERN_ROW((o + 1)), PATTERN_ROW((o + 2)), PATTERN_ROW((o + 3)), PATTERN_ROW((o + 4)),            \
        PATTERN_ROW((o + 5)), PATTERN_ROW((o + 6))

/* Row `offset` - 1: which byte of the 64 from op - offset on stands at each place of the repeated pattern. */
static const uint8_t pattern[63][64] __attribute__((aligned(64))) = {
    PATTERN_ROWS(1),  PATTERN_ROWS(8),  PATTERN_ROWS(15), PATTERN_ROWS(22), PATTERN_ROWS(29),
    PATTERN_ROWS(36), PATTERN_ROWS(43), PATTERN_ROWS(50), PATTERN_ROWS(57)};

INLINE void copy_match(uint8_t *op, size_t offset, size_t n)
{
    const uint8_t *from = op - offset;
    if (offset >= 64) {
#pragma GCC unroll 3
        for (int i = 0; i < 3; i++)
            _mm512_storeu_si512(op + 64 * i, _mm512_loadu_si512(from + 64 * i));
        for (size_t i = 192; i < n; i += 64)
            _mm512_storeu_si512(op + i, _mm512_loadu_si512(from + i));
        return;
    }
    __m512i repeated = _mm512_permutexvar_epi8(_mm512_load_si512(pattern[offset - 1]), _mm512_loadu_si512(from));
    size_t stride = 64 - 64 % offset;
#pragma GCC unroll 4
    for (size_t i = 0; i < 4; i++)
        _mm512_storeu_si512(op + i * stride, repeated);
    for (size_t i = 4 * stride; i < n; i += stride)
        _mm512_storeu_si512(op + i, repeated);
}

INLINE uint32_t *emit_word(uint32_t *event, uint64_t word, uint64_t ones, uint64_t twos, uint32_t pixel, uint32_t unit)
{
    const __m512i iota =
        _mm512_set_epi8(63, 62, 61, 60, 59, 58, 57, 56, 55, 54, 53, 52, 51, 50, 49, 48, 47, 46, 45, 44, 43, 42, 41, 40,
                        39, 38, 37, 36, 35, 34, 33, 32, 31, 30, 29, 28, 27, 26, 25, 24, 23, 22, 21, 20, 19, 18, 17, 16,
                        15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    const __m512i first = _mm512_set1_epi32((int)pixel), one_more = _mm512_set1_epi32((int)unit);
    __m512i places = _mm512_maskz_compress_epi8(word, iota);
    uint64_t above_1 = _pext_u64(twos, word), above_2 = _pext_u64(ones & twos, word);
    int n = __builtin_popcountll(word);
    for (int i = 0;; i += 16) {
        __m512i events = _mm512_add_epi32(_mm512_cvtepu8_epi32(_mm512_castsi512_si128(places)), first);
        events = _mm512_mask_add_epi32(events, (__mmask16)above_1, events, one_more);
        events = _mm512_mask_add_epi32(events, (__mmask16)above_2, events, one_more);
        _mm512_storeu_si512(event + i, events);
        if (__builtin_expect(n - i <= 16, 1))
            return event + n;
        above_1 >>= 16;
        above_2 >>= 16;
        places = _mm512_alignr_epi32(places, places, 4);
    }
}

INLINE void mark_words(const struct scan *s, const uint8_t *valid, size_t byte, size_t n_bytes, uint64_t *ret_words,
                       uint64_t *ret_any, uint64_t *ret_high)
{
    uint64_t any = 0, high = 0;
    for (size_t i = 0; i < n_bytes; i += 64) {
        const uint8_t *plane = s->planes + byte + i;
        __m512i mask = _mm512_loadu_si512(valid + byte + i), all = _mm512_load_si512(plane);
        if (s->n_planes > 1)
            all = _mm512_or_si512(all, _mm512_load_si512(plane + s->plane_bytes));
        if (s->n_planes > 2) {
            __m512i above = _mm512_setzero_si512();
            for (int p = 2; p < s->n_planes; p++)
                above = _mm512_or_si512(above, _mm512_load_si512(plane + (size_t)p * s->plane_bytes));
            high |= (uint64_t)_mm512_test_epi64_mask(above, mask) << i / 8;
            all = _mm512_or_si512(all, above);
        }
        any |= (uint64_t)_mm512_test_epi64_mask(all, mask) << i / 8;
        _mm512_store_si512(ret_words + i / 8, _mm512_and_si512(all, mask));
    }
    *ret_any = any;
    *ret_high = high;
}

int bslz4_avx512_block(const struct bslz4_block *block, struct event_sink *sink)
{
    return decode_vector_block(block, sink);
}
#ifdef __clang__
#pragma clang attribute pop
#endif
#else
typedef int bslz4_avx512_is_for_x86;
#endif
