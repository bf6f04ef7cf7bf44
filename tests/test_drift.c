/*
 * Goal: the drift of an isobar is projected honestly, believed only when it is no noise, and corrected only where the
 * step declares it, between two scans, and recorded. Method: lines of known slope with noise from a fixed seed (pulls,
 * false alarms over whole isobars); nights in virtual time whose membrane was left away from the middle of the dead
 * zone on a gasket that creeps with the logarithm of time, with and without the declaration, under the oracle.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <math.h>

#include "base/clock.h"
#include "controller/drift.h"
#include "sim/random.h"
#include "tests/nights/cell.h"
#include "tests/nights/night.h"

#define ISOBAR_S 10800.0
#define SIGMA_GPA 0.015

/* Readings every 30 s of an isobar with this slope, up to `until_s`. */
static void add_readings(struct drift *drift, double slope_gpa_per_s, double from_s, double until_s,
                         struct random *random)
{
    for (double t_s = from_s; t_s < until_s; t_s += 30.0)
        drift_add(drift, ns_from_s(t_s), 3.3 + slope_gpa_per_s * t_s + SIGMA_GPA * random_normal(random), SIGMA_GPA);
}

static void too_little_is_not_projected(void **state)
{
    (void)state;
    struct random random = {.state = 1};
    struct drift drift;
    struct drift_projection projection;
    drift_begin(&drift);
    assert_true(isnan(drift.pressure_gpa_start));
    for (double t_s = 0.0; t_s < 900.0; t_s += 30.0) {
        add_readings(&drift, 1e-3, t_s, t_s + 1.0, &random);
        assert_false(drift_project(&drift, ns_from_s(t_s), ns_from_s(ISOBAR_S), &projection));
    }
    add_readings(&drift, 1e-3, 900.0, 931.0, &random);
    assert_true(drift_project(&drift, ns_from_s(930.0), ns_from_s(ISOBAR_S), &projection));
    drift_restart(&drift);
    assert_false(drift_project(&drift, ns_from_s(931.0), ns_from_s(ISOBAR_S), &projection));
    assert_true(drift.pressure_gpa_start > 3.0);
}

/* Error over stated sigma of the projected end, at half time; its rms must be near 1 (500 draws know it to 3 %). */
static void the_projection_knows_its_uncertainty(void **state)
{
    (void)state;
    struct random random = {.state = 2};
    double squares = 0.0, slope = 8e-6;
    for (int i = 0; i < 500; i++) {
        struct drift drift;
        struct drift_projection projection;
        drift_begin(&drift);
        add_readings(&drift, slope, 0.0, ISOBAR_S / 2.0, &random);
        assert_true(drift_project(&drift, ns_from_s(ISOBAR_S / 2.0), ns_from_s(ISOBAR_S), &projection));
        assert_true(projection.is_believed);
        double end_gpa = 3.3 + slope * ISOBAR_S - drift.pressure_gpa_start;
        double pull = (projection.departure_gpa - end_gpa) / projection.departure_gpa_sigma;
        squares += pull * pull;
    }
    assert_true(sqrt(squares / 500.0) > 0.9 && sqrt(squares / 500.0) < 1.1);
}

/* Asked with every reading of an isobar that does not drift, noise must not be believed: in less than one of fifty. */
static void noise_is_no_drift(void **state)
{
    (void)state;
    struct random random = {.state = 3};
    int n_alarms = 0;
    for (int i = 0; i < 300; i++) {
        struct drift drift;
        struct drift_projection projection;
        bool is_alarm = false;
        drift_begin(&drift);
        for (double t_s = 0.0; t_s < ISOBAR_S; t_s += 30.0) {
            add_readings(&drift, 0.0, t_s, t_s + 1.0, &random);
            if (drift_project(&drift, ns_from_s(t_s), ns_from_s(ISOBAR_S), &projection))
                is_alarm = is_alarm || (projection.is_believed && fabs(projection.departure_gpa) > 0.12);
        }
        n_alarms += is_alarm;
    }
    assert_true(n_alarms <= 5);
}

/* ---- in the night --------------------------------------------------------------------------------------------- */

struct outcome {
    double departure_gpa;
    int32_t n_corrections;
};

/* One load to 3.3 GPa on a gasket of the logarithmic law; then the piston gives
 * way, and the membrane stands `off` half widths above the middle. Two scans, or none. */
static struct outcome play(enum plan_drift_correction correction, double off, int32_t n_scans, uint64_t seed)
{
    static struct night night;
    static struct core_settings settings;
    const struct plant_law law = {.form = PLANT_LOGARITHMIC,
                                  .takeup_bar = 10.0,
                                  .dead_zone_bar = 4.0,
                                  .dead_zone_per_bar = 0.1,
                                  .creep_s = 600.0,
                                  .gpa_per_bar = 0.1,
                                  .slip_interval_s = 1e12,
                                  .slip_relaxation_s = 7200.0};
    const struct night_readings readings = {.pressure_gpa_sigma = SIGMA_GPA, .membrane_bar_sigma = 0.005};
    struct plant plant;
    bool is_placed = false;
    night_default_settings(&settings);
    night_add_change(&settings, 3.3, 0.1, ISOBAR_S, n_scans);
    settings.steps[settings.n_steps - 1].drift_correction = (int32_t)correction;
    plant_init_law(&plant, &law, seed, 0.1);
    night_begin(&night, &settings, &plant, &readings, seed);
    while (night_step(&night))
        if (night.core.phase == CORE_ISOBAR && !is_placed) {
            double half_width_bar = law.dead_zone_bar + law.dead_zone_per_bar * night.plant.load_bar;
            is_placed = true;
            night.plant.law.takeup_bar -= off * half_width_bar;
        }
    assert_true(night.is_finished && night.n_isobars == 1);
    assert_int_equal(night.n_scans_complete, n_scans);
    assert_int_equal(oracle_violations(&night.oracle), 0);
    return (struct outcome){.departure_gpa = night.changes[0].departure_gpa,
                            .n_corrections = night.core.isobar.n_corrections};
}

static void a_drift_is_corrected_where_the_step_declares_it(void **state)
{
    (void)state;
    for (int i = -1; i <= 1; i += 2)
        for (int32_t n_scans = 0; n_scans <= 2; n_scans += 2) {
            struct outcome left = play(PLAN_CORRECT_NONE, 0.75 * i, n_scans, 5);
            struct outcome corrected = play(PLAN_CORRECT_BETWEEN_SCANS, 0.75 * i, n_scans, 5);
            assert_int_equal(left.n_corrections, 0);
            assert_true(corrected.n_corrections >= 1 && corrected.n_corrections <= 3);
            assert_true(left.departure_gpa > 0.12 && corrected.departure_gpa < 0.7 * left.departure_gpa);
        }
}

static void a_quiet_isobar_is_left_alone(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 10; seed++)
        assert_int_equal(play(PLAN_CORRECT_BETWEEN_SCANS, 0.0, 2, seed).n_corrections, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(too_little_is_not_projected),
        cmocka_unit_test(the_projection_knows_its_uncertainty),
        cmocka_unit_test(noise_is_no_drift),
        cmocka_unit_test(a_drift_is_corrected_where_the_step_declares_it),
        cmocka_unit_test(a_quiet_isobar_is_left_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
