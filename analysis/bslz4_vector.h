/*
 * The vector paths of analysis/bslz4.h: LZ4 into a buffer in the first cache, then a scan of its planes. Included once
 * by each of bslz4_avx2.c and bslz4_avx512.c, which set the target before and define copy_match and emit_word after.
 *
 * What makes it fast, and why it is exact:
 * - Copies store whole vectors, more than asked for, without a loop over the length: what goes wrong in a sparse stream
 *   is the prediction of branches, not the number of bytes. The buffer has room behind for what is stored too much.
 * - The tail. Nearly every block of few photons ends in one long match: its higher planes repeat a plane (gaps and bad
 *   pixels are all ones in all planes) or are zeros. Such a match is not carried out: when the plane it repeats has
 *   nothing under the mask, and so do the last literals, the planes it would have made have nothing either. Otherwise
 *   it is carried out.
 * - The scan reads the planes that can hold something, marks the words of 64 pixels that do, and writes all events of a
 *   word at once. Counts of 4 and more are gathered bit by bit.
 * Every token is checked before it is carried out: an offset within what was written, lengths within what is left.
 */
#ifndef ANALYSIS_BSLZ4_VECTOR_H
#define ANALYSIS_BSLZ4_VECTOR_H

#include <immintrin.h>
#include <stdbool.h>
#include <string.h>

#include "analysis/bslz4_block.h"

#define ROOM_BEHIND 512     /* a literal of 14, then 4 stores of 64 at most 64 apart, and a copy's last 63 */
#define GROUP_BYTES 512     /* of a plane that are scanned at once: 64 words of 64 pixels, one bit each in a map */
#define TAIL_LITERALS_MAX 8 /* LZ4 ends every block in 5 literals or more; beyond 8 the tail is carried out */
/* The end of a block (LZ4 Block Format Description, "End of block conditions"): no match reaches into the last 5 bytes,
 * none begins less than 12 before the end. Of 4 bytes or more, only the last one can. */
#define LAST_LITERALS 5
#define LAST_MATCH 12
#define INLINE static inline __attribute__((always_inline))

/* n bytes at op from `offset` bytes before, the copied bytes feeding the copy; may write up to 320 bytes beyond. */
INLINE void copy_match(uint8_t *op, size_t offset, size_t n);

/* All events of a word of pixels without counts above 3: ones and twos are the words of planes 0 and 1. */
INLINE uint32_t *emit_word(uint32_t *event, uint64_t word, uint64_t ones, uint64_t twos, uint32_t pixel, uint32_t unit);

INLINE uint64_t load_64(const uint8_t *bytes)
{
    uint64_t word;
    memcpy(&word, bytes, sizeof word);
    return word;
}

/* ---- LZ4 ----------------------------------------------------------------------------------------------------- */

struct unpack {
    const uint8_t *in, *in_end;
    uint8_t *out, *out_end;
    size_t plane_bytes;
    const uint8_t *valid; /* [plane_bytes], the mask of the block */
    int n_planes;         /* that can hold something under the mask: the result */
};

/* n a multiple of 64. */
INLINE bool is_blank(const uint8_t *plane, const uint8_t *valid, size_t n)
{
    __m256i any = _mm256_setzero_si256();
    for (size_t i = 0; i < n; i += 32) {
        __m256i bits = _mm256_loadu_si256((const __m256i *)(plane + i));
        any = _mm256_or_si256(any, _mm256_and_si256(bits, _mm256_loadu_si256((const __m256i *)(valid + i))));
    }
    return _mm256_testz_si256(any, any);
}

/*
 * Whether the stream ends after the match of n bytes at op (a literal run of at most TAIL_LITERALS_MAX bytes follows,
 * all of them without photons) and the planes from that of op on need not be made. Completes the plane of op.
 */
static __attribute__((noinline)) bool cut_tail(struct unpack *u, const uint8_t *ip, uint8_t *op, size_t offset,
                                               size_t n)
{
    size_t n_last = (size_t)(u->out_end - op) - n, plane = (size_t)(op - u->out) / u->plane_bytes;
    if (n_last > TAIL_LITERALS_MAX || ip + 1 + n_last != u->in_end || *ip >> 4 != n_last)
        return false;
    for (size_t i = 0; i < n_last; i++)
        if (ip[1 + i] & u->valid[u->plane_bytes - n_last + i])
            return false;
    uint8_t *plane_end = u->out + (plane + 1) * u->plane_bytes;
    size_t rest = (size_t)(plane_end - op);
    if (offset == u->plane_bytes) { /* all planes from here on are the one before, or what is completed now */
        memcpy(op, op - offset, rest);
        if (!is_blank(plane_end - u->plane_bytes, u->valid, u->plane_bytes))
            return false;
        u->n_planes = (int)plane;
        return true;
    }
    if (offset <= 64) {
        for (size_t i = 1; i <= offset; i++)
            if (op[-(ptrdiff_t)i])
                return false;
        memset(op, 0, rest);
        u->n_planes = (int)plane + 1;
        return true;
    }
    return false;
}

/* A length of 15 or more goes on in bytes, 255 meaning one more. Returns false when they run out of the block. */
INLINE bool read_length(const uint8_t **ip, const uint8_t *in_end, size_t *n)
{
    uint8_t byte;
    do {
        if (*ip >= in_end)
            return false;
        byte = *(*ip)++;
        *n += byte;
    } while (byte == 255);
    return true;
}

INLINE bool copy_long_literals(const struct unpack *u, const uint8_t **ip, const uint8_t *op, size_t *n)
{
    if (!read_length(ip, u->in_end, n) || *n > (size_t)(u->in_end - *ip) || u->out_end - op < (ptrdiff_t)*n)
        return false;
    uint8_t *to = u->out + (op - u->out);
    for (size_t i = 0; i < *n; i += 32)
        _mm256_storeu_si256((__m256i *)(to + i), _mm256_loadu_si256((const __m256i *)(*ip + i)));
    return true;
}

