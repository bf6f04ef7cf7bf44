/*
 * Goal: the line through the last readings is exact on exact readings, honest about its uncertainty on noisy ones,
 * untouched by wrong ones, and refused where there is too little; on a slide that the membrane bends it says the level
 * and the slope of this instant. Method: lines of known level and slope, and slides of known compliance K and edge G
 * integrated in fine steps; pulls (error / stated sigma) over draws from a fixed seed, whose rms must lie in
 * 0.85 .. 1.15: 500 draws know it to 3 %.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <math.h>

#include "base/clock.h"
#include "controller/trend.h"
#include "sim/random.h"

#define N_DRAWS 500
#define NOW_NS (5000 * NS_PER_S)

/* `n` readings every 5 s, the newest at NOW_NS, on the line of this level at NOW_NS. */
static void add_line(struct trend *trend, int n, double level_gpa, double slope_gpa_per_s, double noise_gpa,
                     double sigma_gpa, struct random *random)
{
    for (int i = n - 1; i >= 0; i--) {
        double error_gpa = noise_gpa > 0.0 ? noise_gpa * random_normal(random) : 0.0;
        trend_add(trend, NOW_NS - i * 5 * NS_PER_S, level_gpa - slope_gpa_per_s * 5.0 * i + error_gpa, sigma_gpa, 0.0);
    }
}

static void an_exact_line_comes_back(void **state)
{
    (void)state;
    static const double slopes[] = {0.0, 1e-5, -3e-4, 0.02};
    for (size_t i = 0; i < sizeof slopes / sizeof slopes[0]; i++)
        for (int n = 4; n <= TREND_MAX + 40; n += 73) { /* beyond TREND_MAX the oldest make room */
            struct trend trend = {0};
            struct trend_fit fit;
            int n_kept = n < TREND_MAX ? n : TREND_MAX;
            add_line(&trend, n, 12.5, slopes[i], 0.0, 0.005, NULL);
            assert_true(trend_fit(&trend, NOW_NS, 1e6, NULL, &fit));
            assert_int_equal(fit.n, n_kept);
            assert_true(fabs(fit.level_gpa - 12.5) < 1e-9);
            assert_true(fabs(fit.slope_gpa_per_s - slopes[i]) < 1e-12);
            assert_true(fabs(fit.mean_gpa - (12.5 - slopes[i] * 2.5 * (n_kept - 1))) < 1e-9);
            assert_true(fabs(fit.mean_gpa_sigma - 0.005 / sqrt(n_kept)) < 1e-9); /* no less than stated */
            assert_true(
                trend_fit(&trend, NOW_NS + ns_from_s(50.0), 1e6, NULL, &fit)); /* the level is that of the instant */
            assert_true(fabs(fit.level_gpa - 12.5 - 50.0 * slopes[i]) < 1e-9);
            assert_true(fabs(trend_span_s(&trend, n_kept) - 5.0 * (n_kept - 1)) < 1e-6);
        }
}

static void the_stated_sigma_is_honest(void **state)
{
    (void)state;
    /* The true noise is what is stated, or three times as much, which the scatter has to tell. */
    static const struct {
        int n;
        double noise_gpa;
    } cases[] = {{18, 0.005}, {72, 0.005}, {72, 0.015}, {30, 0.03}};
    struct random random = {.state = 77};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        double level = 0.0, slope = 0.0, mean = 0.0;
        for (int k = 0; k < N_DRAWS; k++) {
            struct trend trend = {0};
            struct trend_fit fit;
            add_line(&trend, cases[i].n, 3.0, 2e-4, cases[i].noise_gpa, 0.005, &random);
            assert_true(trend_fit(&trend, NOW_NS, 1e6, NULL, &fit));
            double mean_gpa = 3.0 - 2e-4 * 2.5 * (cases[i].n - 1);
            level += pow((fit.level_gpa - 3.0) / fit.level_gpa_sigma, 2.0) / N_DRAWS;
            slope += pow((fit.slope_gpa_per_s - 2e-4) / fit.slope_gpa_per_s_sigma, 2.0) / N_DRAWS;
            mean += pow((fit.mean_gpa - mean_gpa) / fit.mean_gpa_sigma, 2.0) / N_DRAWS;
        }
        print_message("%d readings, noise %.3f GPa: pulls %.3f level, %.3f slope, %.3f mean\n", cases[i].n,
                      cases[i].noise_gpa, sqrt(level), sqrt(slope), sqrt(mean));
        assert_true(sqrt(level) > 0.85 && sqrt(level) < 1.15);
        assert_true(sqrt(slope) > 0.85 && sqrt(slope) < 1.15);
        assert_true(sqrt(mean) > 0.85 && sqrt(mean) < 1.15);
    }
}

