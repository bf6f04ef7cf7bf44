/*
 * Goal: tau, beta, contrast and base line come back from photons with honest uncertainties, and what holds no decay is
 * refused with its reason.
 * Method: an exact curve must be fitted exactly. Then simulated speckle (sim/speckle, whose truth is known) from
 * photons to fit: several seeds at several tau; each within the task's tolerances (15 %, 0.2), and the deviations over
 * their sigmas must look like pulls: over 15 fits their mean square is 1 +- 0.4 (3 sigma: 0.3 to 2.5; the jackknife's
 * own noise with 16 groups adds some). Then too few photons, no dynamics, and a decay much faster or slower than the
 * scan.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "analysis/isf.h"
#include "sim/speckle.h"

#define FRAME_TIME_S 0.1

static struct ttcf draw_scan(int side, size_t n_frames, double tau_s, double beta, double photons_per_pixel,
                             double amplitude, uint64_t seed, struct isf_fit *ret_truth)
{
    struct speckle_settings settings = {
        .width = side, .height = side, .photons_per_pixel = photons_per_pixel, .amplitude = amplitude, .seed = seed};
    struct speckle *speckle;
    struct ttcf_run *run;
    struct ttcf ttcf;
    const size_t n_pixels = (size_t)(side * side);
    uint8_t *bins = malloc(n_pixels);
    memset(bins, 1, n_pixels);
    assert_int_equal(speckle_open(&speckle, &settings, NULL), 0);
    speckle_start_scan(speckle, beta, 1);
    const struct ttcf_settings run_settings = {
        .n_frames = n_frames, .n_pixels = n_pixels, .n_bins = 1, .bin_of_pixel = bins};
    assert_int_equal(ttcf_begin(&run, &run_settings, NULL), 0);
    int n_max = speckle_events_max(speckle);
    const struct frame_shape shape = {
        .n_pixels = n_pixels, .pixel_bits = event_pixel_bits(n_pixels), .count_max = UINT32_MAX - 1};
    struct speckle_event *drawn = malloc((size_t)n_max * sizeof *drawn);
    struct event_sink sink = {.events = malloc((n_pixels + EVENT_SLACK) * sizeof *sink.events),
                              .bright = malloc(n_pixels * sizeof *sink.bright)};
    for (size_t t = 0; t < n_frames; t++) {
        int n = speckle_draw_frame(speckle, (double)t * FRAME_TIME_S / tau_s, 1.0, drawn, n_max);
        sink.n_events = sink.n_bright = 0;
        for (int i = 0; i < n; i++)
            event_put(&sink, &shape, drawn[i].pixel, drawn[i].count);
        const struct event_frame frame = event_frame_of(&sink, shape.pixel_bits);
        assert_int_equal(ttcf_add_frame(run, &frame, NULL), 0);
    }
    assert_int_equal(ttcf_result(run, 1, true, &ttcf, NULL), 0);
    ttcf_end(run);
    *ret_truth = (struct isf_fit){.tau_s = tau_s,
                                  .beta = beta,
                                  .contrast = speckle_contrast(speckle),
                                  .baseline = 1.0 + speckle_baseline(speckle)};
    speckle_close(speckle);
    free(drawn);
    free(sink.events);
    free(sink.bright);
    free(bins);
    return ttcf;
}

/* The ranges of lags, and what every group has left of them, from the pairs of every lag. */
static void fill_ranges(struct ttcf *ttcf, double contrast_even, double contrast_odd)
{
    for (size_t r = 0; r < ttcf->lags.n; r++) {
        struct ttcf_range range = {0};
        for (size_t lag = ttcf->lags.first[r]; lag < ttcf->lags.first[r + 1]; lag++) {
            range.pairs_expected += ttcf->pairs_expected[lag];
            range.pairs += ttcf->pairs[lag];
            range.lag += ttcf->pairs_expected[lag] * (double)lag;
        }
        range.lag /= range.pairs_expected;
        ttcf->range[r] = range;
        for (int g = 0; g < TTCF_GROUPS; g++) {
            double factor = g % 2 ? contrast_odd : contrast_even;
            ttcf->without[g][r].pairs = range.pairs_expected + factor * (range.pairs - range.pairs_expected);
            ttcf->without[g][r].pairs_expected = range.pairs_expected;
        }
    }
}

