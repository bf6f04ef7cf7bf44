/*
 * Parser: an event cache (analysis/event_cache). Input: the file. Its hashes would turn away whatever is not whole, so
 * with the magic's first letter in lower case they are made good before it is read, and what stands behind them must
 * hold by itself. Property: what is accepted has a shape, times that are numbers, texts that end, and photons in valid
 * pixels, in order.
 */
#include <math.h>
#include <string.h>
#include <unistd.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "analysis/event_cache.h"
#include "tests/fuzz.h"
#include "tests/fuzz/photons.h"

#define HEADER_BYTES 1024
#define ROWS 5
#define COLUMNS 16
#define FRAMES 3
enum { N_ROWS = 16, N_COLUMNS = 24, N_EVENTS = 40, HASHES = 960, HEADER_HASH = 1016 }; /* where they stand */

const char *const fuzz_words[] = {"ISBEVENT", "iSBEVENT", "\xff\xff\xff\xff\xff\xff\xff\xff", "\x01\0\0\0", NULL};

/* One photon in every third valid pixel, and one pixel too bright for its field. */
static size_t make_cache(uint8_t *ret_bytes, size_t size)
{
    static const uint64_t valid_bits[] = {UINT64_MAX - 8, 0xffff};
    const struct frames_info info = {.n_frames = FRAMES,
                                     .n_rows = ROWS,
                                     .n_columns = COLUMNS,
                                     .element_bytes = 4,
                                     .frame_time_s = 0.1,
                                     .count_time_s = 0.0999,
                                     .photon_energy_ev = 21000,
                                     .detector_distance_m = 5,
                                     .pixel_size_m = 75e-6,
                                     .start_time = "2026-11-27T22:00:00Z"};
    unsigned pixel_bits = event_pixel_bits(ROWS * COLUMNS);
    uint32_t events[ROWS * COLUMNS];
    size_t n = 0;
    for (uint32_t pixel = 0; pixel < ROWS * COLUMNS; pixel += 3)
        if (valid_bits[pixel / 64] >> pixel % 64 & 1)
            events[n++] = pixel;
    events[2] |= UINT32_MAX << pixel_bits;
    const struct event_bright bright = {2, UINT32_C(1) << (32 - pixel_bits)};
    const struct event_frame frame = {
        .events = events, .bright = &bright, .n_events = n, .n_bright = 1, .pixel_bits = pixel_bits};
    struct event_cache_writer *writer;
    struct err err = {0};
    char path[] = "/dev/shm/isobar-fuzz-events-XXXXXX";
    int fd = mkstemp(path), code = fd < 0 ? -1 : event_cache_create(&writer, path, &info, "m.h5", valid_bits, &err);
    for (int t = 0; t < FRAMES && code == 0; t++)
        code = event_cache_append(writer, &frame, &err);
    if (code || event_cache_commit(writer, &err) || close(fd) != 0)
        abort();
    FILE *file = fopen(path, "rb");
    size_t n_bytes = file ? fread(ret_bytes, 1, size, file) : 0;
    if (n_bytes == 0 || n_bytes == size || fclose(file) != 0 || unlink(path) != 0)
        abort();
    return n_bytes;
}

void fuzz_plant_seeds(void)
{
    static uint8_t bytes[1 << 14];
    size_t n = make_cache(bytes, sizeof bytes);
    fuzz_plant(bytes, n);
    bytes[0] = 'i';
    fuzz_plant(bytes, n);
}

static uint64_t word_at(const uint8_t *bytes, size_t offset)
{
    uint64_t word;
    memcpy(&word, bytes + offset, sizeof word);
    return word;
}

/* By the sizes that the header states, if the file is that long. */
static void make_hashes_good(uint8_t *bytes, size_t size)
{
    uint64_t n_pixels = word_at(bytes, N_ROWS) * word_at(bytes, N_COLUMNS), n_events = word_at(bytes, N_EVENTS);
    uint64_t mask_bytes = (n_pixels + 63) / 64 * 8, hashes[3];
    if (mask_bytes > size || n_events > size / 4 || HEADER_BYTES + mask_bytes + 4 * n_events > size)
        return;
    const uint8_t *events = bytes + HEADER_BYTES + mask_bytes, *tables = events + 4 * n_events;
    hashes[0] = XXH3_64bits(bytes + HEADER_BYTES, mask_bytes);
    hashes[1] = XXH3_64bits(events, 4 * n_events);
    hashes[2] = XXH3_64bits(tables, (size_t)(bytes + size - tables));
    memcpy(bytes + HASHES, hashes, sizeof hashes);
    uint64_t header_hash = XXH3_64bits(bytes, HEADER_HASH);
    memcpy(bytes + HEADER_HASH, &header_hash, sizeof header_hash);
}

static void check_cache(const struct event_cache *cache)
{
    const struct frames_info *info = event_cache_info(cache);
    size_t n_pixels = info->n_rows * info->n_columns;
    FUZZ_CHECK(n_pixels >= 1 && n_pixels <= EVENT_PIXELS_MAX, "%zu x %zu", info->n_rows, info->n_columns);
    FUZZ_CHECK(info->frame_time_s > 0.0 && isfinite(info->frame_time_s), "frames of %g s", info->frame_time_s);
    FUZZ_CHECK(memchr(info->start_time, 0, sizeof info->start_time), "no end of the start time");
    FUZZ_CHECK(strlen(event_cache_master_path(cache)) < HEADER_BYTES, "no end of the path");
    for (size_t t = 0; t < info->n_frames; t++) {
        struct event_frame frame = event_cache_frame(cache, t);
        fuzz_check_photons(&frame, event_cache_valid_bits(cache), n_pixels, UINT32_MAX);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct event_cache *cache;
    struct err err = {0};
    uint8_t *bytes = malloc(size ? size : 1); /* exactly as long, so that a byte too far is seen, and aligned */
    memcpy(bytes, data, size);
    if (size >= HEADER_BYTES && bytes[0] == 'i') {
        bytes[0] = 'I';
        make_hashes_good(bytes, size);
    }
    if (event_cache_parse(&cache, bytes, size, &err)) {
        FUZZ_CHECK(err.message[0], "refused without a sentence");
    } else {
        check_cache(cache);
        event_cache_close(cache);
    }
    free(bytes);
    return 0;
}
