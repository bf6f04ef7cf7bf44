/*
 * Goal: the pairs that bit planes count are those of the counts themselves, to the last one, by every path that the
 * processor has and with every number of digits. Method: random counts (mostly 0 and 1, some up to 255, and frames that
 * are dark, dim or bright) of pixels that random blocks and single pixels mix among bins; beside the planes, sums of
 * products straight from the counts, by frame and by group and range of lags. The pairs of the surplus that is handed
 * back are added as a caller would. Frames are counted at random moments; the first ones have been before, and come
 * photon by photon in any order; pixels are dropped on the way.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "analysis/planes.h"
#include "sim/random.h"

#define N_BINS 3

static struct random dice;

static uint32_t draw(uint32_t below) { return (uint32_t)(random_bits(&dice) >> 32) % below; }

struct scan {
    size_t n_frames, n_before, n_pixels;
    uint8_t *counts;    /* [n_frames * n_pixels] that count: a pixel that is dropped has none any more */
    uint8_t *delivered; /* [n_frames * n_pixels] what the planes get to see */
    uint8_t *bins;      /* [n_pixels] */
    uint8_t *range;     /* [n_frames] of lag */
    uint32_t *pixel;    /* [n_pixels] of one frame's events */
    uint8_t *count;
    struct planes_surplus *surplus; /* [n_pixels] */
};

/* What one bin's pairs are, and what they have become. */
struct pairs {
    uint64_t group_pairs[TTCF_GROUPS][TTCF_LAG_RANGES_MAX];
    uint32_t *cells; /* [n_frames * n_frames], at t2 n_frames + t1 */
};

static uint8_t draw_count(uint32_t per_thousand)
{
    if (draw(1000) >= per_thousand)
        return 0;
    return (uint8_t)(draw(10) ? 1 : draw(50) ? 1 + draw(20) : 1 + draw(255));
}

static struct scan draw_scan(size_t n_frames, size_t n_before, size_t n_pixels, uint32_t per_thousand)
{
    struct scan scan = {.n_frames = n_frames,
                        .n_before = n_before,
                        .n_pixels = n_pixels,
                        .counts = calloc(n_frames * n_pixels, 1),
                        .delivered = calloc(n_frames * n_pixels, 1),
                        .bins = calloc(n_pixels, 1),
                        .range = calloc(n_frames, 1),
                        .pixel = calloc(n_pixels, sizeof *scan.pixel),
                        .count = calloc(n_pixels, 1),
                        .surplus = calloc(n_pixels, sizeof *scan.surplus)};
    for (size_t p = 0, bin = 0, end = 0; p < n_pixels; p++) {
        if (p == end) { /* from a few pixels to a few words in a row */
            bin = draw(N_BINS + 1);
            end = p + 1 + (draw(2) ? draw(20) : draw(1000));
        }
        scan.bins[p] = (uint8_t)(draw(200) ? bin : draw(N_BINS + 1));
    }
    for (size_t t = 0; t < n_frames; t++) {
        uint32_t brightness = draw(8) ? per_thousand : draw(2) * 5 * per_thousand;
        for (size_t p = 0; p < n_pixels; p++)
            scan.counts[t * n_pixels + p] = draw_count(brightness);
    }
    struct ttcf_lags lags;
    ttcf_lags_init(&lags, n_frames);
    for (size_t r = 0; r < lags.n; r++)
        memset(scan.range + lags.first[r], (int)r, lags.first[r + 1] - lags.first[r]);
    return scan;
}

static void free_scan(struct scan *scan)
{
    free(scan->counts);
    free(scan->delivered);
    free(scan->bins);
    free(scan->range);
    free(scan->pixel);
    free(scan->count);
    free(scan->surplus);
}

/* Of pairs of frames whose later one is from `first` on. */
static struct pairs expected_pairs(const struct scan *scan, int bin, size_t first)
{
    struct pairs pairs = {.cells = calloc(scan->n_frames * scan->n_frames, sizeof *pairs.cells)};
    for (size_t p = 0; p < scan->n_pixels; p++)
        for (size_t t2 = first; t2 < scan->n_frames && scan->bins[p] == bin; t2++)
            for (size_t t1 = 0; t1 < t2 && scan->counts[t2 * scan->n_pixels + p]; t1++) {
                uint32_t n = (uint32_t)scan->counts[t1 * scan->n_pixels + p] * scan->counts[t2 * scan->n_pixels + p];
                pairs.cells[t2 * scan->n_frames + t1] += n;
                pairs.group_pairs[p / TTCF_GROUP_PIXELS % TTCF_GROUPS][scan->range[t2 - t1]] += n;
            }
    return pairs;
}

static void put_before(const struct scan *scan, struct planes *planes)
{
    for (size_t p = scan->n_pixels; p-- > 0;)
        for (size_t k = 0; k < scan->n_before; k++) {
            size_t t = (k * 7 + p) % scan->n_before; /* 7 shares no factor with the numbers of frames below */
            for (uint32_t i = 0; i < scan->counts[t * scan->n_pixels + p]; i++)
                assert_int_equal(planes_put_photon(planes, t, (uint32_t)p, NULL), 0);
        }
}

