/*
 * Goal: an intensity that differs across a bin leaves no trace in g2, while speckle that does not move stays in it; the
 * noise of few photons is no profile; dead pixels are dropped as if they had never been there; slices of the waiting
 * time add up to the whole; bins joined are their pairs together; full matrices are kept as far as the memory reaches.
 * Method: photons drawn from speckle with a known g2 under a known profile, with the parts of analysis/qmap; exact
 * comparisons with runs that were begun otherwise.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "analysis/isf.h"
#include "analysis/qmap.h"
#include "analysis/ttcf.h"
#include "sim/random.h"

#define SIDE 160
#define PIXELS (SIDE * SIDE)
#define FRAMES 400
#define MODES 4 /* of the speckle: contrast 1/4 */
#define CONTRAST (1.0 / MODES)
#define TAU_FRAMES 12.0

static struct random dice;

static double draw(void) { return random_uniform(&dice); }

static uint32_t draw_poisson(double mean)
{
    uint32_t n = 0;
    for (double product = draw(), limit = exp(-mean); product > limit; product *= draw())
        n++;
    return n;
}

/* Mean 1, variance 1 / MODES. */
static double draw_speckle(void)
{
    double sum = 0.0;
    for (int i = 0; i < MODES; i++)
        sum -= log(draw());
    return sum / MODES;
}

/*
 * Photons [FRAMES * PIXELS] of mean profile[p]. The speckle of a pixel is drawn anew after exponential times, so
 * g2 = 1 + contrast * exp(-lag / tau); never, when tau_frames is INFINITY.
 */
static uint8_t *draw_photons(const double *profile, double tau_frames)
{
    uint8_t *counts = malloc((size_t)FRAMES * PIXELS);
    double renewal = -expm1(-1.0 / tau_frames);
    for (size_t p = 0; p < PIXELS; p++) {
        double speckle = draw_speckle();
        for (size_t t = 0; t < FRAMES; t++) {
            if (draw() < renewal)
                speckle = draw_speckle();
            counts[t * PIXELS + p] = (uint8_t)draw_poisson(profile[p] * speckle);
        }
    }
    return counts;
}

/* From 1/2 to 3/2 of the mean, from row to row. */
static double *slope(double mean)
{
    double *profile = malloc(PIXELS * sizeof *profile);
    for (size_t p = 0; p < PIXELS; p++)
        profile[p] = mean * (0.5 + (double)(p / SIDE) / (SIDE - 1));
    return profile;
}

static double *flat(double mean)
{
    double *profile = malloc(PIXELS * sizeof *profile);
    for (size_t p = 0; p < PIXELS; p++)
        profile[p] = mean;
    return profile;
}

static struct ttcf_run *run_of(const uint8_t *counts, const struct ttcf_settings *settings)
{
    struct ttcf_run *run;
    const struct frame_shape shape = {
        .n_pixels = PIXELS, .pixel_bits = event_pixel_bits(PIXELS), .count_max = UINT32_MAX - 1};
    struct event_sink sink = {.events = malloc((PIXELS + EVENT_SLACK) * sizeof *sink.events),
                              .bright = malloc(PIXELS * sizeof *sink.bright)};
    struct err err = {0};
    if (ttcf_begin(&run, settings, &err))
        fail_msg("%s", err.message);
    for (size_t t = 0; t < settings->n_frames; t++) {
        sink.n_events = sink.n_bright = 0;
        for (size_t p = 0; p < PIXELS; p++)
            if (counts[t * PIXELS + p])
                event_put(&sink, &shape, p, counts[t * PIXELS + p]);
        const struct event_frame frame = event_frame_of(&sink, shape.pixel_bits);
        assert_int_equal(ttcf_add_frame(run, &frame, NULL), 0);
    }
    free(sink.events);
    free(sink.bright);
    return run;
}

/* All pixels in one bin and the profile's parts, or none when it is flat; sensitivity [PIXELS] or NULL. */
static struct ttcf correlate_with(const uint8_t *counts, bool is_flat, const float *sensitivity)
{
    static uint8_t is_masked[PIXELS], bins[PIXELS];
    const struct qmap_settings place = {
        .n_rows = SIDE, .n_columns = SIDE, .is_masked = is_masked, .n_bands = 1, .n_sectors = 1};
    struct qmap *qmap;
    struct ttcf ttcf;
    memset(bins, 1, sizeof bins);
    assert_int_equal(qmap_divide(&qmap, &place, NULL), 0);
    const struct ttcf_settings settings = {.n_frames = FRAMES,
                                           .n_pixels = PIXELS,
                                           .n_bins = 1,
                                           .bin_of_pixel = bins,
                                           .part_of_pixel = is_flat ? NULL : qmap->profile.of_pixel,
                                           .n_parts = qmap->profile.n,
                                           .sensitivity = sensitivity,
                                           .with_matrix = true};
    struct ttcf_run *run = run_of(counts, &settings);
    assert_int_equal(ttcf_result(run, 1, true, &ttcf, NULL), 0);
    ttcf_end(run);
    qmap_free(qmap);
    return ttcf;
}

