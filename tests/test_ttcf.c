/*
 * Goal: C(t1, t2), g2 and the jackknife's g2 are those of their definitions, exactly where the counts are whole
 * numbers. Method: a three-frame example worked out by hand; random counts against a dense computation straight from
 * the definitions, in one bin and in several, with pixels of more photons than a line of the cache holds; properties
 * (pixels exchanged, counts doubled, frames without photons); and the hot pixels' rule.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "analysis/ttcf.h"
#include "sim/random.h"

static struct random dice;

static uint32_t draw(uint32_t below) { return (uint32_t)(random_bits(&dice) >> 32) % below; }

/* counts [n_frames * n_pixels] */
static void add_frames(struct ttcf_run *run, const uint32_t *counts, size_t n_frames, size_t n_pixels)
{
    const struct frame_shape shape = {
        .n_pixels = n_pixels, .pixel_bits = event_pixel_bits(n_pixels), .count_max = UINT32_MAX - 1};
    struct event_sink sink = {.events = malloc((n_pixels + EVENT_SLACK) * sizeof *sink.events),
                              .bright = malloc(n_pixels * sizeof *sink.bright)};
    for (size_t t = 0; t < n_frames; t++) {
        sink.n_events = sink.n_bright = 0;
        for (size_t p = 0; p < n_pixels; p++)
            if (counts[t * n_pixels + p])
                event_put(&sink, &shape, p, counts[t * n_pixels + p]);
        const struct event_frame frame = event_frame_of(&sink, shape.pixel_bits);
        assert_int_equal(ttcf_add_frame(run, &frame, NULL), 0);
    }
    free(sink.events);
    free(sink.bright);
}

/* bins [n_pixels] */
static struct ttcf_run *run_of(const uint32_t *counts, size_t n_frames, size_t n_pixels, const uint8_t *bins,
                               int n_bins)
{
    struct ttcf_run *run;
    const struct ttcf_settings settings = {
        .n_frames = n_frames, .n_pixels = n_pixels, .n_bins = n_bins, .bin_of_pixel = bins, .with_matrix = true};
    assert_int_equal(ttcf_begin(&run, &settings, NULL), 0);
    add_frames(run, counts, n_frames, n_pixels);
    return run;
}

static struct ttcf_run *run_of_all(const uint32_t *counts, size_t n_frames, size_t n_pixels)
{
    uint8_t *bins = malloc(n_pixels);
    memset(bins, 1, n_pixels);
    struct ttcf_run *run = run_of(counts, n_frames, n_pixels, bins, 1);
    free(bins);
    return run;
}

static struct ttcf correlate(const uint32_t *counts, size_t n_frames, size_t n_pixels)
{
    struct ttcf ttcf;
    struct ttcf_run *run = run_of_all(counts, n_frames, n_pixels);
    assert_int_equal(ttcf_result(run, 1, true, &ttcf, NULL), 0);
    ttcf_end(run);
    return ttcf;
}

/* C(t1, t2), t1 <= t2 */
static double c_at(const struct ttcf *ttcf, size_t t1, size_t t2)
{
    return (double)ttcf->matrix[t2 * (t2 + 1) / 2 + t1];
}

static void close_to(double seen, double expected, double relative)
{
    if (isnan(expected) ? !isnan(seen) : !(fabs(seen - expected) <= relative * fabs(expected)))
        fail_msg("%.12g, expected %.12g", seen, expected);
}

static uint32_t *draw_counts(size_t n, uint32_t percent)
{
    uint32_t *counts = calloc(n, sizeof *counts);
    for (size_t i = 0; i < n; i++)
        counts[i] = draw(100) < percent ? 1 + draw(3) : 0;
    return counts;
}

/* ---- the dense computation ----------------------------------------------------------------------------------- */

static double products(const uint32_t *counts, size_t n_pixels, size_t t1, size_t t2, int without)
{
    double sum = 0.0;
    for (size_t p = 0; p < n_pixels; p++)
        if ((int)(p / TTCF_GROUP_PIXELS % TTCF_GROUPS) != without)
            sum += (double)counts[t1 * n_pixels + p] * counts[t2 * n_pixels + p];
    return sum;
}

