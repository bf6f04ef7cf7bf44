/*
 * Goal: every photon of a compressed frame comes out once, in pixel order, by every path that this processor has, and
 * no chunk, however broken, does harm. Method: a naive encoder written from the layout's definition, one bit at a time
 * (liblz4 packs the blocks), makes chunks of random frames: all depths, several block sizes, frames that end in a short
 * block and in loose elements, random masks. Every path must agree with the dense frame. Encoders write only some of
 * the streams that LZ4 allows, so blocks are also drawn sequence by sequence, with offsets and lengths of all kinds and
 * with the tails that the vector paths cut short; what they hold is worked out by a decoder of this file, byte by byte.
 * Then each check of the header and the blocks is provoked by hand, and some thousand chunks are damaged at random: all
 * paths must refuse exactly what this file's decoder refuses, and under the sanitizers nothing may be read or
 * written out of bounds.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <lz4.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "analysis/bslz4.h"
#include "sim/random.h"

#define PIXELS_MAX 70000
#define CHUNK_MAX (PIXELS_MAX * 4 * 2 + 65536)

static uint32_t dense[PIXELS_MAX];
static uint64_t valid_bits[(PIXELS_MAX + 63) / 64];
static uint32_t events[PIXELS_MAX + EVENT_SLACK];
static struct event_bright bright[PIXELS_MAX];
static struct event_sink sink = {.events = events, .bright = bright};
static struct random dice;

static uint32_t draw(uint32_t below) { return (uint32_t)(random_bits(&dice) >> 32) % below; }

static void put_big_endian(uint8_t *bytes, uint64_t value, int n)
{
    for (int i = 0; i < n; i++)
        bytes[i] = (uint8_t)(value >> 8 * (n - 1 - i));
}

/* `header_block` is what the header says, 0 standing for 8192. Returns the size of the chunk. */
static size_t encode(const uint32_t *values, size_t n, int element_bytes, uint32_t header_block, uint8_t *chunk)
{
    size_t block_elements = (header_block ? header_block : 8192) / (size_t)element_bytes, at = 12, i = 0;
    put_big_endian(chunk, n * (size_t)element_bytes, 8);
    put_big_endian(chunk + 8, header_block, 4);
    while (n - i >= 8) {
        size_t elements = (n - i) / 8 * 8 < block_elements ? (n - i) / 8 * 8 : block_elements;
        static uint8_t planes[65536];
        memset(planes, 0, sizeof planes);
        for (size_t e = 0; e < elements; e++)
            for (int p = 0; p < 8 * element_bytes; p++)
                if (values[i + e] >> p & 1)
                    planes[(size_t)p * (elements / 8) + e / 8] |= (uint8_t)(1 << e % 8);
        int size = LZ4_compress_default((const char *)planes, (char *)chunk + at + 4,
                                        (int)(elements * (size_t)element_bytes), CHUNK_MAX - (int)at - 4);
        assert_true(size > 0);
        put_big_endian(chunk + at, (uint64_t)size, 4);
        at += 4 + (size_t)size;
        i += elements;
    }
    for (; i < n; i++)
        for (int b = 0; b < element_bytes; b++)
            chunk[at++] = (uint8_t)(values[i] >> 8 * b);
    return at;
}

/* ---- what a chunk holds, worked out byte by byte ------------------------------------------------------------- */

static uint64_t big_endian(const uint8_t *bytes, int n)
{
    uint64_t value = 0;
    for (int i = 0; i < n; i++)
        value = value << 8 | bytes[i];
    return value;
}

static bool read_run(const uint8_t *in, size_t n_in, size_t *at, size_t *length)
{
    uint8_t byte = 255;
    for (; byte == 255; *length += byte) {
        if (*at >= n_in)
            return false;
        byte = in[(*at)++];
    }
    return true;
}

/* The LZ4 block format with its rules for the end of a block, which liblz4 insists on: no match begins in the last 12
 * bytes or reaches into the last 5. */