/* The whole block, or all of it that matters. Returns 0, or -1 when it is not LZ4 of that many bytes. */
INLINE int unpack_lz4(struct unpack *u)
{
    const uint8_t *ip = u->in;
    uint8_t *op = u->out, *const match_end = u->out_end - LAST_LITERALS;
    const size_t two_planes = 2 * u->plane_bytes;
    size_t n_match = LAST_MATCH; /* of the last match; a block may do without */
    for (;;) {
        if (ip >= u->in_end)
            return -1;
        size_t token = *ip++, n = token >> 4;
        if (n < 15)
            _mm_storeu_si128((__m128i *)op, _mm_loadu_si128((const __m128i *)ip));
        else if (!copy_long_literals(u, &ip, op, &n))
            return -1;
        ip += n;
        op += n;
        if (ip >= u->in_end)
            return ip == u->in_end && op == u->out_end && n_match + n >= LAST_MATCH ? 0 : -1;
        size_t offset = (size_t)ip[0] | (size_t)ip[1] << 8;
        ip += 2;
        n_match = token & 15;
        size_t is_longer = n_match == 15, byte = *ip & (0 - is_longer); /* nearly always, then nearly always one byte */
        n_match += byte + 4;
        ip += is_longer;
        if (byte == 255 && !read_length(&ip, u->in_end, &n_match))
            return -1;
        if (offset - 1 >= (size_t)(op - u->out) || match_end - op < (ptrdiff_t)n_match)
            return -1;
        if (n_match >= two_planes && ip < u->in_end && cut_tail(u, ip, op, offset, n_match))
            return 0;
        copy_match(op, offset, n_match);
        op += n_match;
    }
}

/* ---- planes to events ---------------------------------------------------------------------------------------- */

struct scan {
    const struct frame_shape *frame;
    const uint8_t *planes; /* of the block */
    size_t plane_bytes;
    int n_planes;
    uint32_t first_pixel;
};

/* A word with a count of 4 or more. */
static __attribute__((noinline)) void emit_counts(const struct scan *s, struct event_sink *sink, uint64_t word,
                                                  size_t byte)
{
    for (; word; word &= word - 1) {
        int bit = __builtin_ctzll(word);
        uint32_t count = 0;
        for (int p = 0; p < s->n_planes; p++)
            count |= (uint32_t)(load_64(s->planes + (size_t)p * s->plane_bytes + byte) >> bit & 1) << p;
        event_put(sink, s->frame, s->first_pixel + 8 * byte + (size_t)bit, count);
    }
}

/* The marked words of one group, which begins at `byte` of the planes. */
INLINE void emit_group(const struct scan *s, struct event_sink *sink, const uint64_t *words, uint64_t any,
                       uint64_t high, size_t byte)
{
    static const uint8_t nothing[GROUP_BYTES];
    const uint32_t unit = UINT32_C(1) << s->frame->pixel_bits;
    const uint8_t *ones = s->planes + byte, *twos = s->n_planes > 1 ? ones + s->plane_bytes : nothing;
    uint32_t *event = sink->events + sink->n_events; /* in a register: through the struct it costs a quarter */
    for (; any; any &= any - 1) {
        size_t k = (size_t)__builtin_ctzll(any);
        if (__builtin_expect(high >> k & 1, 0)) {
            sink->n_events = (size_t)(event - sink->events);
            emit_counts(s, sink, words[k], byte + 8 * k);
            event = sink->events + sink->n_events;
        } else
            event = emit_word(event, words[k], load_64(ones + 8 * k), load_64(twos + 8 * k),
                              s->first_pixel + (uint32_t)(8 * (byte + 8 * k)), unit);
    }
    sink->n_events = (size_t)(event - sink->events);
}

/* Defined by the includer: the words of n_bytes of the planes from `byte` on, those that hold photons, those with a
 * count of 4 or more. */
INLINE void mark_words(const struct scan *s, const uint8_t *valid, size_t byte, size_t n_bytes, uint64_t *ret_words,
                       uint64_t *ret_any, uint64_t *ret_high);

INLINE int decode_vector_block(const struct bslz4_block *block, struct event_sink *sink)
{
    const struct frame_shape *frame = block->frame;
    uint8_t buffer[BSLZ4_BLOCK_BYTES_MAX + ROOM_BEHIND] __attribute__((aligned(64)));
    struct unpack u = {.in = block->in,
                       .in_end = block->in + block->n_in,
                       .out = buffer,
                       .out_end = buffer + block->n_elements * (size_t)frame->element_bytes,
                       .plane_bytes = block->n_elements / 8,
                       .valid = (const uint8_t *)(frame->valid_bits + block->first_pixel / 64),
                       .n_planes = 8 * frame->element_bytes};
    if (unpack_lz4(&u) != 0)
        return -1;
    struct scan s = {frame, buffer, u.plane_bytes, u.n_planes, (uint32_t)block->first_pixel};
    for (size_t byte = 0; s.n_planes > 0 && byte < s.plane_bytes; byte += GROUP_BYTES) {
        size_t n_bytes = s.plane_bytes - byte < GROUP_BYTES ? s.plane_bytes - byte : GROUP_BYTES;
        uint64_t words[GROUP_BYTES / 8] __attribute__((aligned(64))), any = 0, high = 0;
        mark_words(&s, u.valid, byte, n_bytes, words, &any, &high);
        emit_group(&s, sink, words, any, high, byte);
    }
    return 0;
}

#endif