static double photons(const uint32_t *counts, size_t n_pixels, size_t t, int without)
{
    double sum = 0.0;
    for (size_t p = 0; p < n_pixels; p++)
        if ((int)(p / TTCF_GROUP_PIXELS % TTCF_GROUPS) != without)
            sum += counts[t * n_pixels + p];
    return sum;
}

static double dense_c(const uint32_t *counts, size_t n_pixels, size_t t1, size_t t2)
{
    double expected = photons(counts, n_pixels, t1, -1) * photons(counts, n_pixels, t2, -1);
    return expected > 0.0 ? products(counts, n_pixels, t1, t2, -1) * (double)n_pixels / expected : NAN;
}

/* Numerator and denominator of g2 by the ratio of sums, of all pixels or without one group. */
static void dense_g2(const uint32_t *counts, size_t n_frames, size_t n_pixels, size_t lag, int without,
                     double *ret_pairs, double *ret_expected)
{
    size_t n = 0;
    *ret_pairs = *ret_expected = 0.0;
    for (size_t p = 0; p < n_pixels; p++)
        n += (int)(p / TTCF_GROUP_PIXELS % TTCF_GROUPS) != without;
    for (size_t t = 0; n > 0 && t + lag < n_frames; t++) {
        *ret_pairs += products(counts, n_pixels, t, t + lag, without);
        *ret_expected +=
            photons(counts, n_pixels, t, without) * photons(counts, n_pixels, t + lag, without) / (double)n;
    }
}

static void check_dense_ranges(const struct ttcf *ttcf, const uint32_t *counts, size_t n_frames, size_t n_pixels)
{
    for (size_t r = 0; r < ttcf->lags.n; r++)
        for (int g = 0; g < TTCF_GROUPS; g++) {
            double pairs = 0.0, expected = 0.0, of_lag, expected_of_lag;
            for (size_t lag = ttcf->lags.first[r]; lag < ttcf->lags.first[r + 1]; lag++) {
                dense_g2(counts, n_frames, n_pixels, lag, g, &of_lag, &expected_of_lag);
                pairs += of_lag;
                expected += expected_of_lag;
            }
            assert_true(ttcf->without[g][r].pairs == pairs);
            close_to(ttcf->without[g][r].pairs_expected, expected, 1e-12);
        }
    assert_int_equal(ttcf->lags.first[0], 1);
    assert_int_equal(ttcf->lags.first[ttcf->lags.n], n_frames);
}

static void check_dense_result(const struct ttcf *ttcf, const uint32_t *counts, size_t n_frames, size_t n_pixels)
{
    for (size_t t1 = 0; t1 < n_frames; t1++)
        for (size_t t2 = t1; t2 < n_frames; t2++)
            close_to(c_at(ttcf, t1, t2), dense_c(counts, n_pixels, t1, t2), 1e-7);
    for (size_t lag = 0; lag < n_frames; lag++) {
        double sum = 0.0, pairs, expected;
        int n = 0;
        for (size_t t = 0; t + lag < n_frames; t++) {
            double value = dense_c(counts, n_pixels, t, t + lag);
            sum += isnan(value) ? 0.0 : value;
            n += isnan(value) ? 0 : 1;
        }
        close_to(ttcf->g2_mean[lag], n ? sum / n : NAN, 1e-12);
        dense_g2(counts, n_frames, n_pixels, lag, -1, &pairs, &expected);
        assert_true(ttcf->pairs[lag] == pairs);
        close_to(ttcf->g2[lag], expected > 0.0 ? pairs / expected : NAN, 1e-12);
    }
}

static void check_dense(const uint32_t *counts, size_t n_frames, size_t n_pixels)
{
    struct ttcf ttcf = correlate(counts, n_frames, n_pixels);
    check_dense_result(&ttcf, counts, n_frames, n_pixels);
    check_dense_ranges(&ttcf, counts, n_frames, n_pixels);
    ttcf_free(&ttcf);
}

