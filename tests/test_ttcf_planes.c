/*
 * Goal: a bin whose pairs are counted in bit planes has the results of the same bin counted photon by photon, bit for
 * bit, and bright bins go over to planes while dark ones do not. Method: the same random frames through runs that are
 * told to count either way, by every path that the processor has and with every number of digits: one bin, or three
 * that pixels and blocks mix, with parts, ages and matrices; counts up to 255 and some above; empty frames; hot pixels;
 * pixels that are dropped as dead and have photons later; results asked for while the scan goes on. Lists are checked
 * by test_ttcf.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "analysis/planes.h"
#include "analysis/ttcf.h"
#include "sim/random.h"

#define N_BINS 3
#define N_FRAMES 280
#define N_PIXELS 4100
#define N_PARTS 12
#define HOT 1000    /* pixel */
#define DROP_AT 230 /* after this frame, by when the parts have more than TTCF_DEAD_MEAN photons per pixel */

static struct random dice;

static uint32_t draw(uint32_t below) { return (uint32_t)(random_bits(&dice) >> 32) % below; }

struct scan {
    size_t n_frames;
    uint32_t counts[N_FRAMES][N_PIXELS];
    uint8_t bins[N_PIXELS];
    uint16_t parts[N_PIXELS];
    bool is_asked[N_FRAMES]; /* for results after this frame */
};

static struct scan scan;

static void draw_scan(int n_bins, uint32_t per_thousand)
{
    memset(&scan, 0, sizeof scan);
    scan.n_frames = N_FRAMES;
    for (size_t p = 0, bin = 1, end = 0; p < N_PIXELS; p++) {
        if (p == end) {
            bin = draw((uint32_t)n_bins + 1);
            end = p + 1 + (draw(2) ? draw(20) : draw(600));
        }
        scan.bins[p] = (uint8_t)bin;
        scan.parts[p] = (uint16_t)(bin ? (bin - 1) * (N_PARTS / N_BINS) + 1 + draw(N_PARTS / N_BINS) : 0);
    }
    scan.bins[HOT] = 1;
    scan.parts[HOT] = 1;
    for (size_t t = 0; t < N_FRAMES; t++) {
        uint32_t brightness = draw(10) ? per_thousand : draw(2) * 2 * per_thousand;
        scan.is_asked[t] = t > 1 && draw(25) == 0;
        for (size_t p = 0; p < N_PIXELS; p++) {
            bool is_dead = p % 97 == 5 && t <= DROP_AT;
            if (!is_dead && draw(1000) < brightness)
                scan.counts[t][p] = draw(10) ? 1 : draw(60) ? 1 + draw(9) : 1 + draw(255);
        }
        scan.counts[t][HOT] = brightness ? 200 : 0;
        scan.counts[t][2000 + draw(5)] = draw(40) ? 0 : 1000;
    }
}

static struct ttcf_run *begin(int n_bins, struct ttcf_settings settings)
{
    struct ttcf_run *run;
    settings.n_frames = N_FRAMES + 20; /* more than come */
    settings.n_pixels = N_PIXELS;
    settings.n_bins = n_bins;
    settings.bin_of_pixel = scan.bins;
    settings.part_of_pixel = scan.parts;
    settings.n_parts = N_PARTS;
    settings.n_ages = 3;
    settings.with_matrix = true;
    assert_int_equal(ttcf_begin(&run, &settings, NULL), 0);
    return run;
}

static void add_frame(struct ttcf_run *run, size_t t)
{
    static uint32_t events[N_PIXELS + EVENT_SLACK];
    static struct event_bright bright[N_PIXELS];
    const struct frame_shape shape = {
        .n_pixels = N_PIXELS, .pixel_bits = event_pixel_bits(N_PIXELS), .count_max = UINT32_MAX - 1};
    struct event_sink sink = {.events = events, .bright = bright};
    for (size_t p = 0; p < N_PIXELS; p++)
        if (scan.counts[t][p])
            event_put(&sink, &shape, p, scan.counts[t][p]);
    const struct event_frame frame = event_frame_of(&sink, shape.pixel_bits);
    assert_int_equal(ttcf_add_frame(run, &frame, NULL), 0);
}

static void check_same(const struct ttcf *seen, const struct ttcf *expected)
{
    size_t n = expected->n_frames, n_cells = expected->matrix ? n * (n + 1) / 2 : 0;
    assert_int_equal(seen->n_frames, n);
    assert_int_equal(seen->n_pixels, expected->n_pixels);
    assert_int_equal(seen->n_photons, expected->n_photons);
    assert_int_equal(seen->n_empty_rows, expected->n_empty_rows);
    assert_true(seen->n_pixels_effective == expected->n_pixels_effective);
    assert_memory_equal(seen->pairs, expected->pairs, n * sizeof(double));
    assert_memory_equal(seen->range, expected->range, sizeof seen->range);
    assert_memory_equal(seen->without, expected->without, sizeof seen->without);
    assert_memory_equal(seen->age, expected->age, (size_t)expected->n_ages * sizeof *expected->age);
    assert_memory_equal(seen->photons_per_row, expected->photons_per_row, n * sizeof(double));
    assert_memory_equal(seen->pairs_expected, expected->pairs_expected, n * sizeof(double));
    assert_memory_equal(seen->g2, expected->g2, n * sizeof(double));
    assert_memory_equal(seen->g2_mean, expected->g2_mean, n * sizeof(double));
    assert_memory_equal(seen->map, expected->map, expected->map_n * expected->map_n * sizeof(float));
    assert_int_equal(seen->matrix != NULL, expected->matrix != NULL);
    for (size_t i = 0; i < n_cells; i++)
        assert_memory_equal(&seen->matrix[i], &expected->matrix[i], sizeof(float));
}

