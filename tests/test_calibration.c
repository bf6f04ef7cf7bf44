/*
 * Goal: lambda0 comes out of many readings of a free ruby with an honest sigma, and readings that drift, scatter more
 * than they say, or belong to no free ruby are refused, each for its own reason. Method: readings drawn from a known
 * wavelength with known noise, a thousand sets; then each fault at the size where it must show, and below it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <math.h>

#include "base/clock.h"
#include "controller/calibration.h"
#include "sim/random.h"

#define R1_NM 694.26
#define NOISE_NM 0.002
#define COMMON_NM 0.0005 /* of the line model */

static const struct calibration_settings SETTINGS = {
    .lambda0_nm = 694.25, .shift_nm = 0.008, .temperature_nm_sigma = 0.007, .gpa_per_nm = 2.7};
static struct random chance = {.state = 1};

/* Twenty readings three seconds apart. */
static struct calibration draw(double r1_nm, double noise_nm, double drift_nm)
{
    struct calibration calibration;
    calibration_begin(&calibration, 20);
    for (int i = 0; i < 25; i++) /* five too many */
        calibration_add(&calibration, ns_from_s(1000.0 + 3.0 * i),
                        r1_nm + drift_nm * (i / 19.0 - 0.5) + noise_nm * random_normal(&chance),
                        sqrt(NOISE_NM * NOISE_NM + COMMON_NM * COMMON_NM), NOISE_NM);
    return calibration;
}

static struct calibration_result judge(const struct calibration *calibration)
{
    struct calibration_result result;
    calibration_judge(calibration, &SETTINGS, &result);
    return result;
}

static void the_mean_is_lambda0_and_its_sigma_is_its_scatter(void **state)
{
    (void)state;
    double sum = 0, sum2 = 0;
    int n_refused = 0;
    enum { N = 1000 };
    for (int i = 0; i < N; i++) {
        struct calibration calibration = draw(R1_NM, NOISE_NM, 0);
        struct calibration_result result = judge(&calibration);
        n_refused += result.verdict != CALIBRATION_GOOD;
        double off_nm = result.lambda0_nm - (R1_NM - SETTINGS.shift_nm);
        sum += off_nm;
        sum2 += off_nm * off_nm;
        /* noise / sqrt(20), never below what the readings say of themselves, and what they have in common */
        assert_true(result.lambda0_nm_sigma >= sqrt(NOISE_NM * NOISE_NM / 20 + COMMON_NM * COMMON_NM) * 0.999);
        assert_true(result.lambda0_nm_sigma < 0.0012);
    }
    assert_int_equal(n_refused, 0);
    assert_true(fabs(sum / N) < 4 * 0.00045 / sqrt(N));
    assert_true(sqrt(sum2 / N) > 0.0004 && sqrt(sum2 / N) < 0.0005); /* 0.00045 +- 2 % */
}

static void wrong_readings_among_them_are_left_out(void **state)
{
    (void)state;
    struct calibration calibration = draw(R1_NM, NOISE_NM, 0);
    calibration.readings[3].r1_nm += 0.5;
    calibration.readings[11].r1_nm -= 0.03;
    struct calibration_result result = judge(&calibration);
    assert_int_equal(result.verdict, CALIBRATION_GOOD);
    assert_int_equal(result.n_used, 18);
    assert_true(fabs(result.r1_nm - R1_NM) < 0.002);
    for (int i = 0; i < 5; i++) /* a quarter of them is no accident */
        calibration.readings[2 * i].r1_nm = R1_NM + 0.1 * (i + 1);
    assert_int_equal(judge(&calibration).verdict, CALIBRATION_SCATTER);
}

static void a_drift_is_seen(void **state)
{
    (void)state;
    for (int sign = -1; sign <= 1; sign += 2) {
        struct calibration calibration = draw(R1_NM, NOISE_NM, sign * 0.012);
        struct calibration_result result = judge(&calibration);
        assert_int_equal(result.verdict, CALIBRATION_DRIFT);
        assert_true(fabs(result.drift_nm - sign * 0.012) < 0.006);
    }
    struct calibration still = draw(R1_NM, NOISE_NM, 0.001);
    assert_int_equal(judge(&still).verdict, CALIBRATION_GOOD);
}

static void more_scatter_than_their_sigmas_is_refused(void **state)
{
    (void)state;
    struct calibration calibration = draw(R1_NM, 4 * NOISE_NM, 0);
    assert_int_equal(judge(&calibration).verdict, CALIBRATION_SCATTER);
}

static void what_is_no_free_ruby_is_refused(void **state)
{
    (void)state;
    /* 0.0007 nm of the line and 0.007 nm of 1 K: three sigmas are 0.021 nm */
    const struct {
        double lambda0_nm;
        enum calibration_verdict verdict;
    } cases[] = {{694.25 + 0.015, CALIBRATION_GOOD},    {694.25 - 0.015, CALIBRATION_GOOD},
                 {694.25 + 0.030, CALIBRATION_STRANGE}, {694.25 - 0.030, CALIBRATION_STRANGE},
                 {694.52, CALIBRATION_RANGE},           {693.97, CALIBRATION_RANGE}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct calibration calibration = draw(cases[i].lambda0_nm + SETTINGS.shift_nm, NOISE_NM, 0);
        assert_int_equal(judge(&calibration).verdict, cases[i].verdict);
    }
    struct calibration nonsense = draw(NAN, NOISE_NM, 0);
    assert_int_not_equal(judge(&nonsense).verdict, CALIBRATION_GOOD);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_mean_is_lambda0_and_its_sigma_is_its_scatter),
        cmocka_unit_test(wrong_readings_among_them_are_left_out),
        cmocka_unit_test(a_drift_is_seen),
        cmocka_unit_test(more_scatter_than_their_sigmas_is_refused),
        cmocka_unit_test(what_is_no_free_ruby_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