static struct ttcf correlate(const uint8_t *counts, bool is_flat) { return correlate_with(counts, is_flat, NULL); }

/* g2 of the lags first to last by the ratio of sums. */
static double mean_g2(const struct ttcf *ttcf, size_t first, size_t last)
{
    double pairs = 0.0, expected = 0.0;
    for (size_t lag = first; lag <= last; lag++) {
        pairs += ttcf->pairs[lag];
        expected += ttcf->pairs_expected[lag];
    }
    return pairs / expected;
}

static void close_to(double seen, double expected, double within)
{
    if (!(fabs(seen - expected) <= within))
        fail_msg("%.9g, expected %.9g +- %.2g", seen, expected, within);
}

/* ---- the profile --------------------------------------------------------------------------------------------- */

static void gradient_leaves_the_baseline(void **state)
{
    (void)state;
    dice.state = 1;
    double *profile = slope(0.2), squares = 0.0;
    uint8_t *counts = draw_photons(profile, TAU_FRAMES);
    for (size_t p = 0; p < PIXELS; p++)
        squares += profile[p] * profile[p] / (0.04 * PIXELS);
    struct ttcf ttcf = correlate(counts, false), plain = correlate(counts, true);
    size_t first = (size_t)(8.0 * TAU_FRAMES), last = FRAMES / 2;
    close_to(mean_g2(&plain, first, last), squares, 0.05 * CONTRAST); /* 1.083: there is something to be taken out */
    close_to(mean_g2(&ttcf, first, last), 1.0, 0.05 * CONTRAST);
    for (size_t lag = 1; lag < 40; lag += 3)
        close_to(mean_g2(&ttcf, lag, lag + 2), 1.0 + CONTRAST * exp(-((double)lag + 1.0) / TAU_FRAMES), 0.01);
    assert_memory_equal(ttcf.pairs, plain.pairs, FRAMES * sizeof(double)); /* counts are counts */
    double scale = ttcf.n_pixels_effective / PIXELS;
    for (size_t lag = 1; lag < FRAMES; lag++) /* and all that is normalised is normalised alike */
        close_to(ttcf.g2_mean[lag], plain.g2_mean[lag] * scale, 1e-12);
    for (size_t i = 0; i < FRAMES * (FRAMES + 1) / 2; i += 997)
        close_to((double)ttcf.matrix[i], (double)plain.matrix[i] * scale, 1e-6);
    for (size_t i = 0; i < 5; i++)
        close_to((double)ttcf.map[1 + i], (double)plain.map[1 + i] * scale, 1e-6);
    ttcf_free(&ttcf);
    ttcf_free(&plain);
    free(profile);
    free(counts);
}

/* The jackknife sees the same baseline without each group: it would not be one fit otherwise. */
static void gradient_in_the_jackknife(void **state)
{
    (void)state;
    dice.state = 2;
    double *profile = slope(0.2);
    uint8_t *counts = draw_photons(profile, TAU_FRAMES);
    struct ttcf ttcf = correlate(counts, false);
    struct isf_fit fit;
    struct isf_curve curve;
    struct err err = {0};
    if (isf_fit(&ttcf, 1.0, &fit, &curve, &err))
        fail_msg("%s", err.message);
    close_to(fit.baseline, 1.0, 0.05 * CONTRAST);
    assert_true(fit.baseline_sigma < 0.02 * CONTRAST && fabs(fit.baseline - 1.0) < 4.0 * fit.baseline_sigma);
    close_to(fit.tau_s, 2.0 * TAU_FRAMES, 3.0); /* exp(-lag / T) is exp(-2 lag / tau) */
    close_to(fit.contrast, CONTRAST, 0.02);
    ttcf_free(&ttcf);
    free(profile);
    free(counts);
}