/* Four of forty readings are wrong, one in each ten of them, by twelve times the noise or up to a hundred times, each
 * to either side. */
static void a_tenth_of_wrong_readings_is_left_out(void **state)
{
    (void)state;
    struct random random = {.state = 78};
    double level = 0.0, slope = 0.0;
    int n_kept = 0;
    for (int k = 0; k < N_DRAWS; k++) {
        struct trend trend = {0};
        struct trend_fit fit;
        add_line(&trend, 40, 3.0, 2e-4, 0.005, 0.005, &random);
        double error_gpa = 0.06 + 0.44 * random_uniform(&random);
        for (int j = 0; j < 4; j++)
            trend.pressure_gpa[10 * j + (int)(10.0 * random_uniform(&random))] +=
                random_uniform(&random) < 0.5 ? error_gpa : -error_gpa;
        assert_true(trend_fit(&trend, NOW_NS, 1e6, NULL, &fit));
        n_kept += fit.n > 36;
        level += pow((fit.level_gpa - 3.0) / fit.level_gpa_sigma, 2.0) / N_DRAWS;
        slope += pow((fit.slope_gpa_per_s - 2e-4) / fit.slope_gpa_per_s_sigma, 2.0) / N_DRAWS;
    }
    print_message("four of forty wrong: pulls %.3f level, %.3f slope; one kept in %d of %d\n", sqrt(level), sqrt(slope),
                  n_kept, N_DRAWS);
    assert_true(sqrt(level) > 0.85 && sqrt(level) < 1.15);
    assert_true(sqrt(slope) > 0.85 && sqrt(slope) < 1.15);
    assert_true(n_kept <= N_DRAWS / 100);
}

static void too_little_is_no_line(void **state)
{
    (void)state;
    struct trend trend = {0};
    struct trend_fit fit = {.n = -1};
    for (int n = 0; n < 4; n++) {
        assert_false(trend_fit(&trend, NOW_NS, 1e6, NULL, &fit));
        assert_int_equal(fit.n, -1); /* untouched */
        trend_add(&trend, NOW_NS - (3 - n) * NS_PER_S, 1.0, 0.005, 0.0);
    }
    assert_true(trend_fit(&trend, NOW_NS, 1e6, NULL, &fit));
    assert_false(trend_fit(&trend, NOW_NS, 2.5, NULL, &fit)); /* three within the window */
    assert_true(trend_fit(&trend, NOW_NS, 3.0, NULL, &fit));
    assert_false(trend_fit(&trend, NOW_NS + ns_from_s(60.0), 60.0, NULL, &fit)); /* no longer fresh */
    trend_clear(&trend);
    assert_false(trend_fit(&trend, NOW_NS, 1e6, NULL, &fit));
    for (int n = 0; n < 6; n++) /* all of one instant: a level, but no slope */
        trend_add(&trend, NOW_NS, 1.0, 0.005, 0.0);
    assert_false(trend_fit(&trend, NOW_NS, 1e6, NULL, &fit));
}

