/*
 * Parser: a scan and a constant of an Ocean Optics spectrometer (drivers/ocean). Input: one byte that chooses the
 * window that was asked for, then what comes on the wire. Property: an accepted scan is the one that was asked for,
 * byte for byte as a device would send it (baseline aside, which means nothing here); an accepted constant is finite.
 */
#include <math.h>
#include <string.h>

#include "drivers/ocean.h"
#include "tests/fuzz.h"

enum { N_WINDOWS = 4 };
static const struct ocean_window WINDOWS[N_WINDOWS] = {
    {.pixel_first = 0, .pixel_last = 15, .is_whole = true, .exposure_ms = 500},
    {.pixel_first = 100, .pixel_last = 119, .has_checksum = true, .exposure_ms = 500},
    {.pixel_first = 7, .pixel_last = 7, .exposure_ms = 1},
    {.pixel_first = 0, .pixel_last = OCEAN_PIXELS_MAX - 1, .is_whole = true, .has_checksum = true, .exposure_ms = 1},
};
const char *const fuzz_words[] = {"\x02", "\x03", "\xff\xff", "\xff\xfd", "1.5e-3", "nan", "inf", "0x1p9", NULL};

void fuzz_plant_seeds(void)
{
    static uint16_t counts[OCEAN_PIXELS_MAX];
    static uint8_t bytes[1 + OCEAN_SCAN_SIZE_MAX];
    for (int i = 0; i < OCEAN_PIXELS_MAX; i++)
        counts[i] = (uint16_t)(i * 40503);
    for (int i = 0; i < N_WINDOWS; i++) {
        bytes[0] = (uint8_t)i;
        fuzz_plant(bytes, 1 + ocean_pack_scan(bytes + 1, &WINDOWS[i], counts));
    }
    fuzz_plant("\0"
               "-1.234567e-08\0\0",
               16);
    fuzz_plant("\1 694.25        ", 16);
}

static void check_scan(const struct ocean_parser *parser, const uint8_t *scan, size_t size)
{
    static uint16_t counts[OCEAN_PIXELS_MAX];
    static uint8_t packed[OCEAN_SCAN_SIZE_MAX];
    int n_pixels = parser->window.pixel_last - parser->window.pixel_first + 1;
    FUZZ_CHECK(parser->n_pixels == n_pixels, "%d pixels of %d", parser->n_pixels, n_pixels);
    if (parser->is_double)
        return; /* the project's device sends single words only */
    for (int i = 0; i < n_pixels; i++) {
        FUZZ_CHECK(parser->counts[i] <= OCEAN_COUNTS_MAX, "pixel %d holds %u", i, parser->counts[i]);
        counts[i] = (uint16_t)parser->counts[i];
    }
    size_t expected = ocean_pack_scan(packed, &parser->window, counts);
    memcpy(packed + 9, scan + 9, 4); /* STX, four words, then the baseline */
    FUZZ_CHECK(size == expected && memcmp(packed, scan, size) == 0, "%zu bytes, a device sends %zu", size, expected);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct ocean_parser parser;
    double value;
    if (size < 1)
        return 0;
    if (size > OCEAN_CONSTANT_SIZE && ocean_unpack_constant(data + 1, &value))
        FUZZ_CHECK(isfinite(value), "%g", value);
    ocean_parser_start(&parser, &WINDOWS[data[0] % N_WINDOWS]);
    size_t start = 1;
    for (size_t i = 1; i < size; i++) {
        enum ocean_outcome outcome = ocean_parser_feed(&parser, data[i]);
        while (start < i && data[start] != OCEAN_STX)
            start++;
        if (outcome == OCEAN_MORE)
            continue;
        if (outcome == OCEAN_SCAN)
            check_scan(&parser, data + start, i + 1 - start);
        ocean_parser_start(&parser, &parser.window);
        start = i + 1;
    }
    return 0;
}