/* ---- tests --------------------------------------------------------------------------------------------------- */

/* Four pixels: frames 2 0 1 0, 1 1 0 0, 0 0 3 1. Sums 3, 2, 4. */
static void known_answer(void **state)
{
    (void)state;
    static const uint32_t counts[] = {2, 0, 1, 0, 1, 1, 0, 0, 0, 0, 3, 1};
    static const double expected[3][3] = {
        {5 / 4. / (3 / 4. * 3 / 4.), 2 / 4. / (3 / 4. * 2 / 4.), 3 / 4. / (3 / 4. * 4 / 4.)}, /* t1 = 0 */
        {0, 2 / 4. / (2 / 4. * 2 / 4.), 0},
        {0, 0, 10 / 4. / (4 / 4. * 4 / 4.)}};
    struct ttcf ttcf = correlate(counts, 3, 4);
    assert_int_equal(ttcf.n_photons, 9);
    for (size_t t1 = 0; t1 < 3; t1++)
        for (size_t t2 = t1; t2 < 3; t2++)
            close_to(c_at(&ttcf, t1, t2), expected[t1][t2], 1e-7);
    close_to(ttcf.g2[1], (2 + 0) / (3 * 2 / 4. + 2 * 4 / 4.), 1e-15);
    close_to(ttcf.g2_mean[1], (2 / 4. / (3 / 4. * 2 / 4.) + 0) / 2, 1e-15);
    close_to(ttcf.pairs_expected[1], 3 * 2 / 4. + 2 * 4 / 4., 1e-15);
    close_to(ttcf.g2[2], 3 / (3 * 4 / 4.), 1e-15);
    assert_int_equal(ttcf.map_binning, 1);
    for (int i = 0; i < 3; i++)
        for (int j = 0; j < 3; j++)
            close_to((double)ttcf.map[3 * i + j], expected[i][j], 1e-7);
    ttcf_free(&ttcf);
}

static void against_dense(void **state)
{
    (void)state;
    dice.state = 11;
    static const struct {
        size_t n_frames, n_pixels;
        uint32_t percent;
    } cases[] = {{2, 1100, 3}, {17, 1500, 2}, {40, 2000, 1}, {9, 1, 60}, {30, 1024, 40}, {60, 200, 90}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        uint32_t *counts = draw_counts(cases[i].n_frames * cases[i].n_pixels, cases[i].percent);
        check_dense(counts, cases[i].n_frames, cases[i].n_pixels);
        free(counts);
    }
}

static void empty_frames(void **state)
{
    (void)state;
    dice.state = 12;
    uint32_t *counts = draw_counts(12 * 1100, 5);
    memset(counts, 0, 1100 * sizeof *counts);
    memset(counts + 7 * 1100, 0, 2 * 1100 * sizeof *counts);
    check_dense(counts, 12, 1100);
    struct ttcf ttcf = correlate(counts, 12, 1100);
    assert_int_equal(ttcf.n_empty_rows, 3);
    assert_true(isnan(ttcf.map[5]) && isnan(ttcf.map[3 * 12 + 7]) && !isnan(ttcf.map[3 * 12 + 6]));
    ttcf_free(&ttcf);
    free(counts);
}

static void exchanged_and_doubled(void **state)
{
    (void)state;
    dice.state = 13;
    enum { N = 25, P = 900 };
    uint32_t *counts = draw_counts(N * P, 10), *other = malloc(N * P * sizeof *other);
    struct ttcf first = correlate(counts, N, P);
    for (int t = 0; t < N; t++)
        for (int p = 0; p < P; p++)
            other[t * P + p] = 2 * counts[t * P + (p * 7 + 5) % P]; /* 7 and 900 share no factor */
    struct ttcf second = correlate(other, N, P);
    assert_int_equal(second.n_photons, 2 * first.n_photons);
    assert_memory_equal(first.matrix, second.matrix, N * (N + 1) / 2 * sizeof(float)); /* a power of two is exact */
    assert_memory_equal(first.g2, second.g2, N * sizeof(double));
    close_to(second.pairs_expected[3], 4 * first.pairs_expected[3], 1e-15);
    ttcf_free(&first);
    ttcf_free(&second);
    free(counts);
    free(other);
}