static bool unpack(const uint8_t *in, size_t n_in, uint8_t *out, size_t n_out)
{
    size_t at = 0, to = 0;
    while (at < n_in) {
        size_t token = in[at++], n = token >> 4;
        if (n == 15 && !read_run(in, n_in, &at, &n))
            return false;
        if (n > n_in - at || n > n_out - to)
            return false;
        for (; n > 0; n--)
            out[to++] = in[at++];
        if (at == n_in)
            return to == n_out;
        if (n_in - at < 2)
            return false;
        size_t offset = in[at] | (size_t)in[at + 1] << 8;
        at += 2;
        n = token & 15;
        if (n == 15 && !read_run(in, n_in, &at, &n))
            return false;
        n += 4;
        if (offset == 0 || offset > to || to + 12 > n_out || to + n + 5 > n_out)
            return false;
        for (; n > 0; n--, to++)
            out[to] = out[to - offset];
    }
    return false;
}

static bool is_valid(size_t i) { return valid_bits[i / 64] >> i % 64 & 1; }

/* Into `dense`; blocks without a valid pixel are not looked into. False: the chunk is to be refused. */
static bool read_chunk(const struct frame_shape *frame, const uint8_t *chunk, size_t n)
{
    static uint8_t planes[65536];
    size_t bytes = (size_t)frame->element_bytes, at = 12, i = 0;
    if (n < 12 || big_endian(chunk, 8) != frame->n_pixels * bytes)
        return false;
    size_t block = big_endian(chunk + 8, 4) ? (size_t)big_endian(chunk + 8, 4) : 8192;
    if (block > 65536 || block % (8 * bytes))
        return false;
    while (frame->n_pixels - i >= 8) {
        size_t elements = (frame->n_pixels - i) / 8 * 8 < block / bytes ? (frame->n_pixels - i) / 8 * 8 : block / bytes;
        if (n - at < 4 || big_endian(chunk + at, 4) == 0 || big_endian(chunk + at, 4) > n - at - 4)
            return false;
        size_t n_in = (size_t)big_endian(chunk + at, 4);
        bool is_wanted = false;
        for (size_t e = 0; e < elements; e++)
            is_wanted = is_wanted || is_valid(i + e);
        if (is_wanted && !unpack(chunk + at + 4, n_in, planes, elements * bytes))
            return false;
        at += 4 + n_in;
        for (size_t e = 0; e < elements; e++, i++) {
            dense[i] = 0;
            for (size_t p = 0; is_wanted && p < 8 * bytes; p++)
                dense[i] |= (uint32_t)(planes[p * (elements / 8) + e / 8] >> e % 8 & 1) << p;
        }
    }
    if (n - at != (frame->n_pixels - i) * bytes)
        return false;
    for (; i < frame->n_pixels; i++, at += bytes) {
        dense[i] = 0;
        for (size_t b = 0; b < bytes; b++)
            dense[i] |= (uint32_t)chunk[at + b] << 8 * b;
    }
    return true;
}

/* ---- frames -------------------------------------------------------------------------------------------------- */

static uint32_t flag_of(int element_bytes) { return UINT32_MAX >> (32 - 8 * element_bytes); }

static struct frame_shape draw_shape(size_t n, int element_bytes, uint32_t masked_percent)
{
    memset(valid_bits, 0, sizeof valid_bits);
    for (size_t i = 0; i < n; i++)
        if (draw(100) >= masked_percent)
            valid_bits[i / 64] |= UINT64_C(1) << i % 64;
    return (struct frame_shape){.n_pixels = n,
                                .element_bytes = element_bytes,
                                .pixel_bits = event_pixel_bits(n),
                                .count_max = flag_of(element_bytes) / 2,
                                .valid_bits = valid_bits};
}

static struct frame_shape draw_frame(size_t n, int element_bytes, uint32_t photons_percent, uint32_t masked_percent)
{
    struct frame_shape frame = draw_shape(n, element_bytes, masked_percent);
    uint32_t flag = flag_of(element_bytes);
    for (size_t i = 0; i < n; i++)
        dense[i] = !is_valid(i) ? flag : draw(100) < photons_percent ? 1 + draw(draw(20) ? 3 : flag) : 0;
    return frame;
}

