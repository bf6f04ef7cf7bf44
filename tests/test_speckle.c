/*
 * Goal: the simulated photons carry the dynamics they were asked for, and the truth written beside a scan is right.
 * Method: draw a few thousand frames of 160 x 160 pixels at known tau and beta, estimate g2 the plain way (averages
 * over pixels and starts of products of counts), fit contrast, tau, beta and base line, and compare. The tolerances are
 * those the task states; the statistics are three times better. Poisson counts and exact repetition are checked beside.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <gsl/gsl_multifit_nlinear.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "sim/glass.h"
#include "sim/speckle.h"

#define SIDE 160
#define N_PIXELS (SIDE * SIDE)
#define N_FRAMES 3000
#define TAU_FRAMES 30.0

static const int lags[] = {1, 2, 3, 5, 7, 10, 13, 17, 21, 26, 32, 38, 45, 55, 70, 90, 120, 160, 220, 300};
#define N_LAGS (sizeof lags / sizeof lags[0])

static struct speckle *open_speckle(double photons_per_pixel)
{
    struct speckle_settings settings = {
        .width = SIDE, .height = SIDE, .photons_per_pixel = photons_per_pixel, .amplitude = 0.3, .seed = 7};
    struct speckle *speckle;
    assert_int_equal(speckle_open(&speckle, &settings, NULL), 0);
    return speckle;
}

/* ret_g2[N_LAGS]; frames as dense bytes, products by scanning the sparse events of the earlier frame. */
static void measure_g2(struct speckle *speckle, double *ret_g2)
{
    int n_max = speckle_events_max(speckle);
    struct speckle_event *events = malloc((size_t)n_max * N_FRAMES * sizeof *events);
    int *n = malloc(N_FRAMES * sizeof *n);
    uint8_t *dense = calloc((size_t)N_FRAMES * N_PIXELS, 1);
    double *total = calloc(N_FRAMES, sizeof *total);
    for (int t = 0; t < N_FRAMES; t++) {
        struct speckle_event *frame = events + (size_t)t * (size_t)n_max;
        n[t] = speckle_draw_frame(speckle, t / TAU_FRAMES, 1, frame, n_max);
        assert_true(n[t] > 0);
        for (int i = 0; i < n[t]; i++) {
            assert_true(i == 0 || frame[i].pixel > frame[i - 1].pixel);
            dense[(size_t)t * N_PIXELS + frame[i].pixel] = (uint8_t)frame[i].count;
            total[t] += frame[i].count;
        }
    }
    for (size_t l = 0; l < N_LAGS; l++) {
        double products = 0, norm = 0;
        for (int t = 0; t + lags[l] < N_FRAMES; t++) {
            const uint8_t *later = dense + (size_t)(t + lags[l]) * N_PIXELS;
            const struct speckle_event *frame = events + (size_t)t * (size_t)n_max;
            for (int i = 0; i < n[t]; i++)
                products += (double)frame[i].count * later[frame[i].pixel];
            norm += total[t] * total[t + lags[l]] / N_PIXELS;
        }
        ret_g2[l] = products / norm;
    }
    free(events);
    free(n);
    free(dense);
    free(total);
}

static int residuals(const gsl_vector *x, void *g2, gsl_vector *f)
{
    for (size_t l = 0; l < N_LAGS; l++) {
        double decay = exp(-2 * pow(lags[l] / gsl_vector_get(x, 1), gsl_vector_get(x, 2)));
        gsl_vector_set(f, l, 1 + gsl_vector_get(x, 3) + gsl_vector_get(x, 0) * decay - ((double *)g2)[l]);
    }
    return GSL_SUCCESS;
}

static void fit(double *g2, double *ret_x)
{
    gsl_multifit_nlinear_parameters how = gsl_multifit_nlinear_default_parameters();
    gsl_multifit_nlinear_workspace *work = gsl_multifit_nlinear_alloc(gsl_multifit_nlinear_trust, &how, N_LAGS, 4);
    gsl_multifit_nlinear_fdf problem = {.f = residuals, .n = N_LAGS, .p = 4, .params = g2};
    double start[4] = {0.05, 20, 1.4, 0};
    gsl_vector_view view = gsl_vector_view_array(start, 4);
    int info;
    gsl_multifit_nlinear_init(&view.vector, &problem, work);
    assert_int_equal(gsl_multifit_nlinear_driver(200, 1e-8, 1e-8, 0, NULL, NULL, &info, work), GSL_SUCCESS);
    for (size_t i = 0; i < 4; i++)
        ret_x[i] = gsl_vector_get(gsl_multifit_nlinear_position(work), i);
    gsl_multifit_nlinear_free(work);
}

