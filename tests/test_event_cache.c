/*
 * Goal: what was appended to an event cache comes back, a file of its name is whole, and no file, however made, does
 * harm. Method: random frames with bright and invalid pixels are written and read; every byte of a small file is
 * changed in turn and must be refused; then files are damaged and their hashes made right again, as only a fuzzer or a
 * forger does, so that the checks behind the hashes are reached: what is accepted must be in order, and under the
 * sanitizers nothing may be read out of bounds. Disks that are full at any size leave nothing behind.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>
#include <xxhash.h>

#include "analysis/event_cache.h"
#include "sim/random.h"

#define ROWS 24
#define COLUMNS 31
#define PIXELS (ROWS * COLUMNS)
#define MASK_WORDS ((PIXELS + 63) / 64)
#define FRAMES 9
#define FILE_BYTES_MAX 100000

static char folder[] = "/tmp/isobar-cache-XXXXXX";
static char path[64];
static uint64_t valid_bits[MASK_WORDS];
static uint32_t events[FRAMES][PIXELS + EVENT_SLACK];
static struct event_bright bright[FRAMES][PIXELS];
static struct event_sink sinks[FRAMES];
static struct random dice = {.state = 1};

static const struct frames_info info = {.n_frames = FRAMES,
                                        .n_rows = ROWS,
                                        .n_columns = COLUMNS,
                                        .element_bytes = 4,
                                        .frame_time_s = 0.1,
                                        .count_time_s = 0.0999,
                                        .photon_energy_ev = 21000,
                                        .detector_distance_m = 5,
                                        .beam_center_x_px = 3.5,
                                        .beam_center_y_px = 4.5,
                                        .pixel_size_m = 75e-6,
                                        .start_time = "2026-01-02T03:04:05"};

static uint32_t draw(uint32_t below) { return (uint32_t)(random_bits(&dice) >> 32) % below; }

static int draw_series(void **state)
{
    (void)state;
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/scan_events.bin", folder);
    for (size_t i = 0; i < PIXELS; i++)
        if (draw(10))
            valid_bits[i / 64] |= UINT64_C(1) << i % 64;
    struct frame_shape shape = {.n_pixels = PIXELS,
                                .element_bytes = 4,
                                .pixel_bits = event_pixel_bits(PIXELS),
                                .count_max = UINT32_MAX - 5,
                                .valid_bits = valid_bits};
    for (size_t t = 0; t < FRAMES; t++) {
        sinks[t] = (struct event_sink){.events = events[t], .bright = bright[t]};
        for (size_t i = 0; i < PIXELS; i++)
            if (t != 4 && (valid_bits[i / 64] >> i % 64 & 1) && draw(8) == 0)
                event_put(&sinks[t], &shape, i, draw(6) ? 1 + draw(4) : UINT32_MAX - draw(8));
    }
    assert_in_range(sinks[0].n_bright, 3, 40);
    assert_in_range(sinks[0].n_invalid, 1, 40);
    return 0;
}

static int remove_folder(void **state)
{
    (void)state;
    unlink(path);
    return rmdir(folder);
}

static int write_series(struct err *err)
{
    struct event_cache_writer *writer;
    int code = event_cache_create(&writer, path, &info, "/data/scan_master.h5", valid_bits, err);
    for (size_t t = 0; t < FRAMES && code == 0; t++) {
        struct event_frame frame = event_frame_of(&sinks[t], event_pixel_bits(PIXELS));
        code = event_cache_append(writer, &frame, err);
        if (code)
            event_cache_discard(writer);
    }
    return code ? code : event_cache_commit(writer, err);
}

static size_t read_file(uint8_t *ret_bytes)
{
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    size_t n = fread(ret_bytes, 1, FILE_BYTES_MAX, file);
    fclose(file);
    return n;
}

static void comes_back(void **state)
{
    (void)state;
    struct event_cache *cache;
    struct err err = {0};
    assert_int_equal(write_series(&err), 0);
    assert_true(event_cache_is_at(path));
    assert_int_equal(event_cache_open(&cache, path, &err), 0);
    assert_memory_equal(event_cache_info(cache), &info, sizeof info);
    assert_string_equal(event_cache_master_path(cache), "/data/scan_master.h5");
    assert_memory_equal(event_cache_valid_bits(cache), valid_bits, sizeof valid_bits);
    assert_true(event_cache_mask_hash(cache) == XXH3_64bits(valid_bits, sizeof valid_bits));
    for (size_t t = 0; t < FRAMES; t++) {
        struct event_frame frame = event_cache_frame(cache, t);
        assert_int_equal(frame.n_events, sinks[t].n_events);
        assert_int_equal(frame.n_bright, sinks[t].n_bright);
        assert_int_equal(frame.n_invalid, sinks[t].n_invalid);
        assert_memory_equal(frame.events, events[t], frame.n_events * sizeof *frame.events);
        assert_memory_equal(frame.bright, bright[t], frame.n_bright * sizeof *frame.bright);
    }
    event_cache_close(cache);
}

static int files_in_folder(void)
{
    DIR *directory = opendir(folder);
    int n = 0;
    for (struct dirent *entry; (entry = readdir(directory));)
        n += entry->d_name[0] != '.';
    closedir(directory);
    return n;
}

static void full_disk(void **state)
{
    (void)state;
    static uint8_t bytes[FILE_BYTES_MAX];
    struct rlimit limit, before;
    size_t n = read_file(bytes);
    unlink(path);
    getrlimit(RLIMIT_FSIZE, &before);
    signal(SIGXFSZ, SIG_IGN);
    for (size_t room = 0; room < n; room += 1 + n / 40) {
        struct err err = {0};
        limit = (struct rlimit){.rlim_cur = room, .rlim_max = before.rlim_max};
        setrlimit(RLIMIT_FSIZE, &limit);
        int code = write_series(&err);
        setrlimit(RLIMIT_FSIZE, &before);
        assert_int_equal(code, ERR_IO);
        assert_non_null(strstr(err.message, "cannot be written: File too large"));
        assert_int_equal(files_in_folder(), 0);
    }
    assert_int_equal(write_series(NULL), 0);
    assert_int_equal(files_in_folder(), 1);
}

static void each_byte(void **state)
{
    (void)state;
    static uint8_t bytes[FILE_BYTES_MAX];
    struct event_cache *cache;
    struct err err = {0};
    size_t n = read_file(bytes);
    assert_in_range(n, 2000, FILE_BYTES_MAX - 1);
    for (size_t i = 0; i < n; i++) {
        bytes[i] ^= (uint8_t)(1 << i % 8);
        assert_int_equal(event_cache_parse(&cache, bytes, n, &err), ERR_DATA);
        bytes[i] ^= (uint8_t)(1 << i % 8);
    }
    for (size_t cut = 0; cut < n; cut++)
        assert_int_equal(event_cache_parse(&cache, bytes, cut, &err), ERR_DATA);
    assert_int_equal(event_cache_parse(&cache, bytes, n, &err), 0);
    event_cache_close(cache);
}

static uint64_t field(const uint8_t *bytes, size_t at)
{
    uint64_t value;
    memcpy(&value, bytes + at, sizeof value);
    return value;
}

static void put_field(uint8_t *bytes, size_t at, uint64_t value) { memcpy(bytes + at, &value, sizeof value); }

/* Makes all hashes right, by the layout in the header; sections that would not fit are left alone. */
static void seal(uint8_t *bytes, size_t n)
{
    uint64_t n_mask = (field(bytes, 16) * field(bytes, 24) + 63) / 64 * 8, n_events = field(bytes, 40);
    if (n_mask <= n - 1024 && n_events <= (n - 1024 - n_mask) / 4) {
        put_field(bytes, 960, XXH3_64bits(bytes + 1024, n_mask));
        put_field(bytes, 968, XXH3_64bits(bytes + 1024 + n_mask, 4 * n_events));
        size_t tables = 1024 + n_mask + 4 * n_events;
        put_field(bytes, 976, XXH3_64bits(bytes + tables, n - tables));
    }
    put_field(bytes, 1016, XXH3_64bits(bytes, 1016));
}

