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

#include "analysis/ruby_scale.h"
#include "base/clock.h"
#include "controller/calibration.h"
#include "sim/random.h"

#define R1_NM 694.26
#define NOISE_NM 0.002
#define COMMON_NM 0.0005 /* of the line model */

#define TEMPERATURE_K 297.2
#define TEMPERATURE_K_SIGMA 1.0

static const struct calibration_settings SETTINGS = {
    .lambda0_nm = 694.25, .temperature_k_zero = 296, .correction = "datchi2007", .gpa_per_nm = 2.7};
static struct random chance = {.state = 1};

/* Twenty readings three seconds apart. */
static struct calibration draw(double r1_nm, double noise_nm, double drift_nm)
{
    struct calibration calibration;
    calibration_begin(&calibration, 20);
    for (int i = 0; i < 25; i++) /* five too many */
        calibration_add(&calibration,
                        &(struct calibration_reading){.t_ns = ns_from_s(1000.0 + 3.0 * i),
                                                      .r1_nm = r1_nm + drift_nm * (i / 19.0 - 0.5) +
                                                               noise_nm * random_normal(&chance),
                                                      .r1_nm_sigma = sqrt(NOISE_NM * NOISE_NM + COMMON_NM * COMMON_NM),
                                                      .noise_nm_sigma = NOISE_NM,
                                                      .temperature_k = TEMPERATURE_K,
                                                      .temperature_k_sigma = TEMPERATURE_K_SIGMA});
    return calibration;
}

/* Of R1 by TEMPERATURE_K. */
static double shift_nm(void) { return ruby_shift_nm(TEMPERATURE_K, 296); }

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
        double off_nm = result.lambda0_nm - (R1_NM - shift_nm());
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
        struct calibration calibration = draw(cases[i].lambda0_nm + shift_nm(), NOISE_NM, 0);
        assert_int_equal(judge(&calibration).verdict, cases[i].verdict);
    }
    struct calibration calibration = draw(694.25 + 0.030 + shift_nm(), NOISE_NM, 0);
    struct calibration_settings settings = SETTINGS;
    struct calibration_result result;
    settings.lambda0_nm_sigma = 0.010; /* of another day: three sigmas of all are 0.037 nm */
    calibration_judge(&calibration, &settings, &result);
    assert_int_equal(result.verdict, CALIBRATION_GOOD);
    struct calibration nonsense = draw(NAN, NOISE_NM, 0);
    assert_int_not_equal(judge(&nonsense).verdict, CALIBRATION_GOOD);
}

/* A ruby that cools by two kelvin meanwhile moves R1 by 0.015 nm, and the thermometer tells of it. */
static void a_temperature_that_is_measured_is_no_drift(void **state)
{
    (void)state;
    struct calibration calibration = draw(R1_NM, NOISE_NM, 0);
    for (int i = 0; i < calibration.n; i++) {
        struct calibration_reading *reading = &calibration.readings[i];
        reading->temperature_k = TEMPERATURE_K + 1 - 2 * i / 19.0;
        reading->temperature_k_sigma = 0.3;
        reading->r1_nm += ruby_shift_nm(reading->temperature_k, TEMPERATURE_K);
    }
    struct calibration_result result = judge(&calibration);
    assert_int_equal(result.verdict, CALIBRATION_GOOD);
    assert_true(fabs(result.lambda0_nm - (R1_NM - shift_nm())) < 0.002);
    assert_true(fabs(result.temperature_k - TEMPERATURE_K) < 1e-6 && fabs(result.temperature_k_sigma - 0.3) < 1e-6);
    assert_true(result.tolerance_nm > 3 * 0.3 * 0.0065 && result.tolerance_nm < 3 * 0.3 * 0.0075 + 0.002);
    for (int i = 0; i < calibration.n; i++) /* the same, and a thermometer that says nothing of it */
        calibration.readings[i].temperature_k = TEMPERATURE_K;
    assert_int_equal(judge(&calibration).verdict, CALIBRATION_DRIFT);
}

static void another_ruler_than_the_passports_is_refused(void **state)
{
    (void)state;
    struct calibration_settings settings = SETTINGS;
    struct calibration_result result;
    struct calibration calibration = draw(694.25 + 0.012 + shift_nm(), NOISE_NM, 0);
    settings.passport_lambda0_nm = 694.25 - 0.005;
    calibration_judge(&calibration, &settings, &result);
    assert_int_equal(result.verdict, CALIBRATION_GOOD); /* 0.017 nm apart */
    settings.passport_lambda0_nm = 694.25 - 0.012;
    calibration_judge(&calibration, &settings, &result);
    assert_int_equal(result.verdict, CALIBRATION_PASSPORT); /* 0.024 */
    settings.lambda0_nm = 694.20;
    calibration_judge(&calibration, &settings, &result);
    assert_int_equal(result.verdict, CALIBRATION_STRANGE); /* more telling */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_mean_is_lambda0_and_its_sigma_is_its_scatter),
        cmocka_unit_test(wrong_readings_among_them_are_left_out),
        cmocka_unit_test(a_drift_is_seen),
        cmocka_unit_test(more_scatter_than_their_sigmas_is_refused),
        cmocka_unit_test(what_is_no_free_ruby_is_refused),
        cmocka_unit_test(a_temperature_that_is_measured_is_no_drift),
        cmocka_unit_test(another_ruler_than_the_passports_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
