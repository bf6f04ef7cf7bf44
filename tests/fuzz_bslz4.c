/*
 * Parser: one compressed frame of an EIGER2 (analysis/bslz4). Input: one byte that chooses size and depth of the frame,
 * then the chunk. Property: events of an accepted chunk lie in the frame, in pixel order, in valid pixels only, with
 * counts from 1 to count_max.
 */
#include <lz4.h>
#include <string.h>

#include "analysis/bslz4.h"
#include "tests/fuzz.h"

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

void fuzz_plant_seeds(void)
{
    for (int which = 0; which < 8; which++)
        plant_frame(which);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct photon_event events[PIXELS_MAX];
    static uint64_t valid_bits[(PIXELS_MAX + 63) / 64];
    if (size < 1)
        return 0;
    memset(valid_bits, data[0] & 8 ? 0x5a : 0xff, sizeof valid_bits);
    struct bslz4_frame frame = {.n_pixels = N_PIXELS[data[0] & 3],
                                .element_bytes = data[0] & 4 ? 4 : 2,
                                .count_max = data[0] & 16 ? 3 : 65533,
                                .valid_bits = valid_bits};
    struct err err = {0};
    size_t n = 0, n_invalid = 0;
    /* No slack behind the chunk: the caller's header promises none is read. */
    if (bslz4_decode_frame(&frame, data + 1, size - 1, events, &n, &n_invalid, &err)) {
        FUZZ_CHECK(err.message[0], "refused without a sentence");
        return 0;
    }
    FUZZ_CHECK(n + n_invalid <= frame.n_pixels, "%zu events and %zu invalid of %zu", n, n_invalid, frame.n_pixels);
    for (size_t i = 0; i < n; i++) {
        uint32_t pixel = events[i].pixel;
        FUZZ_CHECK(pixel < frame.n_pixels && (i == 0 || pixel > events[i - 1].pixel), "event %zu in pixel %u", i,
                   pixel);
        FUZZ_CHECK(valid_bits[pixel / 64] >> pixel % 64 & 1, "pixel %u is masked", pixel);
        FUZZ_CHECK(events[i].count >= 1 && events[i].count <= frame.count_max, "%u photons", events[i].count);
    }
    return 0;
}