static void the_age_is_that_of_the_newest(void **state)
{
    (void)state;
    struct trend trend = {0};
    assert_true(isinf(trend_age_s(&trend, NOW_NS)));
    trend_add(&trend, NOW_NS, 1.0, 0.005, 0.0);
    assert_true(trend_age_s(&trend, NOW_NS + ns_from_s(7.0)) == 7.0);
    trend_add(&trend, NOW_NS + ns_from_s(5.0), 1.0, 0.005, 0.0);
    assert_true(trend_age_s(&trend, NOW_NS + ns_from_s(7.0)) == 2.0);
    assert_true(trend_span_s(&trend, 2) == 5.0);
    assert_true(trend_span_s(&trend, 1) == 0.0);
    assert_true(trend_span_s(&trend, 0) == 0.0);
    assert_true(trend_span_s(&trend, 3) == 0.0);
}

static void the_mean_leaves_out_what_is_far_from_the_median(void **state)
{
    (void)state;
    struct trend trend = {0};
    double mean_gpa = -1.0, sigma_gpa = -1.0;
    assert_true(trend_sigma_gpa(&trend) == 0.0);
    assert_false(trend_mean(&trend, 1, &mean_gpa, &sigma_gpa));
    for (int i = 0; i < TREND_MEAN_MAX; i++)
        trend_add(&trend, i * NS_PER_S, i == 20 ? 1.3 : 1.0 + (i % 2 ? 0.002 : -0.002), i % 4 ? 0.005 : 0.009, 0.0);
    assert_false(trend_mean(&trend, 0, &mean_gpa, &sigma_gpa));
    assert_false(trend_mean(&trend, TREND_MEAN_MAX + 1, &mean_gpa, &sigma_gpa));
    assert_true(mean_gpa == -1.0 && sigma_gpa == -1.0); /* untouched */
    assert_true(trend_mean(&trend, 2, &mean_gpa, &sigma_gpa));
    assert_true(fabs(mean_gpa - 1.0) < 1e-12);
    assert_true(fabs(sigma_gpa - 0.005 / sqrt(2.0)) < 1e-12);
    assert_true(trend_mean(&trend, TREND_MEAN_MAX, &mean_gpa, &sigma_gpa));
    assert_true(fabs(mean_gpa - 1.0) < 1e-4 + 0.002 / 31.0); /* the one at 1.3 is not in it */
    assert_true(fabs(trend_sigma_gpa(&trend) - 0.006) < 1e-12);
    trend_add(&trend, 100 * NS_PER_S, 1.0, 0.005, 0.0);
    assert_false(
        trend_mean(&trend, TREND_MEAN_MAX + 1, &mean_gpa, &sigma_gpa)); /* there are 33, but it never takes more */
}

/* ---- slides that the membrane bends -------------------------------------------------------------------------- */

#define FINE_S 0.05
#define EVERY_S 3.0

/* K dp/dt = u - c - G p, under a membrane that has risen as a ramp does and then changes at `rate_bar_per_s` for the
 * last `bent_s`; readings every 3 s, the newest now. */
struct slide {
    double compliance, edge; /* K, G */
    double slope_gpa_per_s;  /* while the ramp goes on */
    double rate_bar_per_s, bent_s;
};

static const struct slide slides[] = {
    {2100.0, 7.0, 1e-3, -0.02, 60.0},   {4000.0, 11.0, 1e-3, -0.02, 90.0},   {10000.0, 11.0, 6e-4, -0.04, 90.0},
    {10000.0, 14.0, 2e-4, 0.06, 150.0}, {33600.0, 17.0, 4e-4, -0.05, 120.0},
};

#define N_SLIDES (sizeof slides / sizeof slides[0])