static void add_frame(struct scan *scan, struct planes *planes, size_t t, struct pairs *pairs)
{
    size_t n = 0, n_pixels = scan->n_pixels;
    const uint8_t *counts = scan->delivered + t * n_pixels;
    for (uint32_t p = 0; p < n_pixels; p++)
        if (counts[p] || draw(500) == 0) { /* 0 too: what is too bright is handed on as nothing */
            scan->pixel[n] = p;
            scan->count[n++] = counts[p];
        }
    size_t n_surplus;
    assert_int_equal(
        planes_add_frame(planes, scan->pixel, scan->count, n, scan->surplus, &n_surplus, pairs->group_pairs, NULL), 0);
    for (size_t i = 0; i < n_surplus; i++)
        for (size_t t1 = 0; t1 < t; t1++) {
            uint32_t p = scan->surplus[i].pixel, more = scan->surplus[i].photons * scan->counts[t1 * n_pixels + p];
            planes_row(planes, t)[t1] += more;
            pairs->group_pairs[p / TTCF_GROUP_PIXELS % TTCF_GROUPS][scan->range[t - t1]] += more;
        }
}

static void count_waiting(const struct scan *scan, struct planes *planes, size_t t, struct pairs *pairs)
{
    size_t n = planes_n_waiting(planes);
    planes_count(planes, pairs->group_pairs);
    assert_int_equal(planes_n_waiting(planes), 0);
    for (size_t t2 = t + 1 - n; t2 <= t; t2++)
        memcpy(pairs->cells + t2 * scan->n_frames, planes_row(planes, t2), t2 * sizeof *pairs->cells);
}

/* What a pixel of the bin that is dropped has later does not count. */
static void drop_pixel(struct scan *scan, struct planes *planes, int bin, size_t t)
{
    uint32_t p = draw((uint32_t)scan->n_pixels);
    if (scan->bins[p] == bin)
        planes_drop_pixel(planes, p);
    for (size_t later = t + 1; later < scan->n_frames && scan->bins[p] == bin; later++)
        scan->counts[later * scan->n_pixels + p] = 0;
}

static void check_bin(struct scan *scan, int bin, enum planes_path path, int n_digits)
{
    struct planes *planes;
    const struct planes_settings settings = {.n_frames = scan->n_frames,
                                             .n_frames_before = scan->n_before,
                                             .n_pixels = scan->n_pixels,
                                             .bin_of_pixel = scan->bins,
                                             .bin = bin,
                                             .range_of_lag = scan->range,
                                             .n_digits = n_digits,
                                             .path = path};
    struct pairs pairs = {.cells = calloc(scan->n_frames * scan->n_frames, sizeof *pairs.cells)};
    memcpy(scan->delivered, scan->counts, scan->n_frames * scan->n_pixels);
    assert_int_equal(planes_begin(&planes, &settings, NULL), 0);
    put_before(scan, planes);
    for (size_t t = scan->n_before; t < scan->n_frames; t++) {
        add_frame(scan, planes, t, &pairs);
        if (planes_n_waiting(planes) == PLANES_BATCH || draw(20) == 0 || t + 1 == scan->n_frames)
            count_waiting(scan, planes, t, &pairs);
        if (draw(10) == 0)
            drop_pixel(scan, planes, bin, t);
    }
    planes_end(planes);
    struct pairs expected = expected_pairs(scan, bin, scan->n_before);
    assert_memory_equal(pairs.cells, expected.cells, scan->n_frames * scan->n_frames * sizeof *pairs.cells);
    assert_memory_equal(pairs.group_pairs, expected.group_pairs, sizeof pairs.group_pairs);
    free(pairs.cells);
    free(expected.cells);
}

static void every_path_and_digit(void **state)
{
    (void)state;
    static const struct {
        size_t n_frames, n_before, n_pixels;
        uint32_t per_thousand;
    } cases[] = {{2, 0, 1, 900},    {40, 0, 1500, 30},   {90, 16, 5001, 5},
                 {70, 32, 64, 300}, {25, 3, 100003, 20}, {300, 130, 700, 100}}; /* the fifth has several chunks */
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        for (enum planes_path path = 0; path <= planes_best_path(); path++) {
            dice.state = 100 * i + path;
            struct scan scan =
                draw_scan(cases[i].n_frames, cases[i].n_before, cases[i].n_pixels, cases[i].per_thousand);
            for (int n_digits = 1; n_digits <= PLANES_DIGITS_MAX; n_digits++)
                check_bin(&scan, 1 + (int)draw(N_BINS), path, n_digits);
            free_scan(&scan);
        }
}

/* Every count in every pixel and frame: the largest sums that a byte and a word of a chunk meet. */
static void full_planes(void **state)
{
    (void)state;
    enum { N = 20, P = 40 * 1024 };
    for (enum planes_path path = 0; path <= planes_best_path(); path++)
        for (int n_digits = 1; n_digits <= PLANES_DIGITS_MAX; n_digits++) {
            struct scan scan = draw_scan(N, 3, P, 1000);
            memset(scan.counts, (1 << n_digits) - 1, (size_t)N * P);
            memset(scan.bins, 1, P);
            check_bin(&scan, 1, path, n_digits);
            free_scan(&scan);
        }
}

/* A bin of no pixels is nothing, and one of a single pixel a row. */
static void sizes(void **state)
{
    (void)state;
    static uint8_t bins[3000];
    struct planes_settings settings = {
        .n_frames = 100, .n_pixels = sizeof bins, .bin_of_pixel = bins, .bin = 1, .n_digits = 1};
    assert_int_equal(planes_measure(&settings).n_rows, 0);
    bins[1999] = 1;
    assert_int_equal(planes_measure(&settings).n_rows, 1);
    memset(bins, 1, sizeof bins);
    assert_int_equal(planes_measure(&settings).n_rows, 3);
    assert_int_equal(planes_measure(&settings).digit_bytes, 3 * 1024 / 8 * 100);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_path_and_digit),
        cmocka_unit_test(full_planes),
        cmocka_unit_test(sizes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
