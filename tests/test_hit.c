/*
 * Goal: particles are taken out of a frame and nothing else is: tracks, blobs and single bursts go whole, photons of
 * speckle stay, in a dark scan and in a bright one. Method: thermal photons (the worst that light can do) with a slope,
 * in which no hit may be found; the same with particles put in, whose events must be exactly those that go, against a
 * search of clusters by flooding; the rules for masked and for repeated pixels.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "analysis/hit.h"
#include "sim/random.h"

#define ROWS 200
#define COLUMNS 300
#define PIXELS (ROWS * COLUMNS)
#define FRAMES 100

static const struct frame_shape shape = {.n_pixels = PIXELS, .pixel_bits = 25, .count_max = UINT32_MAX - 1};
static uint8_t is_masked[PIXELS];
static uint32_t counts[PIXELS];
static struct random dice;

static double draw(void) { return random_uniform(&dice); }

/* Photons of fully polarised thermal light whose mean grows threefold over the rows. */
static void draw_frame(double mean)
{
    for (size_t p = 0; p < PIXELS; p++) {
        double m = mean * (0.5 + (double)(p / COLUMNS) / ROWS), stay = m / (1.0 + m);
        for (counts[p] = 0; draw() < stay;)
            counts[p]++;
    }
}

static struct event_frame frame_of(const uint32_t *values)
{
    static uint32_t events[PIXELS + EVENT_SLACK];
    static struct event_bright bright[PIXELS];
    struct event_sink sink = {.events = events, .bright = bright};
    for (size_t p = 0; p < PIXELS; p++)
        if (values[p])
            event_put(&sink, &shape, p, values[p]);
    return event_frame_of(&sink, shape.pixel_bits);
}

/* The counts that a frame tells of. */
static void spread(const struct event_frame *frame, uint32_t *ret_counts)
{
    size_t next_bright = 0;
    memset(ret_counts, 0, PIXELS * sizeof *ret_counts);
    for (size_t i = 0; i < frame->n_events; i++) {
        size_t bright = next_bright;
        ret_counts[event_pixel(frame, i)] = event_count(frame, i, &next_bright);
        assert_true(bright == next_bright || frame->bright[bright].index == i);
    }
    assert_int_equal(next_bright, frame->n_bright);
}

static struct hit_finder *open_finder(size_t n_frames)
{
    struct hit_finder *finder;
    memset(is_masked, 0, sizeof is_masked);
    assert_int_equal(hit_open(&finder, COLUMNS, PIXELS, n_frames, is_masked, NULL), 0);
    return finder;
}

static void light_makes_no_hits(void **state)
{
    (void)state;
    dice.state = 1;
    static const double means[] = {0.0, 0.0005, 0.002, 0.008, 0.03, 0.3, 5.0};
    for (size_t i = 0; i < sizeof means / sizeof means[0]; i++) {
        struct hit_finder *finder = open_finder(FRAMES);
        for (int t = 0; t < FRAMES; t++) {
            draw_frame(means[i]);
            const struct event_frame frame = frame_of(counts), left = hit_filter(finder, &frame);
            assert_ptr_equal(left.events, frame.events);
            assert_int_equal(left.n_events, frame.n_events);
        }
        assert_int_equal(hit_count(finder), 0);
        hit_close(finder);
    }
}

static void put(size_t row, size_t column, uint32_t photons) { counts[row * COLUMNS + column] += photons; }

/* All that hangs together with a pixel, from `values` to nothing; returns its photons. */
static size_t flood(uint32_t *values, size_t row, size_t column)
{
    size_t n = values[row * COLUMNS + column];
    if (n == 0)
        return 0;
    values[row * COLUMNS + column] = 0;
    for (size_t r = row ? row - 1 : 0; r <= row + 1 && r < ROWS; r++)
        for (size_t c = column ? column - 1 : 0; c <= column + 1 && c < COLUMNS; c++)
            n += flood(values, r, c);
    return n;
}