/* A ttcf whose g2 is the model itself, in every group. */
static struct ttcf exact_ttcf(const struct isf_fit *truth, size_t n_frames)
{
    struct ttcf ttcf = {.n_frames = n_frames, .frames_per_row = 1, .n_rows = n_frames};
    ttcf.g2 = calloc(n_frames, sizeof(double));
    ttcf.pairs = calloc(n_frames, sizeof(double));
    ttcf.pairs_expected = calloc(n_frames, sizeof(double));
    for (size_t lag = 1; lag < n_frames; lag++) {
        ttcf.g2[lag] = isf_model(truth, (double)lag * FRAME_TIME_S);
        ttcf.pairs_expected[lag] = 1e4 * (double)(n_frames - lag);
        ttcf.pairs[lag] = ttcf.g2[lag] * ttcf.pairs_expected[lag];
    }
    ttcf_lags_init(&ttcf.lags, n_frames);
    fill_ranges(&ttcf, 1.0, 1.0);
    return ttcf;
}

static void exact_curve(void **state)
{
    (void)state;
    static const struct isf_fit truths[] = {
        {.tau_s = 95, .beta = 1.7, .contrast = 0.08, .baseline = 1.004},
        {.tau_s = 5, .beta = 0.7, .contrast = 0.3, .baseline = 1},
        {.tau_s = 38, .beta = 2, .contrast = 0.01, .baseline = 0.999},
        {.tau_s = 180, .beta = 1.4, .contrast = 0.08, .baseline = 1.05},
        {.tau_s = 571, .beta = 1.6, .contrast = 0.08, .baseline = 1.05},
    };
    for (size_t i = 0; i < sizeof truths / sizeof truths[0]; i++) {
        struct ttcf ttcf = exact_ttcf(&truths[i], 6000);
        struct isf_fit fit;
        struct isf_curve curve;
        struct err err = {0};
        int code = isf_fit(&ttcf, FRAME_TIME_S, &fit, &curve, &err);
        if (code)
            fail_msg("%s", err.message);
        /* Not 1e-9: a bin's g2 is a mean over lags, the model is taken at the mean lag. */
        assert_true(fabs(fit.tau_s / truths[i].tau_s - 1) < 2e-3);
        assert_true(fabs(fit.beta - truths[i].beta) < 3e-3);
        assert_true(fabs(fit.contrast / truths[i].contrast - 1) < 2e-3);
        assert_true(fabs(fit.baseline - truths[i].baseline) < 1e-4);
        assert_true(fit.tau_s_sigma < 1e-6 && fit.chi2_reduced < 0.01);
        assert_int_equal(fit.is_degenerate, truths[i].tau_s > 200);
        ttcf_free(&ttcf);
    }
}

/* Curves without noise that still tell nothing: contrast that hangs on single groups, tau below the first lag. */
static void not_believed(void **state)
{
    (void)state;
    struct isf_fit truth = {.tau_s = 95, .beta = 1.7, .contrast = 0.08, .baseline = 1}, fit = {.tau_s = -1};
    struct isf_curve curve;
    struct err err = {0};
    struct ttcf ttcf = exact_ttcf(&truth, 6000);
    fill_ranges(&ttcf, 0.9, 1.1);
    assert_int_equal(isf_fit(&ttcf, FRAME_TIME_S, &fit, &curve, &err), ERR_FIT);
    assert_non_null(strstr(err.message, "not significant"));
    assert_true(fabs(curve.g2_sigma[0] / (0.1 * 0.08 * sqrt(15)) - 1) < 1e-3); /* the jackknife's formula */
    ttcf_free(&ttcf);
    truth = (struct isf_fit){.tau_s = 0.08, .beta = 1, .contrast = 0.3, .baseline = 1};
    ttcf = exact_ttcf(&truth, 6000);
    for (size_t lag = 1; lag < 6000; lag++) {
        ttcf.pairs_expected[lag] *= 1e6;
        ttcf.pairs[lag] *= 1e6;
    }
    fill_ranges(&ttcf, 1.0, 1.0);
    assert_int_equal(isf_fit(&ttcf, FRAME_TIME_S, &fit, &curve, &err), ERR_FIT);
    assert_non_null(strstr(err.message, "outside what a scan of 600 s"));
    assert_true(fit.tau_s == -1);
    ttcf_free(&ttcf);
}

static void bins(void **state)
{
    (void)state;
    struct isf_fit truth = {.tau_s = 95, .beta = 1.7, .contrast = 0.08, .baseline = 1.004};
    struct ttcf ttcf = exact_ttcf(&truth, 65535);
    struct isf_curve curve;
    isf_bin(&ttcf, FRAME_TIME_S, &curve);
    assert_in_range(curve.n, 110, 160);
    assert_true(curve.lag_s[0] == FRAME_TIME_S && curve.g2[0] == ttcf.g2[1]);
    double pairs = 0.0, expected = 0.0;
    for (int i = 0; i < curve.n; i++) {
        assert_true(i == 0 || curve.lag_s[i] > curve.lag_s[i - 1]);
        pairs += 1 / (curve.g2_sigma_pairs[i] * curve.g2_sigma_pairs[i]);
    }
    for (size_t lag = 1; lag < 65535; lag++)
        expected += ttcf.pairs_expected[lag];
    assert_true(fabs(pairs / expected - 1) < 1e-12); /* every lag in one bin */
    ttcf_free(&ttcf);
}