/* Returns what the fit is to be compared with: level and slope now. */
static struct trend_fit add_slide(struct trend *trend, struct trend_drive *ret_drive, const struct slide *slide,
                                  double noise_gpa, struct random *random)
{
    double pressure_gpa = 2.0, drive_bar_s = 0.0, due_s = 0.0;
    double membrane_bar = slide->edge * pressure_gpa + slide->slope_gpa_per_s * slide->compliance;
    int n_steps = (int)(600.0 / FINE_S);
    for (int i = 0; i <= n_steps; i++) {
        double t_s = i * FINE_S, error_gpa = noise_gpa > 0.0 ? noise_gpa * random_normal(random) : 0.0;
        if (t_s >= due_s - 1e-9) {
            trend_add(trend, NOW_NS - ns_from_s(600.0 - t_s), pressure_gpa + error_gpa, 0.005, drive_bar_s);
            due_s += EVERY_S;
        }
        if (i == n_steps)
            break;
        double rate = 600.0 - t_s > slide->bent_s ? slide->slope_gpa_per_s * slide->edge : slide->rate_bar_per_s;
        drive_bar_s += FINE_S * (membrane_bar + 0.5 * FINE_S * rate);
        pressure_gpa += FINE_S * (membrane_bar - slide->edge * pressure_gpa) / slide->compliance;
        membrane_bar += FINE_S * rate;
    }
    *ret_drive = (struct trend_drive){.membrane_bar = membrane_bar,
                                      .drive_bar_s = drive_bar_s,
                                      .compliance_bar_s_per_gpa = slide->compliance,
                                      .edge_bar_per_gpa = slide->edge};
    return (struct trend_fit){.level_gpa = pressure_gpa,
                              .slope_gpa_per_s = (membrane_bar - slide->edge * pressure_gpa) / slide->compliance};
}

/* What is left is that the way of the sample within the window is taken as a straight one. */
static void a_bend_that_is_known_makes_no_lag(void **state)
{
    (void)state;
    static const double windows_s[] = {90.0, 150.0, 240.0};
    for (size_t i = 0; i < N_SLIDES; i++)
        for (size_t j = 0; j < sizeof windows_s / sizeof windows_s[0]; j++) {
            struct trend trend = {0};
            struct trend_drive drive;
            struct trend_fit plain, fit;
            struct trend_fit truth = add_slide(&trend, &drive, &slides[i], 0.0, NULL);
            assert_true(trend_fit(&trend, NOW_NS, windows_s[j], NULL, &plain));
            assert_true(trend_fit(&trend, NOW_NS, windows_s[j], &drive, &fit));
            double lag = plain.slope_gpa_per_s - truth.slope_gpa_per_s;
            double error = fit.slope_gpa_per_s - truth.slope_gpa_per_s;
            double lag_gpa = plain.level_gpa - truth.level_gpa, error_gpa = fit.level_gpa - truth.level_gpa;
            print_message("K %.0f, G %.0f, %+.2f bar/s for %.0f s, window %.0f s: slope %+.1e, plainly %+.1e off by "
                          "%+.1e and %+.1e; level %+.4f and %+.4f GPa\n",
                          slides[i].compliance, slides[i].edge, slides[i].rate_bar_per_s, slides[i].bent_s,
                          windows_s[j], truth.slope_gpa_per_s, plain.slope_gpa_per_s, error, lag, error_gpa, lag_gpa);
            assert_true(fabs(lag) > 4e-5); /* the plain line says something else: */
            assert_true(fabs(error) < 0.1 * fabs(lag));
            assert_true(fabs(error_gpa) < 0.1 * fabs(lag_gpa));
        }
}

/* About what the same slide says without noise. The mean slope that frees the readings from the bend comes from the
 * same readings and takes a part of the error back, a quarter where the cell answers fastest: there the sigma of the
 * slope, which is that of a straight line, is too large. */
