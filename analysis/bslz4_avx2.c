/* Compiled for AVX2 with BMI2; called only where bslz4_best_path has found it. */
#ifdef __x86_64__
#pragma GCC target("avx2,bmi,bmi2,popcnt,lzcnt")

#include "analysis/bslz4_vector.h"

INLINE void store_32(uint8_t *to, __m256i bytes) { _mm256_storeu_si256((__m256i *)to, bytes); }

INLINE __m256i load_32(const uint8_t *from) { return _mm256_loadu_si256((const __m256i *)from); }

/* Offsets 3 to 31, rare: the first copy feeds the second, which is then twice as far away. */
INLINE void copy_doubling(uint8_t *op, size_t offset, size_t n)
{
    const uint8_t *from = op - offset;
    size_t done = 0, distance = offset;
    while (distance < 32 && done < n) {
        for (size_t i = 0; i < distance; i++) /* at most 31 bytes, and not overlapping */
            op[done + i] = from[i];
        done += distance;
        distance *= 2;
    }
    for (; done < n; done += 32)
        store_32(op + done, load_32(op + done - distance));
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
    copy_doubling(op, offset, n);
}

INLINE uint32_t *emit_word(uint32_t *event, uint64_t word, uint64_t ones, uint64_t twos, uint32_t pixel, uint32_t unit)
{
    int n = __builtin_popcountll(word);
    twos &= word;
    if (twos) {
        for (int i = 0; i < n; i++, word &= word - 1) {
            uint64_t bit = word & (0 - word);
            uint32_t field = (uint32_t)((twos & bit) != 0) + (uint32_t)((twos & ones & bit) != 0);
            event[i] = (pixel + (uint32_t)_tzcnt_u64(word)) + field * unit;
        }
        return event + n;
    }
    for (int i = 0;; i += 4) { /* four at a time; those beyond the last are overwritten */
#pragma GCC unroll 4
        for (int k = 0; k < 4; k++, word = _blsr_u64(word))
            event[i + k] = pixel + (uint32_t)_tzcnt_u64(word);
        if (n - i <= 4)
            return event + n;
    }
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
#else
typedef int bslz4_avx2_is_for_x86;
#endif
