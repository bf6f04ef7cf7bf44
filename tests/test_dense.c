/*
 * Goal: frames without bitshuffle, as they are or as LZ4, give the photons that numbers alone give, and no chunk does
 * harm. Method: random frames of all depths are laid out byte by byte and compressed by liblz4 in blocks of several
 * sizes; the events must be those of the dense frame. Chunks are cut, damaged and given wrong headers.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <lz4.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "analysis/dense.h"
#include "sim/random.h"

#define PIXELS_MAX 5000
#define CHUNK_MAX (PIXELS_MAX * 8 + 4096)

static uint32_t dense[PIXELS_MAX], events[PIXELS_MAX + EVENT_SLACK];
static struct event_bright bright[PIXELS_MAX];
static struct event_sink sink = {.events = events, .bright = bright};
static uint64_t valid_bits[(PIXELS_MAX + 63) / 64];
static struct random dice = {.state = 1};

static uint32_t draw(uint32_t below) { return (uint32_t)(random_bits(&dice) >> 32) % below; }

static struct frame_shape draw_frame(uint8_t *ret_bytes)
{
    int element_bytes = 1 << draw(3);
    size_t n = 1 + draw(PIXELS_MAX);
    uint32_t flag = UINT32_MAX >> (32 - 8 * element_bytes), photons_percent = draw(2) ? draw(4) : draw(100);
    memset(valid_bits, 0, sizeof valid_bits);
    for (size_t i = 0; i < n; i++) {
        bool is_valid = draw(12) > 0;
        valid_bits[i / 64] |= (uint64_t)is_valid << i % 64;
        dense[i] = !is_valid ? flag : draw(100) < photons_percent ? draw(draw(9) ? 4 : flag) + (draw(9) == 0) : 0;
        for (int b = 0; b < element_bytes; b++)
            *ret_bytes++ = (uint8_t)(dense[i] >> 8 * b);
    }
    return (struct frame_shape){.n_pixels = n,
                                .element_bytes = element_bytes,
                                .pixel_bits = event_pixel_bits(n),
                                .count_max = flag - 2,
                                .valid_bits = valid_bits};
}

static void check_events(const struct frame_shape *shape)
{
    struct event_frame frame = event_frame_of(&sink, shape->pixel_bits);
    size_t n = 0, next_bright = 0, n_invalid = 0;
    for (size_t i = 0; i < shape->n_pixels; i++) {
        if (!(valid_bits[i / 64] >> i % 64 & 1) || dense[i] == 0)
            continue;
        if (dense[i] > shape->count_max) {
            n_invalid++;
            continue;
        }
        assert_true(n < frame.n_events);
        assert_int_equal(event_pixel(&frame, n), i);
        assert_int_equal(event_count(&frame, n, &next_bright), dense[i]);
        n++;
    }
    assert_int_equal(frame.n_events, n);
    assert_int_equal(frame.n_bright, next_bright);
    assert_int_equal(frame.n_invalid, n_invalid);
}

static void put_big_endian(uint8_t *bytes, uint64_t value, int n)
{
    for (int i = 0; i < n; i++)
        bytes[i] = (uint8_t)(value >> 8 * (n - 1 - i));
}

static size_t compress(const uint8_t *bytes, size_t n, size_t block, uint8_t *chunk)
{
    size_t at = 12;
    put_big_endian(chunk, n, 8);
    put_big_endian(chunk + 8, block, 4);
    for (size_t i = 0; i < n; i += block) {
        size_t n_block = n - i < block ? n - i : block;
        int size =
            LZ4_compress_default((const char *)bytes + i, (char *)chunk + at + 4, (int)n_block, (int)n_block - 1);
        if (size <= 0) { /* it does not shrink: as it is */
            memcpy(chunk + at + 4, bytes + i, n_block);
            size = (int)n_block;
        }
        put_big_endian(chunk + at, (uint64_t)size, 4);
        at += 4 + (size_t)size;
    }
    return at;
}

static int decode_exactly(const struct frame_shape *shape, const uint8_t *chunk, size_t n, struct err *err)
{
    uint8_t *exact = malloc(n ? n : 1), *scratch = malloc(shape->n_pixels * (size_t)shape->element_bytes);
    memcpy(exact, chunk, n);
    int code = dense_decode_lz4(shape, exact, n, scratch, &sink, err);
    free(exact);
    free(scratch);
    return code;
}

static void random_frames(void **state)
{
    (void)state;
    static uint8_t bytes[4 * PIXELS_MAX], chunk[CHUNK_MAX];
    for (int round = 0; round < 3000; round++) {
        struct frame_shape shape = draw_frame(bytes);
        size_t n = shape.n_pixels * (size_t)shape.element_bytes;
        uint8_t *exact = malloc(n);
        memcpy(exact, bytes, n);
        assert_int_equal(dense_decode_frame(&shape, exact, n, &sink, NULL), 0);
        check_events(&shape);
        assert_int_equal(dense_decode_frame(&shape, exact, n - 1, &sink, NULL), ERR_DATA);
        free(exact);
        static const size_t blocks[] = {1 << 30, 4096, 1001, 64};
        size_t n_chunk = compress(bytes, n, blocks[draw(4)], chunk);
        assert_int_equal(decode_exactly(&shape, chunk, n_chunk, NULL), 0);
        check_events(&shape);
    }
}

static void damage(void **state)
{
    (void)state;
    static uint8_t bytes[4 * PIXELS_MAX], chunk[CHUNK_MAX];
    int n_refused = 0;
    for (int round = 0; round < 5000; round++) {
        struct err err = {0};
        struct frame_shape shape = draw_frame(bytes);
        size_t n = compress(bytes, shape.n_pixels * (size_t)shape.element_bytes, draw(2) ? 1 << 30 : 500, chunk);
        if (draw(4) == 0)
            n = draw((uint32_t)n);
        else if (draw(8) == 0)
            chunk[n++] = 0;
        else
            for (uint32_t flips = 1 + draw(9); flips > 0; flips--)
                chunk[draw((uint32_t)n)] = (uint8_t)draw(256);
        int code = decode_exactly(&shape, chunk, n, &err);
        assert_true(code == 0 || (code == ERR_DATA && err.message[0]));
        n_refused += code != 0;
    }
    assert_in_range(n_refused, 2500, 4900);
}

static void expect_refusal(const struct frame_shape *shape, const uint8_t *chunk, size_t n, const char *words)
{
    struct err err = {0};
    assert_int_equal(decode_exactly(shape, chunk, n, &err), ERR_DATA);
    assert_non_null(strstr(err.message, words));
}

static void each_refusal(void **state)
{
    (void)state;
    static uint8_t bytes[4 * PIXELS_MAX], chunk[CHUNK_MAX];
    struct frame_shape shape = draw_frame(bytes);
    size_t n = compress(bytes, shape.n_pixels * (size_t)shape.element_bytes, 500, chunk);
    expect_refusal(&shape, chunk, 11, "shorter than its own header");
    for (size_t cut = 12; cut < n; cut += 13)
        expect_refusal(&shape, chunk, cut, "announces");
    expect_refusal(&shape, chunk, n + 1, "1 bytes after the last block");
    chunk[7]++;
    expect_refusal(&shape, chunk, n, "chunk announces");
    chunk[7]--;
    put_big_endian(chunk + 8, 0, 4);
    expect_refusal(&shape, chunk, n, "in blocks of 0");
    put_big_endian(chunk + 8, UINT32_MAX, 4);
    expect_refusal(&shape, chunk, n, "in blocks of 4294967295");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_frames),
        cmocka_unit_test(damage),
        cmocka_unit_test(each_refusal),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
