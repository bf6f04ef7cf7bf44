/*
 * Goal: every photon of a compressed frame comes out once, in pixel order, and no chunk, however broken, does harm.
 * Method: a naive encoder written from the layout's definition, one bit at a time (liblz4 packs the blocks), makes
 * chunks of random frames: both depths, several block sizes, frames that end in a short block and in loose elements,
 * random masks. The decoder must agree with the dense frame. Then each check of the header and the blocks is provoked
 * by hand, and some thousand chunks are damaged at random: under the sanitizers nothing may be read or written out of
 * bounds.
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

#define PIXELS_MAX 20000
#define CHUNK_MAX (PIXELS_MAX * 4 * 2 + 65536)

static uint32_t dense[PIXELS_MAX];
static uint64_t valid_bits[(PIXELS_MAX + 63) / 64];
static struct photon_event events[PIXELS_MAX];
static uint64_t random_state;

static uint32_t draw(uint32_t below) /* splitmix64 */
{
    uint64_t z = random_state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return (uint32_t)((z ^ z >> 31) >> 32) % below;
}

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

static struct bslz4_frame draw_frame(size_t n, int element_bytes, uint32_t photons_percent, uint32_t masked_percent)
{
    uint32_t flag = element_bytes == 2 ? UINT16_MAX : UINT32_MAX;
    memset(valid_bits, 0, sizeof valid_bits);
    for (size_t i = 0; i < n; i++) {
        bool is_valid = draw(100) >= masked_percent;
        if (is_valid)
            valid_bits[i / 64] |= UINT64_C(1) << i % 64;
        dense[i] = !is_valid ? flag : draw(100) < photons_percent ? 1 + draw(draw(20) ? 3 : flag) : 0;
    }
    return (struct bslz4_frame){
        .n_pixels = n, .element_bytes = element_bytes, .count_max = flag / 2, .valid_bits = valid_bits};
}

static void check_frame(const struct bslz4_frame *frame, uint32_t header_block, uint8_t *chunk)
{
    struct err err = {0};
    size_t n_bytes = encode(dense, frame->n_pixels, frame->element_bytes, header_block, chunk), n, n_invalid;
    uint8_t *exact = malloc(n_bytes); /* so that a sanitizer sees the first byte too many */
    memcpy(exact, chunk, n_bytes);
    size_t n_valid_bytes = (frame->n_pixels + 63) / 64 * sizeof *valid_bits;
    uint64_t *exact_bits = malloc(n_valid_bytes);
    memcpy(exact_bits, valid_bits, n_valid_bytes);
    struct bslz4_frame exact_frame = *frame;
    exact_frame.valid_bits = exact_bits;
    assert_int_equal(bslz4_decode_frame(&exact_frame, exact, n_bytes, events, &n, &n_invalid, &err), 0);
    free(exact);
    free(exact_bits);
    size_t i_event = 0, expected_invalid = 0;
    for (size_t i = 0; i < frame->n_pixels; i++) {
        if (!(valid_bits[i / 64] >> i % 64 & 1) || dense[i] == 0)
            continue;
        if (dense[i] > frame->count_max) {
            expected_invalid++;
            continue;
        }
        assert_true(i_event < n);
        assert_int_equal(events[i_event].pixel, i);
        assert_int_equal(events[i_event++].count, dense[i]);
    }
    assert_int_equal(n, i_event);
    assert_int_equal(n_invalid, expected_invalid);
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
    struct bslz4_frame frame = {.n_pixels = 8, .element_bytes = 2, .count_max = 65533, .valid_bits = &valid};
    size_t n, n_invalid;
    assert_int_equal(bslz4_decode_frame(&frame, chunk, sizeof chunk, events, &n, &n_invalid, NULL), 0);
    assert_int_equal(n, 1);
    assert_int_equal(events[0].pixel, 3);
    assert_int_equal(events[0].count, 5);
    valid = 0xf7;
    assert_int_equal(bslz4_decode_frame(&frame, chunk, sizeof chunk, events, &n, &n_invalid, NULL), 0);
    assert_int_equal(n, 0);
}

static void random_frames(void **state)
{
    (void)state;
    static const size_t sizes[] = {1, 7, 8, 9, 64, 96, 4096, 4096 + 8, 2048 * 3 + 1000, 19999};
    static const uint32_t blocks[] = {0, 8192, 16384, 65536, 32, 64};
    uint8_t *chunk = malloc(CHUNK_MAX);
    random_state = 1;
    for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++)
        for (size_t b = 0; b < sizeof blocks / sizeof blocks[0]; b++)
            for (int bytes = 2; bytes <= 4; bytes += 2)
                for (uint32_t percent = 0; percent <= 100; percent += 20) {
                    struct bslz4_frame frame = draw_frame(sizes[s], bytes, percent, percent / 2);
                    check_frame(&frame, blocks[b], chunk);
                }
    free(chunk);
}

static void expect_refusal(const struct bslz4_frame *frame, const uint8_t *chunk, size_t n_bytes, const char *words)
{
    struct err err = {0};
    size_t n = 12345, n_invalid = 12345;
    uint8_t *exact = malloc(n_bytes ? n_bytes : 1);
    memcpy(exact, chunk, n_bytes);
    assert_int_equal(bslz4_decode_frame(frame, exact, n_bytes, events, &n, &n_invalid, &err), ERR_DATA);
    assert_non_null(strstr(err.message, words));
    assert_int_equal(n, 12345);
    assert_int_equal(n_invalid, 12345);
    free(exact);
}

static void each_refusal(void **state)
{
    (void)state;
    uint8_t *chunk = malloc(CHUNK_MAX), *broken = malloc(CHUNK_MAX);
    random_state = 2;
    struct bslz4_frame frame = draw_frame(10003, 4, 5, 5), larger = frame;
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
    random_state = 3;
    int n_refused = 0;
    for (int round = 0; round < 4000; round++) {
        struct bslz4_frame frame = draw_frame(2 + draw(5000), draw(2) ? 4 : 2, draw(30), draw(20));
        size_t n_bytes = encode(dense, frame.n_pixels, frame.element_bytes, draw(2) ? 8192 : 64, chunk), n, n_invalid;
        if (draw(4) == 0)
            n_bytes = draw((uint32_t)n_bytes + 1);
        for (uint32_t flips = 1 + draw(20); flips > 0 && n_bytes > 0; flips--)
            chunk[draw((uint32_t)n_bytes)] = (uint8_t)draw(256);
        uint8_t *exact = malloc(n_bytes ? n_bytes : 1);
        memcpy(exact, chunk, n_bytes);
        struct err err = {0};
        int code = bslz4_decode_frame(&frame, exact, n_bytes, events, &n, &n_invalid, &err);
        free(exact);
        assert_true(code == 0 || (code == ERR_DATA && err.message[0]));
        n_refused += code != 0;
        for (size_t i = 0; code == 0 && i < n; i++)
            assert_true(events[i].pixel < frame.n_pixels && events[i].count >= 1 && events[i].count <= frame.count_max);
    }
    assert_in_range(n_refused, 2000, 4000);
    free(chunk);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_answer),
        cmocka_unit_test(random_frames),
        cmocka_unit_test(each_refusal),
        cmocka_unit_test(random_damage),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