/* Frozen speckle is no profile: a part holds hundreds of speckles, and their mean does not know them. */
static void frozen_speckle_stays(void **state)
{
    (void)state;
    dice.state = 3;
    double *profile = slope(0.1);
    uint8_t *counts = draw_photons(profile, INFINITY);
    struct ttcf ttcf = correlate(counts, false);
    close_to(mean_g2(&ttcf, 1, FRAMES / 2), 1.0 + CONTRAST, 0.05 * CONTRAST);
    ttcf_free(&ttcf);
    free(profile);
    free(counts);
}

/* A tenth of a photon per pixel in the whole scan: the parts differ by noise alone, by 1.4 % of the profile's square.
 */
static void noise_is_no_profile(void **state)
{
    (void)state;
    dice.state = 4;
    double *profile = flat(0.1 / FRAMES), mean = 0.0;
    for (int i = 0; i < 16; i++) {
        uint8_t *counts = draw_photons(profile, 1e-3);
        struct ttcf ttcf = correlate(counts, false);
        mean += PIXELS / ttcf.n_pixels_effective / 16.0;
        ttcf_free(&ttcf);
        free(counts);
    }
    close_to(mean, 1.0, 0.003);
    free(profile);
}

/* Pixels of 0.6 to 1.4 of the mean sensitivity, on the slope: both are taken out, the speckle stays. */
static void flat_field(void **state)
{
    (void)state;
    dice.state = 10;
    double *profile = slope(0.2);
    float *sensitivity = malloc(PIXELS * sizeof *sensitivity), *scaled = malloc(PIXELS * sizeof *scaled);
    for (size_t p = 0; p < PIXELS; p++) {
        sensitivity[p] = (float)(0.6 + 0.8 * draw());
        scaled[p] = 4096.0f * sensitivity[p];
        profile[p] *= (double)sensitivity[p];
    }
    uint8_t *counts = draw_photons(profile, TAU_FRAMES);
    struct ttcf ttcf = correlate_with(counts, false, sensitivity), other = correlate_with(counts, false, scaled);
    struct ttcf without = correlate(counts, false);
    size_t first = (size_t)(8.0 * TAU_FRAMES), last = FRAMES / 2;
    close_to(mean_g2(&without, first, last), 1.0 + 0.64 / 12.0, 0.05 * CONTRAST); /* there is something to take out */
    close_to(mean_g2(&ttcf, first, last), 1.0, 0.05 * CONTRAST);
    close_to(mean_g2(&ttcf, 1, 2), 1.0 + CONTRAST * exp(-1.5 / TAU_FRAMES), 0.01);
    assert_memory_equal(ttcf.g2, other.g2, FRAMES * sizeof(double)); /* a power of two is exact */
    ttcf_free(&ttcf);
    ttcf_free(&other);
    ttcf_free(&without);
    free(profile);
    free(sensitivity);
    free(scaled);
    free(counts);
}

/* ---- dead pixels, ages, several bins ------------------------------------------------------------------------- */

static uint8_t bins_in_bands[PIXELS];
static uint16_t parts_in_bands[PIXELS];

/* Three bins of columns in four parts each, and pixels in none. */
static struct ttcf_settings settings_of_bands(size_t n_frames, int n_ages)
{
    for (size_t p = 0; p < PIXELS; p++) {
        bins_in_bands[p] = (uint8_t)(p % SIDE / 40);
        parts_in_bands[p] = (uint16_t)(bins_in_bands[p] ? 4 * (p % SIDE / 40) + p / SIDE / 40 - 3 : 0);
    }
    return (struct ttcf_settings){.n_frames = n_frames,
                                  .n_pixels = PIXELS,
                                  .n_bins = 3,
                                  .bin_of_pixel = bins_in_bands,
                                  .part_of_pixel = parts_in_bands,
                                  .n_parts = 12,
                                  .n_ages = n_ages};
}

/* From corner to corner. */
static uint8_t *draw_slope(size_t n_frames, double mean)
{
    uint8_t *counts = malloc(n_frames * PIXELS);
    for (size_t t = 0; t < n_frames; t++)
        for (size_t p = 0; p < PIXELS; p++) {
            double along = ((double)(p / SIDE) + (double)(p % SIDE)) / (2.0 * (SIDE - 1));
            counts[t * PIXELS + p] = (uint8_t)draw_poisson(mean * (0.5 + along));
        }
    return counts;
}

static size_t drop_dead(struct ttcf_run *run, uint8_t *ret_is_dead)
{
    size_t n;
    assert_int_equal(ttcf_drop_dead(run, ret_is_dead, &n, NULL), 0);
    return n;
}

