/*
 * Goal: the line learned one measurement at a time is the least squares solution with a prior of all of them at once,
 * its sigma is honest, and a prior is left as fast as it deserves. Method: the normal equations of the same problem
 * solved directly, as an independent answer; pulls (error / stated sigma) over draws from a fixed seed, truth drawn
 * from the prior: their rms must lie in 0.9 .. 1.1, which 2000 draws know to 1.6 %.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <math.h>

#include "controller/line.h"
#include "sim/random.h"

#define N_DRAWS 2000
#define N_MEASURED_MAX 12

struct measured {
    double pressure_gpa, value_bar, sigma_bar;
};

static double uniform(struct random *random, double low, double high)
{
    return low + (high - low) * random_uniform(random);
}

/* Offset 4.4 +- 3 bar and slope 1.2 +- 0.8 bar/GPa, as the loading expects the half width of an unknown cell. */
static void begin(struct line *line) { line_init(line, 4.4, 3.0, 1.2, 0.8); }

static void expect_near(double value, double expected, double scale)
{
    if (!(fabs(value - expected) <= 1e-9 * scale))
        fail_msg("%.15g instead of %.15g", value, expected);
}

/* All at once: (sum of x x^T / sigma^2 + prior) solution = right, x = (1, p). */
static void compare_with_direct_solution(const struct line *line, const struct measured *measured, int n)
{
    double oo = 1.0 / 9.0, os = 0.0, ss = 1.0 / 0.64, right_o = 4.4 / 9.0, right_s = 1.2 / 0.64;
    for (int i = 0; i < n; i++) {
        double p = measured[i].pressure_gpa, weight = 1.0 / (measured[i].sigma_bar * measured[i].sigma_bar);
        oo += weight;
        os += weight * p;
        ss += weight * p * p;
        right_o += weight * measured[i].value_bar;
        right_s += weight * p * measured[i].value_bar;
    }
    double determinant = oo * ss - os * os;
    expect_near(line->offset_bar, (ss * right_o - os * right_s) / determinant, 10.0);
    expect_near(line->slope_bar_per_gpa, (oo * right_s - os * right_o) / determinant, 10.0);
    expect_near(line_slope_sigma(line), sqrt(oo / determinant), 1.0);
    for (double p = 0.0; p < 8.0; p += 1.7) {
        double variance = (ss - 2.0 * p * os + p * p * oo) / determinant;
        expect_near(line_sigma_at(line, p), sqrt(variance), 1.0);
        expect_near(line_at(line, p), line->offset_bar + p * line->slope_bar_per_gpa, 10.0);
    }
    assert_int_equal(line->n_measured, n);
}

static void one_by_one_is_all_at_once(void **state)
{
    (void)state;
    struct random random = {.state = 11};
    for (int k = 0; k < 200; k++) {
        struct line line;
        struct measured measured[N_MEASURED_MAX];
        begin(&line);
        compare_with_direct_solution(&line, measured, 0);
        for (int i = 0; i < N_MEASURED_MAX; i++) {
            measured[i] = (struct measured){.pressure_gpa = uniform(&random, 0.0, 8.0),
                                            .value_bar = uniform(&random, 0.0, 20.0),
                                            .sigma_bar = uniform(&random, 0.2, 4.0)};
            line_measure(&line, measured[i].pressure_gpa, measured[i].value_bar, measured[i].sigma_bar);
            compare_with_direct_solution(&line, measured, i + 1);
        }
    }
}

static void the_order_does_not_matter(void **state)
{
    (void)state;
    struct line forth, back;
    begin(&forth);
    begin(&back);
    for (int i = 0; i < 5; i++) {
        line_measure(&forth, 1.0 + i, 6.0 + 0.3 * i, 1.0 + 0.1 * i);
        line_measure(&back, 5.0 - i, 7.2 - 0.3 * i, 1.4 - 0.1 * i);
    }
    expect_near(forth.offset_bar, back.offset_bar, 10.0);
    expect_near(forth.slope_bar_per_gpa, back.slope_bar_per_gpa, 10.0);
    for (int i = 0; i < 3; i++)
        expect_near(forth.variance[i], back.variance[i], 1.0);
}

