/*
 * Goal: C(t1, t2), g2 and the jackknife's g2 are those of their definitions, exactly where the counts are whole
 * numbers. Method: a three-frame example worked out by hand; random counts against a dense computation straight from
 * the definitions; properties (pixels exchanged, counts doubled, frames without photons); and the hot pixels' rule.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "analysis/photon_list.h"
#include "analysis/ttcf.h"

#define GROUP_PIXELS 64 /* as in analysis/ttcf.c: the rule of the groups is checked as well */

static uint64_t random_state;

static uint32_t draw(uint32_t below) /* splitmix64 */
{
    uint64_t z = random_state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return (uint32_t)((z ^ z >> 31) >> 32) % below;
}

/* counts [n_frames * n_pixels] */
static struct photon_list list_of(const uint32_t *counts, size_t n_frames, size_t n_pixels)
{
    struct photon_list list;
    struct photon_event *events = malloc(n_pixels * sizeof *events);
    assert_int_equal(photon_list_init(&list, n_pixels, n_frames, NULL), 0);
    for (size_t t = 0; t < n_frames; t++) {
        size_t n = 0;
        for (uint32_t p = 0; p < n_pixels; p++)
            if (counts[t * n_pixels + p])
                events[n++] = (struct photon_event){p, counts[t * n_pixels + p]};
        assert_int_equal(photon_list_add_frame(&list, t, events, n, NULL), 0);
    }
    assert_int_equal(photon_list_finish(&list, NULL), 0);
    free(events);
    return list;
}

static struct ttcf correlate(const uint32_t *counts, size_t n_frames, size_t n_pixels)
{
    struct ttcf ttcf;
    struct photon_list list = list_of(counts, n_frames, n_pixels);
    assert_int_equal(ttcf_correlate(&ttcf, &list, 1, NULL), 0);
    photon_list_free(&list);
    return ttcf;
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
        if ((int)(p / GROUP_PIXELS % TTCF_GROUPS) != without)
            sum += (double)counts[t1 * n_pixels + p] * counts[t2 * n_pixels + p];
    return sum;
}

static double photons(const uint32_t *counts, size_t n_pixels, size_t t, int without)
{
    double sum = 0.0;
    for (size_t p = 0; p < n_pixels; p++)
        if ((int)(p / GROUP_PIXELS % TTCF_GROUPS) != without)
            sum += counts[t * n_pixels + p];
    return sum;
}

static double dense_c(const uint32_t *counts, size_t n_pixels, size_t t1, size_t t2)
{
    double expected = photons(counts, n_pixels, t1, -1) * photons(counts, n_pixels, t2, -1);
    return expected > 0.0 ? products(counts, n_pixels, t1, t2, -1) * (double)n_pixels / expected : NAN;
}

/* g2 by the ratio of sums, of all pixels or without one group. */
static double dense_g2(const uint32_t *counts, size_t n_frames, size_t n_pixels, size_t lag, int without)
{
    double pairs = 0.0, expected = 0.0;
    size_t n = 0;
    for (size_t p = 0; p < n_pixels; p++)
        n += (int)(p / GROUP_PIXELS % TTCF_GROUPS) != without;
    for (size_t t = 0; t + lag < n_frames; t++) {
        pairs += products(counts, n_pixels, t, t + lag, without);
        expected += photons(counts, n_pixels, t, without) * photons(counts, n_pixels, t + lag, without);
    }
    return expected > 0.0 ? pairs * (double)n / expected : NAN;
}

static void check_dense(const uint32_t *counts, size_t n_frames, size_t n_pixels)
{
    struct ttcf ttcf = correlate(counts, n_frames, n_pixels);
    const float *c = ttcf.matrix;
    for (size_t t1 = 0; t1 < n_frames; t1++)
        for (size_t t2 = t1; t2 < n_frames; t2++)
            close_to((double)*c++, dense_c(counts, n_pixels, t1, t2), 1e-7);
    for (size_t lag = 0; lag < n_frames; lag++) {
        double sum = 0.0;
        int n = 0;
        for (size_t t = 0; t + lag < n_frames; t++) {
            double value = dense_c(counts, n_pixels, t, t + lag);
            sum += isnan(value) ? 0.0 : value;
            n += isnan(value) ? 0 : 1;
        }
        close_to(ttcf.g2_mean[lag], n ? sum / n : NAN, 1e-12);
        close_to(ttcf.g2[lag], dense_g2(counts, n_frames, n_pixels, lag, -1), 1e-12);
        for (int g = 0; lag > 0 && g < TTCF_GROUPS; g++)
            close_to(ttcf.g2_without[g][lag], dense_g2(counts, n_frames, n_pixels, lag, g), 1e-12);
    }
    ttcf_free(&ttcf);
}

/* ---- tests --------------------------------------------------------------------------------------------------- */