/* What is accepted can be used: every event is of a valid pixel, ascending, and its count is there. */
static void check_order(const struct event_cache *cache)
{
    const struct frames_info *seen = event_cache_info(cache);
    for (size_t t = 0; t < seen->n_frames; t++) {
        struct event_frame frame = event_cache_frame(cache, t);
        size_t next_bright = 0;
        for (size_t i = 0; i < frame.n_events; i++) {
            uint32_t pixel = event_pixel(&frame, i);
            assert_true(pixel < seen->n_rows * seen->n_columns);
            assert_true(event_cache_valid_bits(cache)[pixel / 64] >> pixel % 64 & 1);
            assert_true(i == 0 || pixel > event_pixel(&frame, i - 1));
            size_t before = next_bright;
            assert_true(event_count(&frame, i, &next_bright) > 0);
            assert_true(next_bright == before || frame.bright[before].index == i);
        }
        assert_int_equal(next_bright, frame.n_bright);
        assert_true(frame.n_events + frame.n_invalid <= seen->n_rows * seen->n_columns);
    }
}

/* In each frame as many invalid pixels as there is room for, and one more. */
static void invalid_pixels_beyond_the_frame(void **state)
{
    (void)state;
    static uint8_t bytes[FILE_BYTES_MAX];
    const struct {
        uint32_t n_more;
        int code;
    } cases[] = {{0, 0}, {1, ERR_DATA}, {UINT32_MAX - PIXELS, ERR_DATA}};
    size_t n = read_file(bytes), n_valid = 0, table = n - 4 * (FRAMES + FRAMES % 2);
    for (size_t i = 0; i < PIXELS; i++)
        n_valid += valid_bits[i / 64] >> i % 64 & 1;
    for (size_t t = 0; t < FRAMES; t++)
        for (size_t k = 0; k < sizeof cases / sizeof cases[0]; k++) {
            struct event_cache *cache;
            struct err err = {0};
            uint32_t before, n_invalid = (uint32_t)(n_valid - sinks[t].n_events) + cases[k].n_more;
            memcpy(&before, bytes + table + 4 * t, sizeof before);
            assert_int_equal(before, sinks[t].n_invalid);
            memcpy(bytes + table + 4 * t, &n_invalid, sizeof n_invalid);
            seal(bytes, n);
            assert_int_equal(event_cache_parse(&cache, bytes, n, &err), cases[k].code);
            if (cases[k].code)
                assert_non_null(strstr(err.message, "or counts more pixels than it has: analyse the series anew"));
            else
                event_cache_close(cache);
            memcpy(bytes + table + 4 * t, &before, sizeof before);
        }
}