static void the_sigma_of_a_bent_slide_is_honest(void **state)
{
    (void)state;
    struct random random = {.state = 79};
    for (size_t i = 0; i < N_SLIDES; i++)
        for (int n_wrong = 0; n_wrong <= 5; n_wrong += 5) { /* of the fifty in the window */
            double level = 0.0, slope = 0.0;
            struct trend quiet = {0};
            struct trend_drive drive;
            struct trend_fit truth;
            add_slide(&quiet, &drive, &slides[i], 0.0, NULL);
            assert_true(trend_fit(&quiet, NOW_NS, 150.0, &drive, &truth));
            for (int k = 0; k < N_DRAWS; k++) {
                struct trend trend = {0};
                struct trend_fit fit;
                add_slide(&trend, &drive, &slides[i], 0.005, &random);
                for (int j = 0; j < n_wrong; j++)
                    trend.pressure_gpa[trend.next - 1 - 10 * j - (int)(10.0 * random_uniform(&random))] +=
                        random_uniform(&random) < 0.5 ? 0.2 : -0.2;
                assert_true(trend_fit(&trend, NOW_NS, 150.0, &drive, &fit));
                level += pow((fit.level_gpa - truth.level_gpa) / fit.level_gpa_sigma, 2.0) / N_DRAWS;
                slope += pow((fit.slope_gpa_per_s - truth.slope_gpa_per_s) / fit.slope_gpa_per_s_sigma, 2.0) / N_DRAWS;
            }
            print_message("K %.0f, G %.0f, %d of 51 wrong: pulls %.3f level, %.3f slope\n", slides[i].compliance,
                          slides[i].edge, n_wrong, sqrt(level), sqrt(slope));
            assert_true(sqrt(level) > 0.8 && sqrt(level) < 1.15);
            assert_true(sqrt(slope) > 0.65 && sqrt(slope) < 1.15);
        }
}

/* A membrane that stands still bends nothing but by the edge that comes after the sample. */
static void a_membrane_in_the_dead_zone_bends_nothing(void **state)
{
    (void)state;
    struct trend trend = {0};
    struct trend_fit plain, fit;
    for (int k = 0; k <= 50; k++)
        trend_add(&trend, NOW_NS - (50 - k) * 3 * NS_PER_S, 2.0, 0.005, 60.0 * 3.0 * k);
    const struct trend_drive drive = {.membrane_bar = 60.0,
                                      .drive_bar_s = 60.0 * 150.0,
                                      .compliance_bar_s_per_gpa = 10000.0,
                                      .edge_bar_per_gpa = 11.0};
    assert_true(trend_fit(&trend, NOW_NS, 150.0, NULL, &plain));
    assert_true(trend_fit(&trend, NOW_NS, 150.0, &drive, &fit));
    assert_true(fabs(fit.level_gpa - plain.level_gpa) < 1e-9);
    assert_true(fabs(fit.slope_gpa_per_s) < 1e-12);
}

static void too_little_is_no_bent_line_either(void **state)
{
    (void)state;
    struct trend trend = {0};
    struct trend_fit fit = {.n = -1};
    const struct trend_drive drive = {.membrane_bar = 60.0, .compliance_bar_s_per_gpa = 1e4, .edge_bar_per_gpa = 11.0};
    for (int n = 0; n < 4; n++) {
        assert_false(trend_fit(&trend, NOW_NS, 1e6, &drive, &fit));
        assert_int_equal(fit.n, -1);
        trend_add(&trend, NOW_NS - (3 - n) * NS_PER_S, 1.0, 0.005, 0.0);
    }
    assert_true(trend_fit(&trend, NOW_NS, 1e6, &drive, &fit));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_exact_line_comes_back),
        cmocka_unit_test(the_stated_sigma_is_honest),
        cmocka_unit_test(a_tenth_of_wrong_readings_is_left_out),
        cmocka_unit_test(too_little_is_no_line),
        cmocka_unit_test(the_age_is_that_of_the_newest),
        cmocka_unit_test(the_mean_leaves_out_what_is_far_from_the_median),
        cmocka_unit_test(a_bend_that_is_known_makes_no_lag),
        cmocka_unit_test(the_sigma_of_a_bent_slide_is_honest),
        cmocka_unit_test(a_membrane_in_the_dead_zone_bends_nothing),
        cmocka_unit_test(too_little_is_no_bent_line_either),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
