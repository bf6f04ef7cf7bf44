/*
 * Goal: whole nights, compression and decompression, on cells the controller has never seen, end with every isobar
 * held, every scan taken, no overshoot and no drift; any one instrument may go away and come back; no invariant is
 * broken. Method: tests/nights, with the cells of the rehearsal. Seeds are drawn at run time and printed; SEED=N
 * repeats one.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <time.h>

#include "base/clock.h"
#include "tests/nights/night.h"

#define N_SEEDS 10

static const struct night_readings readings = {
    .pressure_gpa_sigma = 0.005, .temperature_gpa_per_k = 0.02, .membrane_bar_sigma = 0.005};

static uint64_t draw_seed(int k)
{
    const char *given = getenv("SEED");
    uint64_t first = given && *given ? strtoull(given, NULL, 10) : 100 * (uint64_t)time(NULL);
    return first + (uint64_t)k;
}

static void begin(struct night *night, uint64_t seed)
{
    static struct core_settings settings;
    static struct plant plant;
    night_default_settings(&settings);
    night_add_change(&settings, 1.5, 0.1, 3600.0, 1);
    night_add_change(&settings, 3.3, 1.5, 3600.0, 1);
    night_add_change(&settings, 1.5, 3.3, 3600.0, 1);
    plant_init(&plant, seed, 0.1);
    night_begin(night, &settings, &plant, &readings, seed);
}

static void print_violations(const struct night *night)
{
    for (int i = 0; i < INVARIANT_COUNT; i++) {
        const struct oracle_finding *first = &night->oracle.first[i];
        if (night->oracle.n_violations[i])
            print_message("%s broken %lld times, first at %.0f s with %g against %g: %s\n",
                          oracle_invariant_name((enum invariant)i), (long long)night->oracle.n_violations[i],
                          s_from_ns(first->t_ns), first->seen, first->allowed,
                          oracle_invariant_text((enum invariant)i));
    }
}

static void play(struct night *night)
{
    while (night_step(night))
        continue;
    assert_true(night->is_finished);
    assert_int_equal(night->n_isobars, 3);
    assert_int_equal(night->n_scans_complete, 3);
    print_violations(night);
    assert_int_equal(oracle_violations(&night->oracle), 0);
}

static double worst_overshoot_gpa(const struct night *night)
{
    double overshoot_gpa = -INFINITY;
    for (int i = 0; i < night->n_changes; i++)
        if (night->changes[i].direction > 0)
            overshoot_gpa = fmax(overshoot_gpa, night->changes[i].overshoot_gpa);
    return overshoot_gpa;
}

static double worst_departure_gpa(const struct night *night)
{
    double departure_gpa = 0.0;
    for (int i = 0; i < night->n_changes; i++)
        departure_gpa = fmax(departure_gpa, night->changes[i].departure_gpa);
    return departure_gpa;
}

static void quiet_nights_hold_every_isobar(void **state)
{
    (void)state;
    static struct night night;
    int64_t before_ns = clock_wall_ns();
    double simulated_s = 0.0;
    for (int k = 0; k < N_SEEDS; k++) {
        uint64_t seed = draw_seed(k);
        begin(&night, seed);
        play(&night);
        print_message("seed %llu: overshoot %+.3f GPa, departure %.3f GPa, %.1f h\n", (unsigned long long)seed,
                      worst_overshoot_gpa(&night), worst_departure_gpa(&night), s_from_ns(night.now_ns) / 3600.0);
        simulated_s += s_from_ns(night.now_ns);
        assert_true(worst_overshoot_gpa(&night) <= 0.05);
        assert_true(worst_departure_gpa(&night) <= 0.12);
    }
    print_message("%.0f times real time\n", simulated_s / s_from_ns(clock_wall_ns() - before_ns));
}

static void the_same_seed_gives_the_same_decisions(void **state)
{
    (void)state;
    static struct night a, b;
    begin(&a, 7);
    begin(&b, 7);
    play(&a);
    play(&b);
    oracle_compare(&a.oracle, &b.oracle);
    assert_int_equal(a.oracle.n_violations[INVARIANT_V10], 0);
    assert_true(a.seq == b.seq);
}

static void any_instrument_may_go_away_and_come_back(void **state)
{
    (void)state;
    static struct night night;
    static const struct {
        enum fault fault;
        enum moment moment;
        double from_s, lasts_s;
        uint32_t reasons;
    } cases[] = {
        {FAULT_MEMBRANE_OFF, MOMENT_RAMP_UP, 900.0, 120.0, HOLD_MEMBRANE_LINK},
        {FAULT_MEMBRANE_OFF, MOMENT_ISOBAR, 900.0, 600.0, HOLD_MEMBRANE_LINK},
        {FAULT_RUBY_OFF, MOMENT_RAMP_UP, 1500.0, 3600.0, HOLD_RUBY_LINK},
        {FAULT_RUBY_OFF, MOMENT_ISOBAR, 900.0, 600.0, HOLD_RUBY_LINK},
        {FAULT_DETECTOR_OFF, MOMENT_ISOBAR, 300.0, 600.0, HOLD_DETECTOR_LINK},
        {FAULT_BEAM_OFF, MOMENT_ISOBAR, 300.0, 600.0, HOLD_BEAM},
        {FAULT_DISK_OFF, MOMENT_RAMP_UP, 900.0, 600.0, HOLD_JOURNAL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        uint64_t seed = draw_seed((int)i);
        begin(&night, seed);
        night_add_fault(&night, cases[i].fault, cases[i].moment, cases[i].from_s, cases[i].lasts_s);
        play(&night);
        print_message("seed %llu, %s at %s: at most %+.3f GPa beyond the target meanwhile\n", (unsigned long long)seed,
                      fault_kind(cases[i].fault)->name, moment_kind(cases[i].moment)->name, night.fault_gpa_max);
        assert_true(night.faults[0].is_over);
        assert_true((night.faults[0].reasons & cases[i].reasons) != 0);
        assert_true(night.fault_gpa_max <= 0.05);
        assert_true(worst_departure_gpa(&night) <= 0.12);
    }
}

static void run_for(struct night *night, double s)
{
    int64_t end_ns = night->now_ns + ns_from_s(s);
    while (night->now_ns < end_ns && night_step(night))
        continue;
}

static void an_operator_can_hold_resume_and_stop(void **state)
{
    (void)state;
    static struct night night;
    begin(&night, 7);
    run_for(&night, 1200.0);
    night_command(&night, COMMAND_HOLD);
    run_for(&night, 1200.0); /* the retreat is over by then */
    double held_bar = night.setpoint_bar;
    run_for(&night, 1800.0);
    assert_true(night.setpoint_bar == held_bar);
    assert_true(night.reasons_seen & HOLD_OPERATOR);
    night_command(&night, COMMAND_RESUME);
    run_for(&night, 600.0);
    assert_true(night.setpoint_bar > held_bar);
    night_command(&night, COMMAND_STOP);
    run_for(&night, 1200.0);
    assert_true(night.is_finished);
    assert_int_equal(oracle_violations(&night.oracle), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(quiet_nights_hold_every_isobar),
        cmocka_unit_test(the_same_seed_gives_the_same_decisions),
        cmocka_unit_test(any_instrument_may_go_away_and_come_back),
        cmocka_unit_test(an_operator_can_hold_resume_and_stop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