static void test_dynamics_come_back(void **state)
{
    (void)state;
    static const double betas[] = {1.0, 1.6, 2.0};
    struct speckle *speckle = open_speckle(0.1);
    assert_in_range((int)(1000 * speckle_contrast(speckle)), 50, 100);
    for (size_t i = 0; i < 3; i++) {
        double g2[N_LAGS], x[4];
        speckle_start_scan(speckle, betas[i], i);
        measure_g2(speckle, g2);
        fit(g2, x);
        print_message("beta %.1f: contrast %.4f (%.4f), tau %.2f (%.0f) frames, beta %.3f, base line %.4f (%.4f)\n",
                      betas[i], x[0], speckle_contrast(speckle), x[1], TAU_FRAMES, x[2], x[3],
                      speckle_baseline(speckle));
        assert_true(fabs(x[0] / speckle_contrast(speckle) - 1) < 0.10);
        assert_true(fabs(x[1] / TAU_FRAMES - 1) < 0.05);
        assert_true(fabs(x[2] - betas[i]) < 0.1);
        assert_true(fabs(x[3] - speckle_baseline(speckle)) < 0.002);
    }
    speckle_close(speckle);
}

/* Photons per frame: the mean asked for, at any flux; none without beam; the same again for the same seed and scan. */
static void test_counts(void **state)
{
    (void)state;
    struct speckle *speckle = open_speckle(0.02);
    int n_max = speckle_events_max(speckle);
    struct speckle_event first[4096], again[4096];
    assert_true(n_max <= 4096);
    assert_int_equal(speckle_draw_frame(speckle, 0, 0, first, n_max), 0);
    double photons = 0;
    for (int t = 0; t < 2000; t++) {
        int n = speckle_draw_frame(speckle, t, 0.5, first, n_max);
        for (int i = 0; i < n; i++)
            photons += first[i].count;
    }
    double expected = 2000 * 0.5 * 0.02 * N_PIXELS;
    assert_true(fabs(photons / expected - 1) < 0.01); /* Poisson and speckle noise: 0.2 % */
    speckle_start_scan(speckle, 1.6, 5);
    int n_first = speckle_draw_frame(speckle, 0.1, 1, first, n_max);
    speckle_start_scan(speckle, 1.6, 5);
    int n_again = speckle_draw_frame(speckle, 0.1, 1, again, n_max);
    assert_int_equal(n_first, n_again);
    assert_memory_equal(first, again, (size_t)n_first * sizeof first[0]);
    assert_int_equal(speckle_draw_frame(speckle, 0.1, 1, again, 10), ERR_FULL);
    speckle_close(speckle);
}

static void test_glass(void **state)
{
    (void)state;
    assert_true(fabs(glass_tau_s(0, 0) - 571) < 1e-6);
    assert_true(fabs(glass_tau_s(0.1, 0.1) - 228) < 1e-6);
    assert_true(fabs(glass_tau_s(1.5, 1.5) - 95) < 1e-6);
    assert_true(fabs(glass_tau_s(3.3, 3.3) - 38) < 1e-6);
    assert_true(glass_tau_s(1.5, 3.3) > 180 && glass_tau_s(1.5, 3.3) <= 190.001);
    double last = glass_tau_s(-1, -1);
    for (double p = 0; p <= 9; p += 0.01) {
        double tau_s = glass_tau_s(p, p), beta = glass_beta(p);
        assert_true(p > 3.3 ? tau_s >= last - 1e-9 && tau_s <= 60.001 : tau_s <= last + 1e-9);
        assert_true(beta >= 1.6 && beta <= 1.9 + 1e-9);
        assert_true(glass_tau_s(p, p + 0.5) >= tau_s);
        last = tau_s;
    }
}

static void test_truth(void **state)
{
    (void)state;
    enum { N = 6000 };
    static double theta[N];
    struct glass_truth truth;
    for (int t = 0; t < N; t++)
        theta[t] = 12 + 0.1 * t / 38;
    assert_int_equal(glass_fit_truth(theta, N, 0.1, 1.7, &truth, NULL), 0);
    assert_true(fabs(truth.tau_s - 38) < 0.01 && fabs(truth.beta - 1.7) < 1e-3);
    for (int t = 0; t < N; t++) /* half of the scan twice as fast: tau in between, the decay stretched */
        theta[t] = 0.1 * (t < N / 2 ? t : 2 * t - N / 2) / 38;
    assert_int_equal(glass_fit_truth(theta, N, 0.1, 1.7, &truth, NULL), 0);
    assert_true(truth.tau_s > 20 && truth.tau_s < 36 && truth.beta < 1.7);
    assert_int_equal(glass_fit_truth(theta, 3, 0.1, 1.7, &truth, NULL), ERR_ARG);
    memset(theta, 0, sizeof theta);
    assert_int_equal(glass_fit_truth(theta, N, 0.1, 1.7, &truth, NULL), ERR_FIT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_dynamics_come_back), cmocka_unit_test(test_counts),
                                       cmocka_unit_test(test_glass), cmocka_unit_test(test_truth)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