/* Four pixels: frames 2 0 1 0, 1 1 0 0, 0 0 3 1. Sums 3, 2, 4. */
static void known_answer(void **state)
{
    (void)state;
    static const uint32_t counts[] = {2, 0, 1, 0, 1, 1, 0, 0, 0, 0, 3, 1};
    static const double expected[] = {5 / 4. / (3 / 4. * 3 / 4.), 2 / 4. / (3 / 4. * 2 / 4.),
                                      3 / 4. / (3 / 4. * 4 / 4.),    /* t1 = 0 */
                                      2 / 4. / (2 / 4. * 2 / 4.), 0, /* t1 = 1 */
                                      10 / 4. / (4 / 4. * 4 / 4.)};
    struct ttcf ttcf = correlate(counts, 3, 4);
    assert_int_equal(ttcf.n_photons, 9);
    for (int i = 0; i < 6; i++)
        close_to((double)ttcf.matrix[i], expected[i], 1e-7);
    close_to(ttcf.g2[1], (2 + 0) / (3 * 2 / 4. + 2 * 4 / 4.), 1e-15);
    close_to(ttcf.g2_mean[1], (2 / 4. / (3 / 4. * 2 / 4.) + 0) / 2, 1e-15);
    close_to(ttcf.pairs_expected[1], 3 * 2 / 4. + 2 * 4 / 4., 1e-15);
    close_to(ttcf.g2[2], 3 / (3 * 4 / 4.), 1e-15);
    assert_int_equal(ttcf.map_binning, 1);
    for (int i = 0, k = 0; i < 3; i++)
        for (int j = 0; j < 3; j++)
            close_to((double)ttcf.map[3 * i + j], j < i ? 0 : expected[k++], 1e-7);
    ttcf_free(&ttcf);
}

static void against_dense(void **state)
{
    (void)state;
    random_state = 11;
    static const struct {
        size_t n_frames, n_pixels;
        uint32_t percent;
    } cases[] = {{2, 1100, 3}, {17, 1500, 2}, {40, 2000, 1}, {9, 1, 60}, {30, 1024, 40}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        uint32_t *counts = draw_counts(cases[i].n_frames * cases[i].n_pixels, cases[i].percent);
        check_dense(counts, cases[i].n_frames, cases[i].n_pixels);
        free(counts);
    }
}

static void empty_frames(void **state)
{
    (void)state;
    random_state = 12;
    uint32_t *counts = draw_counts(12 * 1100, 5);
    memset(counts, 0, 1100 * sizeof *counts);
    memset(counts + 7 * 1100, 0, 2 * 1100 * sizeof *counts);
    check_dense(counts, 12, 1100);
    struct ttcf ttcf = correlate(counts, 12, 1100);
    assert_int_equal(ttcf.n_empty_frames, 3);
    assert_true(isnan(ttcf.map[5]) && isnan(ttcf.map[3 * 12 + 7]) && !isnan(ttcf.map[3 * 12 + 6]));
    ttcf_free(&ttcf);
    free(counts);
}

static void exchanged_and_doubled(void **state)
{
    (void)state;
    random_state = 13;
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
    random_state = 14;
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
    random_state = 15;
    enum { N = 30, P = 1000 };
    uint32_t *counts = draw_counts(N * P, 10), *rest = malloc(N * (P - 2) * sizeof *rest);
    for (size_t t = 0; t < N; t++) { /* one mad, one that shows only when the mad one is gone */
        counts[t * P + 400] = UINT32_MAX / 2;
        counts[t * P + 17] = 30;
        for (size_t p = 0, n = 0; p < P; p++)
            if (p != 400 && p != 17)
                rest[t * (P - 2) + n++] = counts[t * P + p];
    }
    struct photon_list list = list_of(counts, N, P);
    assert_int_equal(list.n_hot, 2);
    assert_int_equal(list.hot_pixels[0], 17);
    assert_int_equal(list.hot_pixels[1], 400);
    assert_int_equal(list.n_pixels, P - 2);
    struct ttcf ttcf, expected = correlate(rest, N, P - 2);
    assert_int_equal(ttcf_correlate(&ttcf, &list, 1, NULL), 0);
    assert_memory_equal(ttcf.matrix, expected.matrix, N * (N + 1) / 2 * sizeof(float));
    assert_memory_equal(ttcf.g2, expected.g2, N * sizeof(double));
    ttcf_free(&ttcf);
    ttcf_free(&expected);
    photon_list_free(&list);
    free(counts);
    free(rest);
}

static void refusals(void **state)
{
    (void)state;
    struct err err = {0};
    struct photon_list list;
    struct ttcf ttcf;
    assert_int_equal(photon_list_init(&list, 10, 1, &err), ERR_ARG);
    assert_int_equal(photon_list_init(&list, 10, 65536, &err), ERR_ARG);
    assert_int_equal(photon_list_init(&list, 0, 10, &err), ERR_ARG);
    uint32_t counts[2 * 4] = {0};
    list = list_of(counts, 2, 4);
    assert_int_equal(ttcf_correlate(&ttcf, &list, 0, &err), ERR_DATA);
    assert_non_null(strstr(err.message, "no photons"));
    photon_list_free(&list);
    for (int i = 4; i < 8; i++) /* all alike: none is hot, but a row of counts would run over */
        counts[i] = 40000;
    list = list_of(counts, 2, 4);
    assert_int_equal(list.n_hot, 0);
    assert_int_equal(ttcf_correlate(&ttcf, &list, 0, &err), ERR_LIMIT);
    assert_non_null(strstr(err.message, "frame 2"));
    photon_list_free(&list);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_answer), cmocka_unit_test(against_dense),
        cmocka_unit_test(empty_frames), cmocka_unit_test(exchanged_and_doubled),
        cmocka_unit_test(binned_map),   cmocka_unit_test(hot_pixels),
        cmocka_unit_test(refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
