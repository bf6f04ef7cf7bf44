/*
 * Parser: one compressed frame of an EIGER2 (analysis/bslz4), by every path that this processor has. Input: one byte
 * that chooses size and depth of the frame, then the chunk. Property: events of an accepted chunk lie in the frame, in
 * pixel order, in valid pixels only, with counts from 1 to count_max; and all paths accept the same and give the same.
 */
#include <lz4.h>
#include <string.h>

#include "analysis/bslz4.h"
#include "tests/fuzz.h"
#include "tests/fuzz/photons.h"

#define PIXELS_MAX 9000
static const size_t N_PIXELS[] = {8, 64, 100, PIXELS_MAX};

const char *const fuzz_words[] = {"\x7f\xff\xff\xff", "\x80", "\xff\xff\xff\xff", NULL};

static void put(uint8_t *bytes, uint64_t value, int n)
{
    for (int i = 0; i < n; i++)
        bytes[i] = (uint8_t)(value >> 8 * (n - 1 - i));
}

/* A frame with a photon in every third pixel. */
static void plant_frame(int which)
{
    static uint8_t chunk[1 + 12 + 8 * PIXELS_MAX], planes[8192];
    int n_bytes = which & 4 ? 4 : 2;
    size_t n = N_PIXELS[which & 3], at = 1 + 12;
    chunk[0] = (uint8_t)which;
    put(chunk + 1, n * (size_t)n_bytes, 8);
    put(chunk + 9, 8192, 4);
    for (size_t done = 0; done < n / 8 * 8;) {
        size_t left = n / 8 * 8 - done, block = 8192 / (size_t)n_bytes, elements = left < block ? left : block;
        memset(planes, 0, sizeof planes);
        for (size_t e = 0; e < elements; e += 3)
            planes[e / 8] |= (uint8_t)(1 << e % 8);
        int size = LZ4_compress_default((const char *)planes, (char *)chunk + at + 4, (int)elements * n_bytes,
                                        (int)(sizeof chunk - at - 4));
        put(chunk + at, (uint64_t)size, 4);
        at += 4 + (size_t)size;
        done += elements;
    }
    size_t n_loose = n % 8 * (size_t)n_bytes;
    memset(chunk + at, 0, n_loose);
    fuzz_plant(chunk, at + n_loose);
}

/* Found: 9,000 pixels of 16 bits, their first block with a match at offset 0, which liblz4 takes for one. */
static const uint8_t OFFSET_0[] = {
    0x03, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x46, 0x50, 0x00, 0x00, 0x20, 0x00, 0x00, 0x00, 0x00, 0x31, 0x3f, 0x49,
    0x92, 0x24, 0x03, 0x00, 0xff, 0xeb, 0x1f, 0x00, 0x00, 0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
    0xff, 0xff, 0x05, 0x50, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x31, 0x3f, 0x49, 0x92, 0x24, 0x03, 0x00,
    0xff, 0xeb, 0x1f, 0x00, 0x01, 0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x05, 0x50,
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x17, 0x3f, 0x49, 0x92, 0x24, 0x03, 0x00, 0x4f, 0x1f, 0x00, 0x01,
    0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xd7, 0x50, 0x00, 0x00, 0x00, 0x00, 0x00};

void fuzz_plant_seeds(void)
{
    for (int which = 0; which < 8; which++)
        plant_frame(which);
    fuzz_plant(OFFSET_0, sizeof OFFSET_0);
}

struct decoded {
    uint32_t events[PIXELS_MAX + EVENT_SLACK];
    struct event_bright bright[PIXELS_MAX];
    struct event_sink sink;
    int code;
};

static void decode(struct decoded *decoded, enum bslz4_path path, const struct frame_shape *shape, const uint8_t *chunk,
                   size_t size)
{
    struct err err = {0};
    decoded->sink = (struct event_sink){.events = decoded->events, .bright = decoded->bright};
    decoded->code = bslz4_decode_frame_by(path, shape, chunk, size, &decoded->sink, &err);
    FUZZ_CHECK(decoded->code == 0 || err.message[0], "refused without a sentence");
    if (decoded->code == 0) {
        const struct event_frame frame = event_frame_of(&decoded->sink, shape->pixel_bits);
        fuzz_check_photons(&frame, shape->valid_bits, shape->n_pixels, shape->count_max);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct decoded first, other;
    static uint64_t valid_bits[(PIXELS_MAX + 63) / 64];
    if (size < 1)
        return 0;
    const size_t n_pixels = N_PIXELS[data[0] & 3];
    memset(valid_bits, 0, sizeof valid_bits); /* and 0 beyond the frame, as is promised */
    for (size_t p = 0; p < n_pixels; p++)
        valid_bits[p / 64] |= (uint64_t)((data[0] & 8 ? 0x5a : 0xff) >> p % 8 & 1) << p % 64;
    const struct frame_shape shape = {.n_pixels = n_pixels,
                                      .element_bytes = data[0] & 32  ? 1
                                                       : data[0] & 4 ? 4
                                                                     : 2,
                                      .pixel_bits = event_pixel_bits(n_pixels),
                                      .count_max = data[0] & 16 ? 3 : 65533,
                                      .valid_bits = valid_bits};
    decode(&first, BSLZ4_PORTABLE, &shape, data + 1, size - 1);
    for (int path = BSLZ4_PORTABLE + 1; path <= (int)bslz4_best_path(); path++) {
        decode(&other, (enum bslz4_path)path, &shape, data + 1, size - 1);
        FUZZ_CHECK(first.code == other.code, "%s: %d and %d", bslz4_path_name((enum bslz4_path)path), first.code,
                   other.code);
        if (first.code)
            continue;
        FUZZ_CHECK(first.sink.n_events == other.sink.n_events && first.sink.n_invalid == other.sink.n_invalid &&
                       first.sink.n_bright == other.sink.n_bright &&
                       memcmp(first.events, other.events, first.sink.n_events * sizeof first.events[0]) == 0,
                   "%s: %zu and %zu events", bslz4_path_name((enum bslz4_path)path), first.sink.n_events,
                   other.sink.n_events);
    }
    return 0;
}