static void speckle_scans(void **state)
{
    (void)state;
    static const struct {
        double tau_s, beta;
    } cases[] = {{9.5, 1.7}, {19, 1.9}, {47.5, 1.6}}; /* of 300 s, as 19, 38 and 95 of 600 */
    double sum[4] = {0};
    int n = 0;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        for (uint64_t seed = 1; seed <= 5; seed++, n++) {
            struct isf_fit fit, truth;
            struct isf_curve curve;
            struct ttcf ttcf = draw_scan(112, 3000, cases[i].tau_s, cases[i].beta, 0.03, 0.3, seed, &truth);
            assert_int_equal(isf_fit(&ttcf, FRAME_TIME_S, &fit, &curve, NULL), 0);
            print_message("tau %.1f: %.2f +- %.2f s, beta %.1f: %.3f +- %.3f, contrast %.5f +- %.5f\n", truth.tau_s,
                          fit.tau_s, fit.tau_s_sigma, truth.beta, fit.beta, fit.beta_sigma, fit.contrast,
                          fit.contrast_sigma);
            assert_true(fabs(fit.tau_s / truth.tau_s - 1) < 0.15 && fabs(fit.beta - truth.beta) < 0.2);
            assert_true(fabs(fit.contrast / truth.contrast - 1) < 0.15);
            assert_true(!fit.is_degenerate && fit.chi2_reduced < 2);
            sum[0] += pow((fit.tau_s - truth.tau_s) / fit.tau_s_sigma, 2);
            sum[1] += pow((fit.beta - truth.beta) / fit.beta_sigma, 2);
            sum[2] += pow((fit.contrast - truth.contrast) / fit.contrast_sigma, 2);
            sum[3] += pow((fit.baseline - truth.baseline) / fit.baseline_sigma, 2);
            ttcf_free(&ttcf);
        }
    for (int k = 0; k < 4; k++) {
        print_message("mean square pull %d: %.2f\n", k, sum[k] / n);
        assert_true(sum[k] / n > 0.3 && sum[k] / n < 2.5);
    }
}

static void expect_refusal(double tau_s, double photons_per_pixel, double amplitude, size_t n_frames)
{
    struct isf_fit fit = {.tau_s = -1}, truth;
    struct isf_curve curve;
    struct err err = {0};
    struct ttcf ttcf = draw_scan(96, n_frames, tau_s, 1.7, photons_per_pixel, amplitude, 3, &truth);
    assert_int_equal(isf_fit(&ttcf, FRAME_TIME_S, &fit, &curve, &err), ERR_FIT);
    print_message("refused: %s\n", err.message);
    assert_true(fit.tau_s == -1 && err.message[0]);
    ttcf_free(&ttcf);
}

static void no_decay(void **state)
{
    (void)state;
    expect_refusal(10, 0.02, 0, 1000);     /* nothing moves */
    expect_refusal(10, 0.0005, 0.3, 1000); /* hardly any photons */
    expect_refusal(5000, 0.02, 0.3, 1000); /* frozen */
    expect_refusal(0.01, 0.02, 0.3, 1000); /* gone within a frame */
    expect_refusal(1, 0.02, 0.3, 15);      /* hardly any frames */
}

static void longer_than_the_scan(void **state)
{
    (void)state;
    struct isf_fit fit, truth;
    struct isf_curve curve;
    struct ttcf ttcf = draw_scan(128, 1500, 140, 1.7, 0.05, 0.3, 3, &truth);
    assert_int_equal(isf_fit(&ttcf, FRAME_TIME_S, &fit, &curve, NULL), 0);
    print_message("tau 140 s in 150 s: %.1f +- %.1f s\n", fit.tau_s, fit.tau_s_sigma);
    assert_true(fit.is_degenerate && fabs(fit.tau_s - 140) < 4 * fit.tau_s_sigma);
    ttcf_free(&ttcf);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exact_curve),   cmocka_unit_test(not_believed), cmocka_unit_test(bins),
        cmocka_unit_test(speckle_scans), cmocka_unit_test(no_decay),     cmocka_unit_test(longer_than_the_scan),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