static void particles_go(void **state)
{
    (void)state;
    dice.state = 2;
    static uint32_t expected[PIXELS], seen[PIXELS];
    struct hit_finder *finder = open_finder(FRAMES);
    size_t n_photons = 0;
    for (int t = 0; t < FRAMES; t++) {
        draw_frame(0.002);
        size_t row = (size_t)(draw() * (ROWS - 40)) + 2, column = (size_t)(draw() * (COLUMNS - 60)) + 2;
        for (size_t i = 0; i < 20; i++) /* a muon, 20 pixels aslant; down and to the left every other time */
            put(row + i / 2, t % 2 ? column + i : column + 30 - i, 1);
        put(row + 30, column, 5); /* a quantum, shared among four */
        put(row + 30, column + 1, 7);
        put(row + 31, column, 4);
        put(row + 31, column + 1, 9);
        put(row + 36, column + 3, 1000); /* one pixel that rings, more than an event holds */
        memcpy(expected, counts, sizeof expected);
        n_photons += flood(expected, row, t % 2 ? column : column + 30);
        n_photons += flood(expected, row + 30, column) + flood(expected, row + 36, column + 3);
        const struct event_frame frame = frame_of(counts), left = hit_filter(finder, &frame);
        spread(&left, seen);
        assert_memory_equal(seen, expected, sizeof seen);
        assert_int_equal(hit_count(finder), 3 * (t + 1));
        assert_int_equal(hit_count_photons(finder), n_photons);
    }
    hit_close(finder);
}

/* The counts that stand beside the events follow theirs. */
static void bright_pixels_stay_in_place(void **state)
{
    (void)state;
    dice.state = 3;
    static uint32_t expected[PIXELS], seen[PIXELS];
    struct hit_finder *finder = open_finder(FRAMES);
    draw_frame(0.0005);
    put(50, 50, 3000); /* masked: no particle, and none of its business */
    put(150, 7, 2000);
    is_masked[50 * COLUMNS + 50] = is_masked[150 * COLUMNS + 7] = 1;
    memcpy(expected, counts, sizeof expected);
    flood(expected, 100, 100);
    put(100, 100, 5000);
    const struct event_frame frame = frame_of(counts), left = hit_filter(finder, &frame);
    spread(&left, seen);
    assert_memory_equal(seen, expected, sizeof seen);
    assert_int_equal(frame.n_bright, 3);
    assert_int_equal(left.n_bright, 2);
    hit_close(finder);
}

/* The last column and the first of the next row are far apart; a masked pixel connects nothing. */
static void edges(void **state)
{
    (void)state;
    struct hit_finder *finder = open_finder(FRAMES);
    memset(counts, 0, sizeof counts);
    for (size_t i = 0; i < 60; i++) /* few of the pixels have photons: clusters are looked for */
        put(2 * (i / 10) + 100, 10 * (i % 10), 1);
    for (size_t row = 20; row < 27; row++)
        put(row, COLUMNS - 1, 1);
    for (size_t row = 21; row < 28; row++)
        put(row, 0, 1);
    for (size_t i = 0; i < 19; i++) { /* 7 and 11 are no track; 12 would be one */
        put(40, 50 + i, 1);
        put(60 + i, 200, 1);
        is_masked[40 * COLUMNS + 57] = is_masked[67 * COLUMNS + 200] = 1;
    }
    const struct event_frame frame = frame_of(counts);
    struct event_frame left = hit_filter(finder, &frame);
    assert_int_equal(left.n_events, frame.n_events);
    for (size_t row = 27; row < 36; row++) /* one column alone is a track */
        put(row, COLUMNS - 1, 1);
    const struct event_frame longer = frame_of(counts);
    left = hit_filter(finder, &longer);
    assert_int_equal(longer.n_events - left.n_events, 16);
    assert_int_equal(hit_count(finder), 1);
    hit_close(finder);
}

static void repeated_pixels_are_hot(void **state)
{
    (void)state;
    dice.state = 4;
    static uint8_t is_hot[PIXELS];
    struct hit_finder *finder = open_finder(FRAMES);
    for (int t = 0; t < HIT_REPEATS; t++) {
        memset(is_hot, 0, sizeof is_hot);
        hit_mark_hot(finder, is_hot);
        assert_null(memchr(is_hot, 1, PIXELS));
        draw_frame(0.002);
        put(33, 44, 100);
        put(90, 10 * (size_t)t + 5, 100);
        const struct event_frame frame = frame_of(counts);
        hit_filter(finder, &frame);
    }
    hit_mark_hot(finder, is_hot);
    assert_ptr_equal(memchr(is_hot, 1, PIXELS), is_hot + 33 * COLUMNS + 44);
    is_hot[33 * COLUMNS + 44] = 0;
    assert_null(memchr(is_hot, 1, PIXELS));
    is_masked[33 * COLUMNS + 44] = 1;
    hit_mark_hot(finder, is_hot);
    assert_null(memchr(is_hot, 1, PIXELS));
    hit_forget(finder);
    assert_int_equal(hit_count(finder) + hit_count_photons(finder), 0);
    hit_close(finder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(light_makes_no_hits),         cmocka_unit_test(particles_go),
        cmocka_unit_test(bright_pixels_stay_in_place), cmocka_unit_test(edges),
        cmocka_unit_test(repeated_pixels_are_hot),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