static void dead_pixels(void **state)
{
    (void)state;
    dice.state = 5;
    enum { N = 60 };
    static const size_t dead[] = {50, 77, 5 * SIDE + 99, 9000 / SIDE * SIDE + 130};
    uint8_t *counts = draw_slope(N, 4.0);
    for (size_t i = 0; i < 4; i++)
        for (size_t t = 0; t < N; t++)
            counts[t * PIXELS + dead[i]] = 0;
    static uint8_t is_dead[PIXELS], without[PIXELS];
    struct ttcf_settings settings = settings_of_bands(N, 0);
    settings.with_matrix = true;
    struct ttcf_run *run = run_of(counts, &settings);
    struct ttcf before; /* a look at the result while the scan goes on must not outlive what is dropped after it */
    assert_int_equal(ttcf_result(run, 1, false, &before, NULL), 0);
    ttcf_free(&before);
    assert_int_equal(drop_dead(run, is_dead), 4);
    for (size_t i = 0; i < 4; i++)
        assert_true(is_dead[dead[i]]);
    assert_int_equal(drop_dead(run, is_dead), 0);
    memcpy(without, bins_in_bands, sizeof without);
    for (size_t i = 0; i < 4; i++)
        without[dead[i]] = 0;
    settings.bin_of_pixel = without;
    struct ttcf_run *other = run_of(counts, &settings);
    for (int b = 1; b <= 3; b++) {
        struct ttcf seen, expected;
        assert_int_equal(ttcf_result(run, b, true, &seen, NULL), 0);
        assert_int_equal(ttcf_result(other, b, true, &expected, NULL), 0);
        assert_int_equal(seen.n_pixels, expected.n_pixels);
        assert_memory_equal(seen.g2, expected.g2, N * sizeof(double));
        assert_memory_equal(seen.without, expected.without, sizeof seen.without);
        for (size_t lag = 0; lag < N; lag++)
            close_to(seen.g2_mean[lag], expected.g2_mean[lag], 1e-12);
        for (size_t i = 0; i < N * (N + 1) / 2; i++)
            close_to((double)seen.matrix[i], (double)expected.matrix[i], 1e-6);
        ttcf_free(&seen);
        ttcf_free(&expected);
    }
    ttcf_end(run);
    ttcf_end(other);
    free(counts);
}

/* At 90 photons per pixel a dark pixel may be speckle. */
static void dark_but_alive(void **state)
{
    (void)state;
    dice.state = 6;
    enum { N = 40 };
    uint8_t *counts = draw_slope(N, 1.0);
    for (size_t t = 0; t < N; t++)
        counts[t * PIXELS + 80] = 0;
    static uint8_t is_dead[PIXELS];
    struct ttcf_settings settings = settings_of_bands(N, 0);
    struct ttcf_run *run = run_of(counts, &settings);
    assert_int_equal(drop_dead(run, is_dead), 0);
    ttcf_end(run);
    free(counts);
}

/* Pairs of bin 2 in one slice of the waiting time, one lag apart, in frames or in sums of so many; and of its photons.
 */
static double dense_pairs(const uint8_t *counts, size_t unit, size_t first, size_t end, size_t lag,
                          double *ret_products)
{
    double pairs = 0.0;
    *ret_products = 0.0;
    for (size_t t = first; t + unit <= end; t += unit) {
        double photons[2] = {0.0};
        for (size_t p = 0; p < PIXELS; p++) {
            double sum[2] = {0.0};
            for (size_t k = 0; k < unit && bins_in_bands[p] == 2; k++) {
                sum[0] += counts[(t + k) * PIXELS + p];
                sum[1] += counts[(t + k + lag) * PIXELS + p];
            }
            pairs += sum[0] * sum[1];
            photons[0] += sum[0];
            photons[1] += sum[1];
        }
        *ret_products += photons[0] * photons[1];
    }
    return pairs;
}