static void sealed_damage(void **state)
{
    (void)state;
    static uint8_t whole[FILE_BYTES_MAX];
    size_t n = read_file(whole);
    int n_accepted = 0, n_refused = 0;
    for (int round = 0; round < 20000; round++) {
        struct event_cache *cache;
        struct err err = {0};
        uint8_t *bytes = malloc(n); /* of the exact size, so that a sanitizer sees the first byte too many */
        memcpy(bytes, whole, n);
        for (uint32_t flips = 1 + draw(3); flips > 0; flips--)
            if (draw(3) == 0)
                put_field(bytes, 16 + 8 * draw(6), draw(2) ? draw(2000) : UINT64_MAX - draw(70000));
            else
                bytes[draw((uint32_t)n)] ^= (uint8_t)(1 << draw(8));
        seal(bytes, n);
        if (event_cache_parse(&cache, bytes, n, &err) == 0) {
            n_accepted++;
            check_order(cache);
            event_cache_close(cache);
        } else {
            assert_true(err.code == ERR_DATA && err.message[0]);
            n_refused++;
        }
        free(bytes);
    }
    assert_in_range(n_accepted, 500, 15000); /* a count or a time that is wrong cannot be seen once it is sealed */
    assert_in_range(n_refused, 5000, 19500);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(comes_back),    cmocka_unit_test(full_disk),
        cmocka_unit_test(each_byte),     cmocka_unit_test(invalid_pixels_beyond_the_frame),
        cmocka_unit_test(sealed_damage),
    };
    return cmocka_run_group_tests(tests, draw_series, remove_folder);
}