/* 2500 frames: three per line, one left over. */
static void binned_map(void **state)
{
    (void)state;
    dice.state = 14;
    enum { N = 2500, P = 40 };
    uint32_t *counts = draw_counts(N * P, 10);
    struct ttcf ttcf = correlate(counts, N, P);
    assert_int_equal(ttcf.map_binning, 3);
    assert_int_equal(ttcf.map_n, 833);
    static const size_t cells[][2] = {{0, 0}, {0, 832}, {832, 832}, {100, 101}, {7, 500}};
    for (size_t i = 0; i < sizeof cells / sizeof cells[0]; i++) {
        double sum = 0.0;
        int n = 0;
        for (size_t t1 = 3 * cells[i][0]; t1 < 3 * cells[i][0] + 3; t1++)
            for (size_t t2 = 3 * cells[i][1]; t2 < 3 * cells[i][1] + 3; t2++) {
                double c = t2 > t1 ? dense_c(counts, P, t1, t2) : NAN; /* above the diagonal: no shot noise */
                sum += isnan(c) ? 0.0 : c;
                n += isnan(c) ? 0 : 1;
            }
        close_to((double)ttcf.map[cells[i][0] * 833 + cells[i][1]], sum / n, 1e-6);
    }
    assert_true(ttcf.map[833] == 0.0f);
    ttcf_free(&ttcf);
    free(counts);
}

static void hot_pixels(void **state)
{
    (void)state;
    dice.state = 15;
    enum { N = 30, P = 1000 };
    uint32_t *counts = draw_counts(N * P, 10), *rest = malloc(N * (P - 2) * sizeof *rest);
    for (size_t t = 0; t < N; t++) { /* one mad, one that shows only when the mad one is gone */
        counts[t * P + 400] = UINT32_MAX / 2;
        counts[t * P + 17] = 30;
        for (size_t p = 0, n = 0; p < P; p++)
            if (p != 400 && p != 17)
                rest[t * (P - 2) + n++] = counts[t * P + p];
    }
    struct ttcf ttcf, expected = correlate(rest, N, P - 2);
    struct ttcf_run *run = run_of_all(counts, N, P);
    uint8_t is_hot[P], bins[P];
    assert_int_equal(ttcf_find_hot(run, is_hot), 2);
    assert_true(is_hot[17] && is_hot[400]);
    ttcf_end(run);
    for (size_t p = 0; p < P; p++)
        bins[p] = !is_hot[p];
    run = run_of(counts, N, P, bins, 1);
    assert_int_equal(ttcf_find_hot(run, is_hot), 0);
    const uint32_t *photons_of_pixel = ttcf_photons(run);
    assert_int_equal(photons_of_pixel[17], 0);
    for (size_t t = 0, sum = 0; t < N; t++) {
        sum += counts[t * P + 18];
        assert_true(t + 1 < N || sum == photons_of_pixel[18]);
    }
    assert_int_equal(ttcf_result(run, 1, true, &ttcf, NULL), 0);
    ttcf_end(run);
    assert_int_equal(ttcf.n_pixels, P - 2);
    assert_memory_equal(ttcf.matrix, expected.matrix, N * (N + 1) / 2 * sizeof(float));
    assert_memory_equal(ttcf.g2, expected.g2, N * sizeof(double));
    ttcf_free(&ttcf);
    ttcf_free(&expected);
    free(counts);
    free(rest);
}