static void ages_against_dense(void **state)
{
    (void)state;
    dice.state = 7;
    enum { N = 100, AGES = 4 };
    uint8_t *counts = draw_slope(N, 0.05);
    for (size_t per_row = 1; per_row <= 3; per_row++) {
        struct ttcf_settings settings = settings_of_bands(N, AGES);
        settings.frames_per_row = per_row;
        struct ttcf_run *run = run_of(counts, &settings);
        struct ttcf ttcf;
        assert_int_equal(ttcf_result(run, 2, true, &ttcf, NULL), 0);
        assert_int_equal(ttcf.n_ages, AGES);
        assert_int_equal(ttcf.age_first[AGES], N);
        for (size_t r = 0; r < ttcf.lags.n; r++) {
            double all = 0.0, all_expected = 0.0;
            for (int a = 0; a < AGES; a++) {
                double pairs = 0.0, products = 0.0, of_lag;
                size_t unit = ttcf.lags.first[r] < TTCF_ROWS_COARSE * per_row ? 1 : per_row;
                for (size_t lag = ttcf.lags.first[r]; lag < ttcf.lags.first[r + 1]; lag += unit) {
                    size_t n = N / unit * unit, end = ttcf.age_first[a + 1] + lag < n ? ttcf.age_first[a + 1] : n - lag;
                    pairs += dense_pairs(counts, unit, ttcf.age_first[a], end, lag, &of_lag);
                    products += of_lag;
                }
                assert_true(ttcf.age[a][r].pairs == pairs);
                close_to(ttcf.age[a][r].pairs_expected, products / ttcf.n_pixels_effective, 1e-9 * products);
                all += pairs;
                all_expected += ttcf.age[a][r].pairs_expected;
            }
            assert_true(all == ttcf.range[r].pairs);
            close_to(all_expected, ttcf.range[r].pairs_expected, 1e-9 * all_expected);
        }
        ttcf_free(&ttcf);
        ttcf_end(run);
    }
    free(counts);
}

static void joined_bins(void **state)
{
    (void)state;
    dice.state = 8;
    enum { N = 60 };
    uint8_t *counts = draw_slope(N, 0.1);
    const struct ttcf_settings settings = settings_of_bands(N, 2);
    struct ttcf_run *run = run_of(counts, &settings);
    struct ttcf bins[3], joined, single;
    for (int b = 0; b < 3; b++)
        assert_int_equal(ttcf_result(run, b + 1, true, &bins[b], NULL), 0);
    assert_int_equal(ttcf_join(bins, 3, &joined, NULL), 0);
    assert_int_equal(ttcf_join(bins, 1, &single, NULL), 0);
    assert_memory_equal(single.g2, bins[0].g2, N * sizeof(double));
    assert_memory_equal(single.without, bins[0].without, sizeof single.without);
    assert_int_equal(joined.n_pixels, 3 * 40 * SIDE);
    assert_int_equal(joined.n_photons, bins[0].n_photons + bins[1].n_photons + bins[2].n_photons);
    for (size_t lag = 0; lag < N; lag++) {
        assert_true(joined.pairs[lag] == bins[0].pairs[lag] + bins[1].pairs[lag] + bins[2].pairs[lag]);
        double expected = bins[0].pairs_expected[lag] + bins[1].pairs_expected[lag] + bins[2].pairs_expected[lag];
        close_to(joined.g2[lag], joined.pairs[lag] / expected, 1e-12);
        close_to(single.g2_mean[lag], bins[0].g2_mean[lag], 1e-12);
    }
    close_to(mean_g2(&joined, 1, N - 1), 1.0, 0.005); /* though their intensities are 0.62 to 1.12 of the mean */
    ttcf_free(&joined);
    ttcf_free(&single);
    for (int b = 0; b < 3; b++)
        ttcf_free(&bins[b]);
    ttcf_end(run);
    free(counts);
}

static void matrices_within_memory(void **state)
{
    (void)state;
    dice.state = 9;
    enum { N = 40 };
    uint8_t *counts = draw_slope(N, 0.1);
    struct ttcf_settings settings = settings_of_bands(N, 0);
    settings.with_matrix = true;
    for (size_t n_fit = 0; n_fit <= 4; n_fit++) {
        settings.matrix_bytes_max = n_fit < 4 ? n_fit * ttcf_matrix_bytes(N) + 100 : 0;
        struct ttcf_run *run = run_of(counts, &settings);
        for (int b = 1; b <= 3; b++) {
            struct ttcf ttcf;
            assert_int_equal(ttcf_result(run, b, true, &ttcf, NULL), 0);
            assert_int_equal(ttcf.matrix != NULL, (size_t)b <= n_fit);
            ttcf_free(&ttcf);
        }
        ttcf_end(run);
    }
    free(counts);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gradient_leaves_the_baseline),
        cmocka_unit_test(gradient_in_the_jackknife),
        cmocka_unit_test(frozen_speckle_stays),
        cmocka_unit_test(noise_is_no_profile),
        cmocka_unit_test(flat_field),
        cmocka_unit_test(dead_pixels),
        cmocka_unit_test(dark_but_alive),
        cmocka_unit_test(ages_against_dense),
        cmocka_unit_test(joined_bins),
        cmocka_unit_test(matrices_within_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