/* The truth is drawn from the prior: then both the prior and every measurement must be worth what they say. */
static void the_stated_sigma_is_honest(void **state)
{
    (void)state;
    struct random random = {.state = 12};
    for (int n = 0; n <= 6; n += 2) {
        double at_low = 0.0, at_high = 0.0, slope = 0.0;
        for (int k = 0; k < N_DRAWS; k++) {
            struct line line;
            double offset_bar = 4.4 + 3.0 * random_normal(&random), slope_bar = 1.2 + 0.8 * random_normal(&random);
            begin(&line);
            for (int i = 0; i < n; i++) {
                double p = uniform(&random, 0.5, 4.0), sigma = uniform(&random, 0.3, 2.0);
                line_measure(&line, p, offset_bar + slope_bar * p + sigma * random_normal(&random), sigma);
            }
            at_low += pow((line_at(&line, 1.0) - offset_bar - slope_bar) / line_sigma_at(&line, 1.0), 2.0) / N_DRAWS;
            at_high +=
                pow((line_at(&line, 7.0) - offset_bar - 7.0 * slope_bar) / line_sigma_at(&line, 7.0), 2.0) / N_DRAWS;
            slope += pow((line.slope_bar_per_gpa - slope_bar) / line_slope_sigma(&line), 2.0) / N_DRAWS;
        }
        print_message("%d measured: pulls %.3f at 1 GPa, %.3f at 7 GPa, %.3f slope\n", n, sqrt(at_low), sqrt(at_high),
                      sqrt(slope));
        assert_true(sqrt(at_low) > 0.9 && sqrt(at_low) < 1.1);
        assert_true(sqrt(at_high) > 0.9 && sqrt(at_high) < 1.1);
        assert_true(sqrt(slope) > 0.9 && sqrt(slope) < 1.1);
    }
}

/* One edge at 2 GPa says much of 2 GPa, less of 6, and the prior has the rest; a sure measurement is believed, one that
 * says nothing changes nothing, and what is known gets no vaguer. */
static void a_measurement_counts_where_it_was_made(void **state)
{
    (void)state;
    struct line line, unknown;
    begin(&unknown);
    begin(&line);
    line_measure(&line, 2.0, 10.0, 0.01);
    assert_true(fabs(line_at(&line, 2.0) - 10.0) < 0.01);
    assert_true(line_sigma_at(&line, 2.0) < 0.01);
    assert_true(line_sigma_at(&line, 6.0) > 1.0 && line_sigma_at(&line, 6.0) < line_sigma_at(&unknown, 6.0));
    assert_true(line_at(&line, 6.0) > line_at(&unknown, 6.0)); /* wider there, so probably wider here */
    begin(&line);
    line_measure(&line, 2.0, 1000.0, 1e9);
    for (double p = 0.0; p < 8.0; p += 1.0) {
        assert_true(fabs(line_at(&line, p) - line_at(&unknown, p)) < 1e-3);
        assert_true(line_sigma_at(&line, p) <= line_sigma_at(&unknown, p));
    }
    begin(&line);
    for (int i = 0; i < 1000; i++) { /* a night that never ends */
        double before_bar = line_sigma_at(&line, 5.0);
        line_measure(&line, 3.0 + 0.001 * i, 8.0, 1.0);
        assert_true(line_sigma_at(&line, 5.0) <= before_bar && line_sigma_at(&line, 5.0) > 0.0);
        assert_true(line_slope_sigma(&line) > 0.0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_by_one_is_all_at_once),
        cmocka_unit_test(the_order_does_not_matter),
        cmocka_unit_test(the_stated_sigma_is_honest),
        cmocka_unit_test(a_measurement_counts_where_it_was_made),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