/* Photons by pixel, and by bin and tenth of the scan, of pixels with many photons; pixels in no bin have none. */
static void photons_by_pixel_and_segment(void **state)
{
    (void)state;
    dice.state = 18;
    enum { N = 143, P = 300, BINS = 3 };
    uint8_t bins[P];
    for (size_t p = 0; p < P; p++)
        bins[p] = (uint8_t)draw(BINS + 1);
    uint32_t *counts = draw_counts(N * P, 40);
    for (size_t per_row = 1; per_row <= 3; per_row += 2) {
        const struct ttcf_settings settings = {
            .n_frames = N, .frames_per_row = per_row, .n_pixels = P, .n_bins = BINS, .bin_of_pixel = bins};
        size_t n_rows = (N + per_row - 1) / per_row;
        uint64_t seen[TTCF_SEGMENTS * BINS], expected[TTCF_SEGMENTS * BINS] = {0};
        uint32_t of_pixel[P] = {0};
        for (size_t i = 0; i < N * P; i++)
            if (bins[i % P]) {
                of_pixel[i % P] += counts[i];
                expected[i / P / per_row * TTCF_SEGMENTS / n_rows * BINS + bins[i % P] - 1] += counts[i];
            }
        struct ttcf_run *run;
        assert_int_equal(ttcf_begin(&run, &settings, NULL), 0);
        add_frames(run, counts, N, P);
        ttcf_count_segments(run, seen);
        assert_memory_equal(ttcf_photons(run), of_pixel, sizeof of_pixel);
        assert_memory_equal(seen, expected, sizeof seen);
        ttcf_end(run);
    }
    free(counts);
}

/* Three bins and pixels in none, each bin like the scan of its pixels alone; before the last frame and after it. */
static void several_bins(void **state)
{
    (void)state;
    dice.state = 16;
    enum { N = 40, P = 700, BINS = 3 };
    uint32_t *counts = draw_counts(N * P, 20), *own = malloc(N * P * sizeof *own);
    uint8_t bins[P];
    for (size_t p = 0; p < P; p++)
        bins[p] = (uint8_t)draw(BINS + 1);
    struct ttcf_run *run = run_of(counts, N, P, bins, BINS);
    for (int b = 1; b <= BINS; b++) {
        size_t n_own = 0;
        for (size_t p = 0; p < P; p++)
            n_own += bins[p] == b;
        for (size_t t = 0; t < N; t++)
            for (size_t p = 0, k = 0; p < P; p++)
                if (bins[p] == b)
                    own[t * n_own + k++] = counts[t * P + p];
        struct ttcf before, ttcf;
        assert_int_equal(ttcf_result(run, b, false, &before, NULL), 0);
        assert_int_equal(ttcf_result(run, b, true, &ttcf, NULL), 0);
        assert_int_equal(ttcf.n_pixels, n_own);
        assert_null(before.matrix);
        assert_memory_equal(before.g2, ttcf.g2, N * sizeof(double));
        check_dense_result(&ttcf, own, N, n_own);
        ttcf_free(&before);
        ttcf_free(&ttcf);
    }
    ttcf_end(run);
    free(counts);
    free(own);
}

/* ---- rows of several frames ---------------------------------------------------------------------------------- */

static bool is_same(struct ttcf_range seen, struct ttcf_range expected)
{
    return seen.pairs == expected.pairs &&
           fabs(seen.pairs_expected - expected.pairs_expected) <= 1e-12 * expected.pairs_expected;
}