/* The chunk and the mask in memory of their exact size, so that a sanitizer sees the first byte too many. */
static int decode_exactly(enum bslz4_path path, const struct frame_shape *frame, const uint8_t *chunk, size_t n_bytes,
                          struct err *err)
{
    size_t n_valid_bytes = (frame->n_pixels + 63) / 64 * sizeof *valid_bits;
    uint8_t *exact = malloc(n_bytes ? n_bytes : 1);
    uint64_t *exact_bits = malloc(n_valid_bytes);
    memcpy(exact, chunk, n_bytes);
    memcpy(exact_bits, valid_bits, n_valid_bytes);
    memset(events, 0xa5, sizeof events); /* what the path before has left must not pass for an answer */
    struct frame_shape exact_frame = *frame;
    exact_frame.valid_bits = exact_bits;
    int code = bslz4_decode_frame_by(path, &exact_frame, exact, n_bytes, &sink, err);
    free(exact);
    free(exact_bits);
    return code;
}

/* What stands in `sink` is what `dense` and the mask say. */
static void check_events(const struct frame_shape *frame)
{
    struct event_frame found = event_frame_of(&sink, frame->pixel_bits);
    size_t i_event = 0, next_bright = 0, expected_invalid = 0;
    for (size_t i = 0; i < frame->n_pixels; i++) {
        if (!is_valid(i) || dense[i] == 0)
            continue;
        if (dense[i] > frame->count_max) {
            expected_invalid++;
            continue;
        }
        assert_true(i_event < found.n_events);
        assert_int_equal(event_pixel(&found, i_event), i);
        size_t bright_index = next_bright < found.n_bright ? found.bright[next_bright].index : SIZE_MAX;
        assert_int_equal(event_count(&found, i_event, &next_bright), dense[i]);
        assert_true(next_bright == 0 || found.bright[next_bright - 1].index <= i_event || bright_index != i_event);
        i_event++;
    }
    assert_int_equal(found.n_events, i_event);
    assert_int_equal(found.n_bright, next_bright);
    assert_int_equal(found.n_invalid, expected_invalid);
}

static void check_frame(const struct frame_shape *frame, uint32_t header_block, uint8_t *chunk)
{
    struct err err = {0};
    size_t n_bytes = encode(dense, frame->n_pixels, frame->element_bytes, header_block, chunk);
    for (enum bslz4_path path = 0; path <= bslz4_best_path(); path++) {
        assert_int_equal(decode_exactly(path, frame, chunk, n_bytes, &err), 0);
        check_events(frame);
    }
}

/* One pixel, one photon; written out by hand: 8 elements of 2 bytes, 16 planes of one byte, pixel 3 holds 5. */
static void known_answer(void **state)
{
    (void)state;
    static const uint8_t chunk[] = {0,    0, 0,  0,  0, 0, 0, 16, /* uncompressed bytes */
                                    0,    0, 32, 0,               /* block of 8192 bytes */
                                    0,    0, 0,  18,              /* compressed bytes */
                                    0xf0, 1,                      /* LZ4: 15 + 1 literals */
                                    8,    0, 8,  0,  0, 0, 0, 0,  /* planes 0 to 7 */
                                    0,    0, 0,  0,  0, 0, 0, 0};
    uint64_t valid = 0xff;
    struct frame_shape frame = {
        .n_pixels = 8, .element_bytes = 2, .pixel_bits = 3, .count_max = 65533, .valid_bits = &valid};
    assert_int_equal(bslz4_decode_frame(&frame, chunk, sizeof chunk, &sink, NULL), 0);
    assert_int_equal(sink.n_events, 1);
    assert_int_equal(events[0], 3 | (5 - 1) << 3);
    valid = 0xf7;
    assert_int_equal(bslz4_decode_frame(&frame, chunk, sizeof chunk, &sink, NULL), 0);
    assert_int_equal(sink.n_events, 0);
}