static void check_results(struct ttcf_run *seen, struct ttcf_run *expected, int n_bins, bool is_last)
{
    for (int b = 1; b <= n_bins; b++) {
        struct ttcf a = {0}, c = {0};
        struct err err = {0}, expected_err = {0};
        int code = ttcf_result(seen, b, is_last, &a, &err);
        assert_int_equal(ttcf_result(expected, b, is_last, &c, &expected_err), code);
        assert_string_equal(err.message, expected_err.message);
        if (code == 0) {
            check_same(&a, &c);
            ttcf_free(&a);
            ttcf_free(&c);
        }
    }
}

static void check_marks(struct ttcf_run *seen, struct ttcf_run *expected, size_t n_dead_min)
{
    static uint8_t marks[N_PIXELS], expected_marks[N_PIXELS];
    size_t n_dead, n_dead_expected;
    assert_true(ttcf_find_hot(seen, marks) >= 1);
    ttcf_find_hot(expected, expected_marks);
    assert_memory_equal(marks, expected_marks, N_PIXELS);
    assert_int_equal(ttcf_drop_dead(seen, marks, &n_dead, NULL), 0);
    assert_int_equal(ttcf_drop_dead(expected, expected_marks, &n_dead_expected, NULL), 0);
    assert_memory_equal(marks, expected_marks, N_PIXELS);
    assert_true(n_dead == n_dead_expected && n_dead >= n_dead_min);
}

static void compare(int n_bins, struct ttcf_settings settings, size_t n_dead_min)
{
    struct ttcf_run *seen = begin(n_bins, settings),
                    *expected = begin(n_bins, (struct ttcf_settings){.counting = TTCF_LISTS});
    for (size_t t = 0; t < scan.n_frames; t++) {
        add_frame(seen, t);
        add_frame(expected, t);
        if (scan.is_asked[t])
            check_results(seen, expected, n_bins, false);
        if (t == DROP_AT)
            check_marks(seen, expected, n_dead_min);
    }
    for (int b = 1; b <= n_bins; b++) {
        assert_int_equal(ttcf_n_digits(seen, b), settings.n_digits);
        assert_int_equal(ttcf_n_digits(expected, b), 0);
    }
    check_results(seen, expected, n_bins, true);
    ttcf_end(seen);
    ttcf_end(expected);
}

static void like_photon_by_photon(void **state)
{
    (void)state;
    for (enum planes_path path = 0; path <= planes_best_path(); path++)
        for (int n_digits = 1; n_digits <= PLANES_DIGITS_MAX; n_digits++)
            for (int n_bins = 1; n_bins <= N_BINS; n_bins += 2) {
                bool is_bright = n_digits % 2;
                dice.state = 31 + path;
                draw_scan(n_bins, is_bright ? 500 : 60);
                compare(n_bins,
                        (struct ttcf_settings){.counting = TTCF_PLANES, .planes_path = (int)path, .n_digits = n_digits},
                        is_bright ? 10 : 0);
            }
}

/* Some dozens of photons in every pixel: its earlier photons fill more lines than a block of their pool has, before
 * planes begin and after. */
static void many_photons(void **state)
{
    (void)state;
    dice.state = 33;
    draw_scan(1, 0);
    scan.n_frames = 36;
    for (size_t t = 0; t < scan.n_frames; t++)
        for (size_t p = 0; p < N_PIXELS; p++)
            scan.counts[t][p] = 20 + draw(20);
    memset(scan.bins, 1, sizeof scan.bins);
    for (size_t p = 0; p < N_PIXELS; p++)
        scan.parts[p] = 1;
    compare(1, (struct ttcf_settings){.counting = TTCF_PLANES, .planes_path = PLANES_PORTABLE, .n_digits = 1}, 0);
}

/* Flat frames of one count in a share of the pixels; digits of the planes of a bin of all pixels at the end. */
static int digits_of(uint32_t per_thousand, uint32_t count, size_t planes_bytes_max)
{
    static uint32_t events[N_PIXELS];
    static uint8_t bins[N_PIXELS];
    struct ttcf_run *run;
    memset(bins, 1, sizeof bins);
    const struct ttcf_settings settings = {.n_frames = 4000,
                                           .n_pixels = N_PIXELS,
                                           .n_bins = 1,
                                           .bin_of_pixel = bins,
                                           .planes_bytes_max = planes_bytes_max};
    assert_int_equal(ttcf_begin(&run, &settings, NULL), 0);
    for (size_t t = 0; t < 40; t++) {
        struct event_frame frame = {.events = events, .pixel_bits = event_pixel_bits(N_PIXELS)};
        for (uint32_t p = 0; p < N_PIXELS; p++)
            if (draw(1000) < per_thousand)
                events[frame.n_events++] = p | (draw(2) ? count - 1 : 0) << frame.pixel_bits;
        assert_int_equal(ttcf_add_frame(run, &frame, NULL), 0);
        assert_true(t >= 15 || ttcf_n_digits(run, 1) == 0);
    }
    int n_digits = ttcf_n_digits(run, 1);
    ttcf_end(run);
    return n_digits;
}

/* Far from where the two cost the same, whatever the processor. */
static void bright_goes_over(void **state)
{
    (void)state;
    dice.state = 32;
    assert_int_equal(digits_of(1, 1, 0), 0);
    assert_int_equal(digits_of(300, 1, 0), 1);
    assert_int_equal(digits_of(300, 3, 0), 2);
    assert_int_equal(digits_of(300, 3, 4000000), 1); /* 4,000 planes of 640 bytes, twice, are more */
    assert_int_equal(digits_of(300, 3, 2000000), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(like_photon_by_photon),
        cmocka_unit_test(many_photons),
        cmocka_unit_test(bright_goes_over),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