/* What rows tell is what the sums of their frames tell, as if they had been the frames. */
static void check_rows(const struct ttcf *seen, const struct ttcf *summed, size_t n_short)
{
    size_t n = summed->n_rows, per_row = seen->frames_per_row, shift = summed->lags.n + n_short - seen->lags.n;
    assert_int_equal(seen->n_rows, n);
    assert_int_equal(seen->n_empty_rows, summed->n_empty_rows);
    assert_int_equal(seen->map_n, summed->map_n);
    assert_memory_equal(seen->photons_per_row, summed->photons_per_row, n * sizeof(double));
    assert_memory_equal(seen->pairs, summed->pairs, n * sizeof(double));
    assert_memory_equal(seen->g2, summed->g2, n * sizeof(double));
    assert_memory_equal(seen->g2_mean, summed->g2_mean, n * sizeof(double));
    assert_memory_equal(seen->map, summed->map, seen->map_n * seen->map_n * sizeof(float));
    if (seen->matrix)
        assert_memory_equal(seen->matrix, summed->matrix, n * (n + 1) / 2 * sizeof(float));
    for (size_t r = n_short; r < seen->lags.n; r++) {
        assert_int_equal(seen->lags.first[r], per_row * summed->lags.first[r - n_short + shift]);
        assert_true(is_same(seen->range[r], summed->range[r - n_short + shift]));
        close_to(seen->range[r].lag, (double)per_row * summed->range[r - n_short + shift].lag, 1e-12);
        for (int g = 0; g < TTCF_GROUPS; g++)
            assert_true(is_same(seen->without[g][r], summed->without[g][r - n_short + shift]));
    }
}

/* What they cannot tell is what the frames tell. */
static void check_short_lags(const struct ttcf *seen, const struct ttcf *frames, size_t n_short)
{
    for (size_t r = 0; r < n_short; r++) {
        struct ttcf_range expected = {0};
        for (size_t lag = seen->lags.first[r]; lag < seen->lags.first[r + 1]; lag++) {
            expected.pairs += frames->pairs[lag];
            expected.pairs_expected += frames->pairs_expected[lag];
            expected.lag += frames->pairs_expected[lag] * (double)lag;
        }
        assert_true(is_same(seen->range[r], expected));
        close_to(seen->range[r].lag, expected.lag / expected.pairs_expected, 1e-12);
        for (int g = 0; g < TTCF_GROUPS && seen->lags.first[r + 1] == frames->lags.first[r + 1]; g++)
            assert_true(is_same(seen->without[g][r], frames->without[g][r]));
    }
}

/* One scan in rows of several frames, looked at in the middle of a row and after the last frame, which leaves a row
 * unfinished. */
static void rows_of_frames(void **state)
{
    (void)state;
    enum { N = 137, PIXELS = 2500, BINS = 2 };
    static uint8_t bins[PIXELS];
    static uint32_t summed[N * PIXELS];
    for (size_t per_row = 2; per_row <= 7; per_row++) {
        uint32_t *counts = draw_counts(N * PIXELS, 3);
        memset(counts + 20 * PIXELS, 0, 2 * per_row * PIXELS * sizeof *counts); /* an empty row */
        memset(summed, 0, sizeof summed);
        for (size_t p = 0; p < PIXELS; p++)
            bins[p] = (uint8_t)draw(BINS + 1);
        for (size_t i = 0; i < N / per_row * per_row * PIXELS; i++)
            summed[i / PIXELS / per_row * PIXELS + i % PIXELS] += counts[i];
        const struct ttcf_settings settings = {.n_frames = N,
                                               .frames_per_row = per_row,
                                               .n_pixels = PIXELS,
                                               .n_bins = BINS,
                                               .bin_of_pixel = bins,
                                               .with_matrix = true};
        struct ttcf_run *run;
        assert_int_equal(ttcf_begin(&run, &settings, NULL), 0);
        for (size_t part = 0, n = 0; part < 2; part++) {
            size_t n_next = part ? N : 111;
            add_frames(run, counts + n * PIXELS, n_next - n, PIXELS);
            n = n_next;
            struct ttcf_run *of_frames = run_of(counts, n, PIXELS, bins, BINS);
            struct ttcf_run *of_sums = run_of(summed, n / per_row, PIXELS, bins, BINS);
            for (int b = 1; b <= BINS; b++) {
                struct ttcf seen, frames, sums;
                size_t n_short = 0;
                assert_int_equal(ttcf_result(run, b, n == N, &seen, NULL), 0);
                assert_int_equal(ttcf_result(of_frames, b, true, &frames, NULL), 0);
                assert_int_equal(ttcf_result(of_sums, b, true, &sums, NULL), 0);
                while (n_short < seen.lags.n && seen.lags.first[n_short] < TTCF_ROWS_COARSE * per_row)
                    n_short++;
                assert_int_equal(seen.n_frames, n);
                assert_int_equal(seen.n_photons, frames.n_photons);
                assert_int_equal(seen.lags.first[seen.lags.n], n_short < seen.lags.n ? n / per_row * per_row : n);
                check_short_lags(&seen, &frames, n_short);
                check_rows(&seen, &sums, n_short);
                ttcf_free(&seen);
                ttcf_free(&frames);
                ttcf_free(&sums);
            }
            ttcf_end(of_frames);
            ttcf_end(of_sums);
        }
        ttcf_end(run);
        free(counts);
    }
}