/* The layout of an event, and the counts that do not fit into it. */
static void compact_events(void **state)
{
    (void)state;
    assert_int_equal(event_pixel_bits(2162 * 2068), 23);
    assert_int_equal(event_pixel_bits(3262 * 3108), 24);
    assert_int_equal(event_pixel_bits(4362 * 4148), 25);
    assert_int_equal(event_pixel_bits(1 << 23), 23);
    assert_int_equal(event_pixel_bits((1 << 23) + 1), 24);
    assert_int_equal(event_pixel_bits(1), 1);
    static const uint32_t counts[] = {1, 511, 512, 513, 1, 60000, 60001};
    const struct frame_shape shape = {.pixel_bits = 23, .count_max = 60000};
    sink.n_events = sink.n_bright = sink.n_invalid = 0;
    for (size_t i = 0; i < 7; i++)
        event_put(&sink, &shape, 8388601 + i, counts[i]);
    struct event_frame frame = event_frame_of(&sink, 23);
    assert_int_equal(frame.n_events, 6);
    assert_int_equal(frame.n_bright, 3);
    assert_int_equal(frame.n_invalid, 1);
    size_t next_bright = 0;
    for (size_t i = 0; i < 6; i++) {
        assert_int_equal(event_pixel(&frame, i), 8388601 + i);
        assert_int_equal(event_count(&frame, i, &next_bright), counts[i]);
    }
    assert_int_equal(frame.bright[0].index, 2);
    assert_int_equal(frame.bright[2].index, 5);
}

static void random_frames(void **state)
{
    (void)state;
    static const size_t sizes[] = {1, 7, 8, 9, 64, 96, 4096, 4096 + 8, 2048 * 3 + 1000, 19999};
    static const uint32_t blocks[] = {0, 8192, 16384, 65536, 32, 64};
    uint8_t *chunk = malloc(CHUNK_MAX);
    dice.state = 1;
    for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++)
        for (size_t b = 0; b < sizeof blocks / sizeof blocks[0]; b++)
            for (int bytes = 1; bytes <= 4; bytes *= 2)
                for (uint32_t percent = 0; percent <= 100; percent += 20) {
                    struct frame_shape frame = draw_frame(sizes[s], bytes, percent, percent / 2);
                    check_frame(&frame, blocks[b], chunk);
                }
    free(chunk);
}

/* Few photons over module gaps, bad pixels and now and then a saturated one: the streams of a real scan. */
static void sparse_frames(void **state)
{
    (void)state;
    uint8_t *chunk = malloc(CHUNK_MAX);
    dice.state = 4;
    for (int round = 0; round < 60; round++) {
        int bytes = 1 << draw(3);
        struct frame_shape frame = draw_frame(PIXELS_MAX - draw(20000), bytes, 0, 0);
        uint32_t photons = 1 + draw(3000), width = 100 + draw(400), n_saturated = draw(3);
        for (uint32_t i = 0; i < photons; i++)
            dense[draw((uint32_t)frame.n_pixels)] += draw(50) ? 1 : 1 + draw(6);
        for (size_t i = 0; i < frame.n_pixels; i++)
            if (i % width < draw(2) * 5 || i / width % 40 < 3 || draw(4000) == 0) {
                valid_bits[i / 64] &= ~(UINT64_C(1) << i % 64);
                dense[i] = flag_of(bytes);
            }
        for (uint32_t i = 0; i < n_saturated; i++)
            dense[draw((uint32_t)frame.n_pixels)] = flag_of(bytes) - draw(2);
        check_frame(&frame, draw(4) ? 0 : UINT32_C(65536) >> draw(4), chunk);
    }
    free(chunk);
}

/* ---- any stream that LZ4 allows ------------------------------------------------------------------------------ */

static void put_sequence(uint8_t *chunk, size_t *at, size_t n_literals, size_t offset, size_t n_match)
{
    size_t token = *at, rest;
    chunk[(*at)++] = (uint8_t)((n_literals < 15 ? n_literals : 15) << 4);
    if (n_literals >= 15) {
        for (rest = n_literals - 15; rest >= 255; rest -= 255)
            chunk[(*at)++] = 255;
        chunk[(*at)++] = (uint8_t)rest;
    }
    bool is_sparse = draw(2);
    for (size_t i = 0; i < n_literals; i++)
        chunk[(*at)++] = is_sparse && draw(8) ? 0 : (uint8_t)draw(256);
    if (n_match == 0)
        return;
    chunk[(*at)++] = (uint8_t)offset;
    chunk[(*at)++] = (uint8_t)(offset >> 8);
    chunk[token] |= (uint8_t)(n_match - 4 < 15 ? n_match - 4 : 15);
    if (n_match - 4 >= 15) {
        for (rest = n_match - 4 - 15; rest >= 255; rest -= 255)
            chunk[(*at)++] = 255;
        chunk[(*at)++] = (uint8_t)rest;
    }
}