static void refusals(void **state)
{
    (void)state;
    struct err err = {0};
    struct ttcf ttcf;
    uint8_t bins[4] = {1, 1, 1, 1}, nothing[4] = {0};
    struct ttcf_settings settings = {.n_frames = 1, .n_pixels = 4, .n_bins = 1, .bin_of_pixel = bins};
    struct ttcf_run *run;
    assert_int_equal(ttcf_begin(&run, &settings, &err), ERR_ARG);
    settings.n_frames = TTCF_FRAMES_MAX + 1;
    assert_int_equal(ttcf_begin(&run, &settings, &err), ERR_ARG);
    settings.n_frames = 10;
    settings.bin_of_pixel = nothing;
    assert_int_equal(ttcf_begin(&run, &settings, &err), ERR_ARG);
    assert_non_null(strstr(err.message, "check the mask"));

    uint32_t counts[2 * 4] = {0};
    const struct event_frame empty = {.pixel_bits = 2};
    run = run_of(counts, 2, 4, bins, 1);
    assert_int_equal(ttcf_result(run, 1, true, &ttcf, &err), ERR_DATA);
    assert_non_null(strstr(err.message, "no photons"));
    assert_int_equal(ttcf_add_frame(run, &empty, &err), ERR_LIMIT);
    assert_non_null(strstr(err.message, "more frames"));
    ttcf_end(run);

    counts[4] = 3;
    for (int i = 5; i < 8; i++) /* no pixel is hot beside the others */
        counts[i] = 40000;
    run = run_of(counts, 2, 4, bins, 1);
    assert_int_equal(ttcf_result(run, 1, true, &ttcf, &err), ERR_LIMIT);
    assert_non_null(strstr(err.message, "3 of 4 pixels"));
    ttcf_end(run);
}

/* A frame whose pair counts could pass 32 bits: 200^2 in each of 200 000 pixels. */
static void too_bright(void **state)
{
    (void)state;
    enum { P = 200000 };
    struct err err = {0};
    struct ttcf_run *run;
    uint8_t *bins = malloc(P);
    uint32_t *events = malloc(P * sizeof *events);
    const struct event_frame frame = {.events = events, .n_events = P, .pixel_bits = event_pixel_bits(P)};
    const struct ttcf_settings settings = {.n_frames = 2, .n_pixels = P, .n_bins = 1, .bin_of_pixel = bins};
    memset(bins, 1, P);
    for (uint32_t p = 0; p < P; p++)
        events[p] = p | UINT32_C(199) << frame.pixel_bits;
    assert_int_equal(ttcf_begin(&run, &settings, NULL), 0);
    assert_int_equal(ttcf_add_frame(run, &frame, &err), ERR_LIMIT);
    assert_non_null(strstr(err.message, "frame 1"));
    ttcf_end(run);
    free(bins);
    free(events);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_answer),
        cmocka_unit_test(against_dense),
        cmocka_unit_test(empty_frames),
        cmocka_unit_test(exchanged_and_doubled),
        cmocka_unit_test(binned_map),
        cmocka_unit_test(hot_pixels),
        cmocka_unit_test(photons_by_pixel_and_segment),
        cmocka_unit_test(several_bins),
        cmocka_unit_test(rows_of_frames),
        cmocka_unit_test(refusals),
        cmocka_unit_test(too_bright),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