static size_t least(size_t a, size_t b) { return a < b ? a : b; }

enum flaw { NONE, TOO_FAR, TOO_LATE, TOO_SHORT, TOO_LONG };

/* Sequences until `size` bytes are made; the last match keeps 12 bytes from the end and 5 literals end it, as LZ4
 * demands. TOO_FAR, some match reaches to the byte before the first; TOO_LATE, the last one begins or ends too late. */
static void put_block(uint8_t *chunk, size_t *at, size_t size, size_t plane_bytes, enum flaw flaw)
{
    size_t made = 0, n = flaw == TOO_LATE ? size - 64 : size;
    while (n - made > 40) {
        size_t left = n - made - 20, n_literals = least(draw(3) ? draw(14) : draw(600), left);
        n_literals = made + n_literals == 0 ? 1 : n_literals;
        size_t offsets[] = {1, 2, 1 + draw(80), 1 + draw(70000), plane_bytes, 64, 63};
        size_t offset = least(offsets[draw(7)], least(made + n_literals, 65535));
        size_t lengths[] = {4 + draw(20), 4 + draw(400), 19, 273, 274, n, 2 * plane_bytes, plane_bytes};
        left = n - made - n_literals - 5;
        size_t n_match = least(lengths[draw(8)], left);
        if (n - made - n_literals < 12 || n_match < 4)
            break;
        if (flaw == TOO_FAR && draw(4) == 0 && made + n_literals < 65535)
            offset = made + n_literals + 1;
        put_sequence(chunk, at, n_literals, offset, n_match);
        made += n_literals + n_match;
        if (n - made < 12) /* the tail is the last literals, 5 to 11, or a longer run of them */
            break;
    }
    if (flaw == TOO_LATE) {
        size_t n_last = draw(8), n_match = 4 + draw(n_last < 5 ? 20 : 8 - (uint32_t)n_last);
        put_sequence(chunk, at, size - made - n_match - n_last, 1 + draw(80), n_match);
        made = size - n_last;
    }
    put_sequence(chunk, at, size - made, 0, 0);
}

/* The mask: everything, scattered, or only what the last plane's last literals and the repeated planes leave out. */
static void random_streams(void **state)
{
    (void)state;
    uint8_t *chunk = malloc(CHUNK_MAX);
    dice.state = 5;
    int n_refused = 0;
    for (int round = 0; round < 4000; round++) {
        int bytes = 1 << draw(3);
        size_t block_bytes = (size_t)8192 >> draw(2), elements = block_bytes / (size_t)bytes, n_blocks = 1 + draw(3);
        static const uint32_t masked_percents[] = {0, 5, 50, 97};
        struct frame_shape frame = draw_shape(elements * n_blocks, bytes, masked_percents[draw(4)]);
        put_big_endian(chunk, frame.n_pixels * (size_t)bytes, 8);
        put_big_endian(chunk + 8, block_bytes, 4);
        size_t at = 12;
        enum flaw flaw = draw(4) ? NONE : 1 + draw(4); /* of the first block */
        for (size_t b = 0; b < n_blocks; b++) {
            size_t length_at = at, n = block_bytes - (b == 0 && flaw == TOO_SHORT) + (b == 0 && flaw == TOO_LONG);
            at += 4;
            put_block(chunk, &at, n, elements / 8, b == 0 ? flaw : NONE);
            put_big_endian(chunk + length_at, at - length_at - 4, 4);
        }
        memset(chunk + at, 0, 64);
        bool is_good = read_chunk(&frame, chunk, at);
        n_refused += !is_good;
        assert_true(is_good || flaw != NONE);
        for (enum bslz4_path path = 0; path <= bslz4_best_path(); path++) {
            struct err err = {0};
            assert_int_equal(decode_exactly(path, &frame, chunk, at, &err), is_good ? 0 : ERR_DATA);
            if (is_good)
                check_events(&frame);
        }
    }
    assert_in_range(n_refused, 700, 1000);
    free(chunk);
}

/* ---- refusals ------------------------------------------------------------------------------------------------ */

static void expect_refusal(const struct frame_shape *frame, const uint8_t *chunk, size_t n_bytes, const char *words)
{
    struct err err = {0};
    for (enum bslz4_path path = 0; path <= bslz4_best_path(); path++) {
        assert_int_equal(decode_exactly(path, frame, chunk, n_bytes, &err), ERR_DATA);
        assert_non_null(strstr(err.message, words));
    }
}

static void each_refusal(void **state)
{
    (void)state;
    uint8_t *chunk = malloc(CHUNK_MAX), *broken = malloc(CHUNK_MAX);
    dice.state = 2;
    struct frame_shape frame = draw_frame(10003, 4, 5, 5), larger = frame;
    size_t n = encode(dense, frame.n_pixels, 4, 0, chunk);
    for (size_t cut = 0; cut < n; cut += cut < 40 || cut + 40 > n ? 1 : 97)
        expect_refusal(&frame, chunk, cut, "");
    expect_refusal(&frame, chunk, 11, "shorter than its own header");
    expect_refusal(&frame, chunk, 14, "chunk ends");
    chunk[n] = 0;
    expect_refusal(&frame, chunk, n + 1, "after the last block, expected 12");
    larger.n_pixels++;
    expect_refusal(&larger, chunk, n, "a frame has 40016");
    static const uint32_t bad_blocks[] = {4, 33, 65536 + 32, UINT32_MAX};
    for (int i = 0; i < 4; i++) {
        memcpy(broken, chunk, n);
        put_big_endian(broken + 8, bad_blocks[i], 4);
        expect_refusal(&frame, broken, n, "block size");
    }
    static const uint32_t bad_lengths[] = {0, 1 << 20, UINT32_MAX};
    for (int i = 0; i < 3; i++) {
        memcpy(broken, chunk, n);
        put_big_endian(broken + 12, bad_lengths[i], 4);
        expect_refusal(&frame, broken, n, "announces");
    }
    memcpy(broken, chunk, n);
    memset(broken + 16, 0xff, 40);
    expect_refusal(&frame, broken, n, "is not LZ4");
    free(chunk);
    free(broken);
}

static void random_damage(void **state)
{
    (void)state;
    uint8_t *chunk = malloc(CHUNK_MAX);
    dice.state = 3;
    int n_refused = 0;
    for (int round = 0; round < 6000; round++) {
        struct frame_shape frame = draw_frame(2 + draw(20000), 1 << draw(3), draw(30), draw(20));
        size_t n_bytes = encode(dense, frame.n_pixels, frame.element_bytes, draw(3) ? 8192 : 64, chunk);
        if (draw(4) == 0)
            n_bytes = draw((uint32_t)n_bytes + 1);
        for (uint32_t flips = 1 + draw(20); flips > 0 && n_bytes > 0; flips--)
            chunk[draw((uint32_t)n_bytes)] = (uint8_t)draw(256);
        bool is_good = read_chunk(&frame, chunk, n_bytes);
        n_refused += !is_good;
        for (enum bslz4_path path = 0; path <= bslz4_best_path(); path++) {
            struct err err = {0};
            assert_int_equal(decode_exactly(path, &frame, chunk, n_bytes, &err), is_good ? 0 : ERR_DATA);
            assert_true(is_good || err.message[0]);
            if (is_good)
                check_events(&frame);
        }
    }
    assert_in_range(n_refused, 3000, 5900);
    free(chunk);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_answer),  cmocka_unit_test(compact_events), cmocka_unit_test(random_frames),
        cmocka_unit_test(sparse_frames), cmocka_unit_test(random_streams), cmocka_unit_test(each_refusal),
        cmocka_unit_test(random_damage),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
