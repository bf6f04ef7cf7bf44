/*
 * Goal: the loading protocol takes every transition it declares, can be held and resumed in every state, leaves no
 * state it cannot leave, and keeps L1 to L4 whatever the readings do. Method: tables for hold and resume; whole changes
 * up and down on the plant; a walk from printed seeds in which the membrane sticks, lags, jumps and leaks, the ruby is
 * noisy, jumps, sticks and goes away, and holds come at any moment. SEED=N repeats a walk; a night that ends in an
 * assertion of loading.c prints its seed first.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "controller/loading.h"
#include "sim/plant.h"
#include "tests/nights/night.h"

#define N_WALKS 60
#define WALK_STEPS 4000

#define RATE_BAR_PER_S (2.0 / 60.0)
#define ISOBAR_S 3600.0
#define DRIFT_GPA_MAX 0.12

static struct loading_settings settings; /* those of the daemon */

/* Every change of state that any test has seen; the last test compares them with the list in the header. */
static bool transitions_seen[LOADING_STATE_COUNT][LOADING_STATE_COUNT];

static void note(enum loading_state before, const struct loading *loading)
{
    transitions_seen[before][loading->state] = true;
}

static void start(struct loading *loading, int direction, double target_gpa, double membrane_bar, int64_t now_ns)
{
    enum loading_state before = loading->state;
    loading_start(loading, &settings, direction, target_gpa, RATE_BAR_PER_S, ISOBAR_S, DRIFT_GPA_MAX, membrane_bar,
                  now_ns);
    note(before, loading);
}

static void step(struct loading *loading, int64_t now_ns, double membrane_bar, double bar_min, double bar_max)
{
    enum loading_state before = loading->state;
    loading_step(loading, now_ns, membrane_bar, bar_min, bar_max);
    note(before, loading);
}

static void hold(struct loading *loading)
{
    enum loading_state before = loading->state;
    loading_hold(loading);
    note(before, loading);
}

static void resume(struct loading *loading, double membrane_bar, int64_t now_ns)
{
    enum loading_state before = loading->state;
    loading_resume(loading, membrane_bar, now_ns);
    note(before, loading);
}

/* A loading, its cell and the wall of a journal that authorises at once what is asked for. */
struct rig {
    struct loading loading;
    struct plant plant;
    struct plant_input input;
    struct random random;
    int64_t now_ns;
    double dt_s;       /* between membrane readings */
    double ruby_due_s; /* INFINITY: no ruby */
    bool states_seen[LOADING_STATE_COUNT];
};

static double uniform(struct random *random, double low, double high)
{
    return low + (high - low) * random_uniform(random);
}

static void rig_start(struct rig *rig, uint64_t seed, int direction, double target_gpa, double membrane_bar)
{
    memset(rig, 0, sizeof *rig);
    plant_init(&rig->plant, seed, 0.1);
    rig->random.state = seed;
    rig->plant.membrane_bar = membrane_bar;
    rig->input = (struct plant_input){.membrane_bar_setpoint = membrane_bar, .slew_bar_per_s = 0.1, .output_on = true};
    for (int s = 0; s < 40000; s++) /* the sample has come to rest under this membrane */
        plant_step(&rig->plant, 1.0, &rig->input);
    rig->now_ns = 1000 * NS_PER_S;
    rig->dt_s = 1.0;
    rig->ruby_due_s = 1000.0;
    start(&rig->loading, direction, target_gpa, membrane_bar, rig->now_ns);
}

static void rig_step(struct rig *rig)
{
    struct loading *loading = &rig->loading;
    double bar_min, bar_max;
    rig->now_ns += ns_from_s(rig->dt_s);
    for (double left_s = rig->dt_s; left_s > 0.0; left_s -= 0.5)
        plant_step(&rig->plant, fmin(left_s, 0.5), &rig->input);
    if (s_from_ns(rig->now_ns) >= rig->ruby_due_s) {
        rig->ruby_due_s = s_from_ns(rig->now_ns) + 5.0;
        double noise_gpa = 0.005 * random_normal(&rig->random);
        loading_add_reading(loading, rig->now_ns, plant_pressure_gpa(&rig->plant) + noise_gpa, 0.005);
    }
    loading_range(loading, &bar_min, &bar_max);
    step(loading, rig->now_ns, rig->plant.membrane_bar + 0.003 * random_normal(&rig->random), bar_min, bar_max);
    rig->input.membrane_bar_setpoint = loading->command_bar;
    rig->states_seen[loading->state] = true;
}

/* Steps until `state`, or until the time is up; true when it was reached. */
static bool rig_run(struct rig *rig, enum loading_state state, double s_max)
{
    for (double s = 0.0; s < s_max && rig->loading.state != state; s += rig->dt_s)
        rig_step(rig);
    return rig->loading.state == state;
}

static void a_change_goes_through_all_its_states(void **state)
{
    (void)state;
    static const struct {
        int direction;
        double from_bar, target_gpa, dt_s;
    } cases[] = {{1, 0.0, 1.5, 1.0}, {1, 0.0, 3.3, 1.7}, {-1, 60.0, 1.5, 1.0}, {1, 0.0, 1.0, 2.5}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct rig rig;
        rig_start(&rig, 11 + i, cases[i].direction, cases[i].target_gpa, cases[i].from_bar);
        rig.dt_s = cases[i].dt_s;
        rig.states_seen[rig.loading.state] = true;
        if (!rig_run(&rig, LOADING_DONE, 40000.0))
            fail_msg("case %zu: after 11 h in %s, command %.3f bar, %.3f GPa", i, loading_state_name(rig.loading.state),
                     rig.loading.command_bar, plant_pressure_gpa(&rig.plant));
        for (int s = LOADING_RAMP; s <= LOADING_WATCH; s++)
            assert_true(rig.states_seen[s]);
        assert_true(fabs(plant_pressure_gpa(&rig.plant) - cases[i].target_gpa) < 0.1);
        double command_bar = rig.loading.command_bar;
        rig_step(&rig);
        assert_true(rig.loading.command_bar == command_bar); /* DONE stays where it is */
    }
}

static void hold_and_resume_in_every_state(void **state)
{
    (void)state;
    static const struct {
        enum loading_state from;
        int direction;
        enum loading_state held, resumed;
    } cases[] = {
        {LOADING_IDLE, 1, LOADING_IDLE, LOADING_IDLE},          {LOADING_RAMP, 1, LOADING_RETREAT, LOADING_RAMP},
        {LOADING_RAMP, -1, LOADING_HELD, LOADING_RAMP},         {LOADING_BACK_OFF, 1, LOADING_RETREAT, LOADING_RAMP},
        {LOADING_BACK_OFF, -1, LOADING_HELD, LOADING_RAMP},     {LOADING_RECENTRE, 1, LOADING_HELD, LOADING_RECENTRE},
        {LOADING_RECENTRE, -1, LOADING_HELD, LOADING_RECENTRE}, {LOADING_WATCH, 1, LOADING_HELD, LOADING_WATCH},
        {LOADING_WATCH, -1, LOADING_HELD, LOADING_WATCH},       {LOADING_DONE, 1, LOADING_DONE, LOADING_DONE},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct rig rig;
        rig_start(&rig, 3, cases[i].direction, cases[i].direction > 0 ? 3.0 : 1.0, 40.0);
        struct loading *loading = &rig.loading;
        loading->state = cases[i].from;
        loading->near_edge_bar = cases[i].direction * 40.0; /* as at the begin of a back-off */
        hold(loading);
        assert_int_equal(loading->state, cases[i].held);
        hold(loading); /* a second doubt changes nothing */
        assert_int_equal(loading->state, cases[i].held);
        if (loading->state == LOADING_RETREAT) {
            assert_true(rig_run(&rig, LOADING_HELD, 400.0));
            assert_true(loading->command_bar < 40.0);
        }
        double command_bar = loading->command_bar;
        for (int s = 0; s < 600 && loading->state == LOADING_HELD; s++)
            rig_step(&rig);
        assert_true(loading->command_bar == command_bar); /* a hold does not move */
        double stands_bar = command_bar - 0.3;            /* where the membrane is read by then */
        resume(loading, stands_bar, rig.now_ns);
        assert_int_equal(loading->state, cases[i].resumed);
        if (cases[i].held != cases[i].from)
            assert_true(loading->command_bar == stands_bar && loading->trend.n == 0);
    }
}

/* RETREAT needs no ruby and ends, whatever the interval between membrane readings. */
static void a_retreat_ends(void **state)
{
    (void)state;
    for (int k = 0; k < 40; k++) {
        struct rig rig;
        rig_start(&rig, 21, 1, 3.0, 40.0 + 0.017 * k);
        rig.dt_s = 1.0 + 0.05 * k;
        rig.ruby_due_s = INFINITY;
        hold(&rig.loading);
        assert_int_equal(rig.loading.state, LOADING_RETREAT);
        if (!rig_run(&rig, LOADING_HELD, 3600.0))
            fail_msg("reading every %.2f s: still in retreat after an hour, command %.3f bar, goal %.3f bar", rig.dt_s,
                     rig.loading.command_bar, rig.loading.centre_bar);
    }
}

/* A membrane that lags behind by more than the leash, or does not move at all, with the noise of its sensor. */
static void a_retreat_on_a_stuck_membrane_survives(void **state)
{
    (void)state;
    struct loading loading = {.state = LOADING_IDLE};
    struct random random = {.state = 5};
    int64_t now_ns = NS_PER_S;
    start(&loading, 1, 3.0, 50.0, now_ns);
    hold(&loading);
    for (int s = 0; s < 300; s++) {
        double before_bar = loading.command_bar;
        now_ns += NS_PER_S;
        step(&loading, now_ns, 50.0 + 0.01 * random_normal(&random), 40.0, 60.0);
        assert_true(loading.command_bar <= before_bar); /* L4 */
        assert_true(loading.command_bar >= 50.0 - settings.leash_bar - 0.1);
    }
    assert_true(loading.is_stalled);
}

static void holds_that_follow_each_other_do_not_walk_the_membrane_down(void **state)
{
    (void)state;
    struct rig rig;
    rig_start(&rig, 4, 1, 3.0, 40.0);
    hold(&rig.loading);
    assert_true(rig_run(&rig, LOADING_HELD, 400.0));
    double first_bar = rig.loading.command_bar;
    for (int i = 0; i < 5; i++) { /* each resume is followed by the next doubt before a trend is known */
        resume(&rig.loading, rig.plant.membrane_bar, rig.now_ns);
        for (int s = 0; s < 20; s++)
            rig_step(&rig);
        hold(&rig.loading);
        assert_true(rig_run(&rig, LOADING_HELD, 400.0));
    }
    if (!(rig.loading.command_bar > first_bar - 1.0))
        fail_msg("five holds later the membrane stands %.1f bar lower", first_bar - rig.loading.command_bar);
}

static void a_stall_is_seen_and_can_be_resumed(void **state)
{
    (void)state;
    for (int direction = -1; direction <= 1; direction += 2) {
        struct loading loading = {.state = LOADING_IDLE};
        int64_t now_ns = 1000 * NS_PER_S;
        start(&loading, direction, direction > 0 ? 3.0 : 0.5, 40.0, now_ns);
        for (int s = 0; s < 400 && !loading.is_stalled; s++) {
            now_ns += NS_PER_S;
            if (s % 5 == 0)
                loading_add_reading(&loading, now_ns, 1.0, 0.005);
            step(&loading, now_ns, 40.0, 30.0, 50.0);
        }
        assert_true(loading.is_stalled);
        hold(&loading);
        resume(&loading, 40.0, now_ns);
        now_ns += NS_PER_S;
        step(&loading, now_ns, 40.0, 30.0, 50.0);
        assert_false(loading.is_stalled); /* or an operator's resume would be taken back at once, for ever */
    }
}

/* With its valves in other hands nobody drives the membrane, and it moves as those hands let it. */
static void what_nobody_drove_has_not_stalled(void **state)
{
    (void)state;
    struct loading loading = {.state = LOADING_IDLE};
    int64_t now_ns = 1000 * NS_PER_S;
    start(&loading, 1, 3.0, 40.0, now_ns);
    for (int s = 0; s < 60; s++) {
        now_ns += NS_PER_S;
        if (s % 5 == 0)
            loading_add_reading(&loading, now_ns, 1.0, 0.005);
        step(&loading, now_ns, 40.0, 30.0, 50.0);
    }
    hold(&loading); /* a retreat needs no ruby */
    loading.centre_bar = 35.0;
    int n_asked = 0; /* seconds in which the command has been ahead of a membrane that does not move */
    for (int s = 0; s < 600 && !loading.is_stalled; s++) {
        assert_int_equal(loading.state, LOADING_RETREAT);
        n_asked += fabs(loading.command_bar - 40.0) > 0.3;
        now_ns += n_asked == 20 ? 100 * NS_PER_S : NS_PER_S;
        step(&loading, now_ns, 40.0, 30.0, 50.0);
        assert_false(n_asked < 60 && loading.is_stalled);
    }
    assert_true(loading.is_stalled); /* driven again, and still it does not move */
}

/* The first reading after a loss may be wrong; a set point made of it would stand until a trend is known. */
static void a_wrong_reading_at_a_resume_is_no_set_point(void **state)
{
    (void)state;
    struct rig rig;
    rig_start(&rig, 8, 1, 3.0, 40.0);
    hold(&rig.loading);
    assert_true(rig_run(&rig, LOADING_HELD, 400.0));
    double held_bar = rig.loading.command_bar;
    resume(&rig.loading, 100.0, rig.now_ns);
    assert_true(rig.loading.command_bar <= held_bar + settings.leash_bar);
}

/* A small load: the membrane may be empty before the far edge of the dead zone is seen. */
static void a_back_off_that_reaches_zero_ends(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 5; seed++) {
        struct rig rig;
        rig_start(&rig, seed, 1, 0.3, 0.0);
        if (!rig_run(&rig, LOADING_DONE, 40000.0))
            fail_msg("seed %d: after 11 h in %s, command %.2f bar, %.3f GPa, at limit: %d", (int)seed,
                     loading_state_name(rig.loading.state), rig.loading.command_bar, plant_pressure_gpa(&rig.plant),
                     rig.loading.is_at_limit);
    }
}

static void v11_is_nan_until_a_slide_is_seen(void **state)
{
    (void)state;
    struct rig rig;
    rig_start(&rig, 1, 1, 3.0, 10.0);
    assert_true(isnan(loading_pressure_gpa_if_died(&rig.loading)));
    for (int s = 0; s < 20000 && !rig.loading.slides[0].is_begun; s++)
        rig_step(&rig);
    assert_true(loading_pressure_gpa_if_died(&rig.loading) > plant_pressure_gpa(&rig.plant));
    rig_start(&rig, 1, -1, 1.5, 60.0);
    for (int s = 0; s < 20000 && !rig.loading.slides[0].is_begun; s++)
        rig_step(&rig);
    assert_true(rig.loading.slides[0].is_begun && isnan(loading_pressure_gpa_if_died(&rig.loading)));
}

/* A target just below the cell's limit: V11 stops the membrane before, and whoever waits is told. */
static void a_target_too_near_the_cell_s_limit_is_not_waited_for(void **state)
{
    (void)state;
    int n_at_limit = 0;
    for (uint64_t seed = 30; seed < 40; seed++) {
        struct rig rig;
        rig_start(&rig, seed, 1, 3.0, 10.0);
        rig.loading.settings.pressure_gpa_max = 3.01;
        for (int s = 0; s < 60000 && !rig.loading.is_at_limit && rig.loading.state != LOADING_DONE; s++)
            rig_step(&rig);
        n_at_limit += rig.loading.is_at_limit;
        if (rig.loading.state != LOADING_DONE && !rig.loading.is_at_limit)
            fail_msg("seed %d waits in %s at %.3f GPa", (int)seed, loading_state_name(rig.loading.state),
                     plant_pressure_gpa(&rig.plant));
        for (int s = 0; s < 86400; s++) /* the daemon dies */
            plant_step(&rig.plant, 1.0, &rig.input);
        double crept_gpa = rig.plant.load_bar * rig.plant.law.gpa_per_bar; /* without the slips of that day */
        if (!(crept_gpa < 3.01 + 0.1)) /* what the first slide of an unknown cell may hide */
            fail_msg("seed %d crept to %.3f GPa", (int)seed, crept_gpa);
    }
    assert_true(n_at_limit >= 5); /* a slip lifts some to the target */
}

/* A slide ends where a hold begins: it has taught what it has, and the slips of hours without a ramp add nothing. */
static void a_hold_ends_the_slide(void **state)
{
    (void)state;
    for (int direction = -1; direction <= 1; direction += 2) {
        struct rig rig;
        rig_start(&rig, 7, direction, direction > 0 ? 3.0 : 1.0, direction > 0 ? 10.0 : 60.0);
        struct loading *loading = &rig.loading;
        for (int s = 0; s < 20000 && !loading->slides[SLIDE_YIELDS].is_begun; s++)
            rig_step(&rig);
        for (int s = 0; s < 300; s++)
            rig_step(&rig);
        const struct slide *slides = loading->slides;
        double odds = slides[SLIDE_YIELDS].chi2 - slides[SLIDE_FLOWS].chi2;
        double yield_share = slides[SLIDE_YIELDS].state[SLIDE_FLOW];
        assert_true(slides[SLIDE_YIELDS].is_begun && odds != 0.0 && loading->viscous_odds == 0.0);
        hold(loading);
        assert_false(slides[SLIDE_YIELDS].is_begun || slides[SLIDE_FLOWS].is_begun);
        assert_true(isnan(loading_pressure_gpa_if_died(loading)));
        rig.ruby_due_s = INFINITY;
        for (int s = 0; s < 3600; s++) {
            if (s % 5 == 0) { /* for every minute of the hour a slip of its own */
                double slipped_gpa = 0.05 * (s / 60 % 7 - 3);
                loading_add_reading(loading, rig.now_ns, plant_pressure_gpa(&rig.plant) + slipped_gpa, 0.005);
            }
            rig_step(&rig);
        }
        assert_int_equal(loading->state, LOADING_HELD);
        resume(loading, rig.plant.membrane_bar, rig.now_ns);
        assert_true(loading->viscous_odds == odds && loading->yield_share == yield_share);
        rig.ruby_due_s = s_from_ns(rig.now_ns);
        for (int s = 0; s < 20000 && !slides[SLIDE_YIELDS].is_begun; s++)
            rig_step(&rig);
        assert_true(slides[SLIDE_YIELDS].is_begun); /* afresh, from where the sample is by now */
        double level_gpa = direction * slides[SLIDE_YIELDS].state[SLIDE_LEVEL];
        assert_true(fabs(level_gpa - plant_pressure_gpa(&rig.plant)) < 0.02);
    }
}

/* ---- readings made to measure -------------------------------------------------------------------------------- */

/* A loading whose membrane follows at once, inside a wide authorised range, and readings of the test's own making. */
struct desk {
    struct loading loading;
    int64_t now_ns;
    double level_gpa, sigma_gpa;
    double bar_min, bar_max;
};

static void desk_start(struct desk *desk, int direction, double target_gpa, double membrane_bar)
{
    memset(desk, 0, sizeof *desk);
    desk->now_ns = 1000 * NS_PER_S;
    desk->sigma_gpa = 0.005;
    desk->bar_max = settings.membrane_bar_max;
    start(&desk->loading, direction, target_gpa, membrane_bar, desk->now_ns);
}

/* `seconds` of readings every 3 s on a line that goes on from the last level; ends when the state changes. */
static void desk_run(struct desk *desk, double slope_gpa_per_s, double seconds)
{
    enum loading_state before = desk->loading.state;
    for (int s = 0; s < (int)seconds && desk->loading.state == before; s++) {
        desk->now_ns += NS_PER_S;
        desk->level_gpa += slope_gpa_per_s;
        if (s % 3 == 0)
            loading_add_reading(&desk->loading, desk->now_ns, desk->level_gpa, desk->sigma_gpa);
        step(&desk->loading, desk->now_ns, desk->loading.command_bar, desk->bar_min, desk->bar_max);
    }
}

static void every_state_has_a_name(void **state)
{
    (void)state;
    for (int i = 0; i < LOADING_STATE_COUNT; i++)
        for (int j = 0; j < LOADING_STATE_COUNT; j++) {
            const char *a = loading_state_name((enum loading_state)i), *b = loading_state_name((enum loading_state)j);
            assert_true((strcmp(a, b) == 0) == (i == j));
        }
}

static void a_change_without_back_off_stays_where_the_ramp_ended(void **state)
{
    (void)state;
    for (int direction = -1; direction <= 1; direction += 2) {
        struct rig rig;
        rig_start(&rig, 31, direction, 1.5, direction > 0 ? 0.0 : 60.0);
        rig.loading.settings.back_off = PLAN_BACK_OFF_NONE;
        assert_true(rig_run(&rig, LOADING_WATCH, 20000.0));
        double command_bar = rig.loading.command_bar;
        assert_true(rig_run(&rig, LOADING_DONE, 20000.0));
        assert_true(rig.loading.command_bar == command_bar);
        assert_false(rig.states_seen[LOADING_BACK_OFF] || rig.states_seen[LOADING_RECENTRE]);
    }
}

/* A slope so steep that the ramp ends far from the target; then the sample stands still, or even falls. */
static void a_ramp_that_ended_too_early_is_taken_up_again(void **state)
{
    (void)state;
    for (int direction = -1; direction <= 1; direction += 2)
        for (int falls = 0; falls < 2; falls++) {
            struct desk desk;
            desk_start(&desk, direction, direction > 0 ? 5.0 : 1.0, 60.0);
            desk.level_gpa = direction > 0 ? 2.0 : 4.0;
            desk_run(&desk, direction * 6e-3, 600.0);
            assert_int_equal(desk.loading.state, LOADING_BACK_OFF);
            double left_gpa = direction * (desk.loading.pressure_gpa_target - desk.level_gpa);
            assert_true(left_gpa > 3.0 * settings.short_gpa);
            desk_run(&desk, falls ? direction * -2e-3 : 0.0, 3600.0);
            if (desk.loading.state != LOADING_RAMP)
                fail_msg("direction %d, falls %d: %s, %.2f GPa short", direction, falls,
                         loading_state_name(desk.loading.state), left_gpa);
        }
}

/* With a negative short_gpa no plateau is ever high enough: the approaches are counted all the same. */
static void approaches_come_to_an_end(void **state)
{
    (void)state;
    struct desk desk;
    int n_ramps = 1;
    desk_start(&desk, 1, 2.0, 60.0);
    desk.loading.settings.short_gpa = -1.0;
    desk.level_gpa = 2.01;
    for (int i = 0; i < 20 && desk.loading.state != LOADING_RECENTRE; i++) {
        desk_run(&desk, desk.loading.state == LOADING_BACK_OFF && n_ramps >= 4 ? -1e-4 : 0.0, 3600.0);
        n_ramps += desk.loading.state == LOADING_RAMP;
    }
    assert_int_equal(desk.loading.state, LOADING_RECENTRE);
    assert_true(n_ramps >= 2 && n_ramps <= 4);
    assert_int_equal(desk.loading.n_approaches, n_ramps);
}

/* A ruby of 0.05 GPa needs more readings for a mean than have come when the ramp ends: no drop, no plateau yet. */
static void a_plateau_needs_enough_readings(void **state)
{
    (void)state;
    struct desk desk;
    desk_start(&desk, 1, 2.0, 60.0);
    desk.level_gpa = 2.0;
    desk.sigma_gpa = 0.05;
    desk_run(&desk, 0.0, 60.0);
    assert_int_equal(desk.loading.state, LOADING_BACK_OFF);
    desk_run(&desk, 0.0, 15.0);
    assert_true(desk.loading.plateau_n == 0 && desk.loading.n_below == 0);
    desk_run(&desk, 0.0, 120.0);
    assert_true(desk.loading.plateau_n > 0 && desk.loading.n_below == 0);
}

static void a_drift_is_corrected_against_its_direction(void **state)
{
    (void)state;
    static const struct {
        double drift; /* in units of what is tolerated, in the direction of the change */
        enum plan_back_off back_off;
        double moves; /* -1: back from the direction of the change */
    } cases[] = {{3.0, PLAN_BACK_OFF_CALIBRATE, -1.0}, {-3.0, PLAN_BACK_OFF_CALIBRATE, 1.0},
                 {0.2, PLAN_BACK_OFF_CALIBRATE, 0.0},  {-0.2, PLAN_BACK_OFF_CALIBRATE, 0.0},
                 {3.0, PLAN_BACK_OFF_NONE, 0.0},       {-3.0, PLAN_BACK_OFF_NONE, 0.0}};
    for (int direction = -1; direction <= 1; direction += 2)
        for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
            struct desk desk;
            int n_corrections = 0;
            double slope = cases[i].drift * direction * DRIFT_GPA_MAX / ISOBAR_S;
            desk_start(&desk, direction, 2.0, 60.0);
            struct loading *loading = &desk.loading;
            loading->state = LOADING_WATCH;
            loading->settings.back_off = cases[i].back_off;
            loading->centre_bar = direction * 60.0;
            desk.level_gpa = 2.0;
            for (int k = 0; k < 20 && loading->state != LOADING_DONE; k++) {
                double before_bar = loading->command_bar;
                desk_run(&desk, slope, 3600.0);
                n_corrections += loading->state == LOADING_RECENTRE;
                if (loading->state == LOADING_WATCH) /* after a correction */
                    assert_true(direction * (loading->command_bar - before_bar) * cases[i].moves > 0.1);
            }
            assert_int_equal(loading->state, LOADING_DONE);
            assert_int_equal(n_corrections, loading->n_corrections);
            assert_true(cases[i].moves != 0.0 ? n_corrections >= 1 && n_corrections <= 3 : n_corrections == 0);
            assert_true(n_corrections > 0 || loading->command_bar == 60.0);
        }
}

/* ---- refusals: L1 to L4, one by one -------------------------------------------------------------------------- */

static void without_fresh_readings_nothing_moves(void **state)
{
    (void)state;
    static const enum loading_state blind[] = {LOADING_RAMP, LOADING_BACK_OFF, LOADING_WATCH};
    for (size_t i = 0; i < sizeof blind / sizeof blind[0]; i++)
        for (int was_seen = 0; was_seen < 2; was_seen++) {
            struct desk desk;
            desk_start(&desk, 1, 3.0, 60.0);
            for (int k = 0; k < 30 && was_seen; k++)
                loading_add_reading(&desk.loading, (900 + 3 * k) * NS_PER_S, 1.0, 0.005);
            desk.now_ns += 200 * NS_PER_S; /* too old, or none at all */
            desk.loading.state = blind[i];
            for (int s = 0; s < 3600; s++) {
                desk.now_ns += NS_PER_S;
                step(&desk.loading, desk.now_ns, 60.0, 0.0, settings.membrane_bar_max);
            }
            assert_true(desk.loading.command_bar == 60.0);
            assert_int_equal(desk.loading.state, blind[i]);
        }
}

static void idle_held_and_done_do_not_step(void **state)
{
    (void)state;
    static const enum loading_state still[] = {LOADING_IDLE, LOADING_HELD, LOADING_DONE};
    for (size_t i = 0; i < sizeof still / sizeof still[0]; i++) {
        struct desk desk;
        desk_start(&desk, 1, 3.0, 60.0);
        desk.level_gpa = 1.0;
        desk_run(&desk, 0.0, 100.0);
        desk.loading.state = still[i];
        double command_bar = desk.loading.command_bar;
        desk_run(&desk, -1e-3, 600.0);
        assert_true(desk.loading.command_bar == command_bar);
        assert_int_equal(desk.loading.state, still[i]);
    }
}

static void the_authorised_range_and_the_leash_hold_the_ramp(void **state)
{
    (void)state;
    struct desk desk;
    desk_start(&desk, 1, 3.0, 60.0);
    desk.level_gpa = 1.0;
    desk.bar_min = 59.9;
    desk.bar_max = 60.2;
    desk_run(&desk, 0.0, 600.0);
    assert_true(desk.loading.command_bar == 60.2); /* L1: as far as the journal says, and not at all stalled */
    assert_false(desk.loading.is_stalled || desk.loading.is_at_limit);
    desk_start(&desk, 1, 3.0, 60.0);
    for (int s = 0; s < 600; s++) { /* L2: the membrane does not follow */
        desk.now_ns += NS_PER_S;
        loading_add_reading(&desk.loading, desk.now_ns, 1.0, 0.005);
        step(&desk.loading, desk.now_ns, 60.0, 0.0, settings.membrane_bar_max);
        assert_true(fabs(desk.loading.command_bar - 60.0) <= settings.leash_bar + 1e-9);
    }
    assert_true(desk.loading.is_stalled);
}

static void a_ramp_does_not_catch_up_after_a_stall_of_the_process(void **state)
{
    (void)state;
    struct desk desk;
    desk_start(&desk, 1, 3.0, 60.0);
    desk.level_gpa = 1.0;
    desk_run(&desk, 0.0, 300.0);
    double command_bar = desk.loading.command_bar;
    desk_run(&desk, 0.0, 1.0);
    assert_true(desk.loading.command_bar > command_bar); /* it is under way */
    command_bar = desk.loading.command_bar;
    desk.now_ns += 60 * NS_PER_S;
    desk_run(&desk, 0.0, 1.0);
    assert_true(desk.loading.command_bar < command_bar + 5.0 * RATE_BAR_PER_S);
    desk.now_ns -= 30 * NS_PER_S; /* a clock that goes back moves nothing */
    command_bar = desk.loading.command_bar;
    step(&desk.loading, desk.now_ns, command_bar, 0.0, settings.membrane_bar_max);
    assert_true(desk.loading.command_bar == command_bar);
}

static void a_limit_is_told_and_a_resume_begins_anew(void **state)
{
    (void)state;
    for (int direction = -1; direction <= 1; direction += 2) {
        struct desk desk;
        double wall_bar = direction > 0 ? settings.membrane_bar_max : 0.0;
        desk_start(&desk, direction, direction > 0 ? 3.0 : 0.5, wall_bar);
        desk.level_gpa = 1.0;
        desk_run(&desk, 0.0, 600.0);
        assert_false(desk.loading.is_at_limit); /* the sample may creep there yet */
        desk_run(&desk, 0.0, 7200.0);
        assert_true(desk.loading.is_at_limit && !desk.loading.is_stalled);
        assert_true(desk.loading.command_bar == wall_bar);
        hold(&desk.loading);
        resume(&desk.loading, wall_bar, desk.now_ns);
        desk_run(&desk, 0.0, 60.0);
        assert_false(desk.loading.is_at_limit);
    }
}

static void a_retreat_goes_down_only_and_as_far_as_the_journal_allows(void **state)
{
    (void)state;
    struct desk desk;
    desk_start(&desk, 1, 3.0, 60.0);
    hold(&desk.loading);
    assert_int_equal(desk.loading.state, LOADING_RETREAT);
    desk.bar_min = 58.0; /* less than the way to the middle of the dead zone */
    desk_run(&desk, 0.0, 3600.0);
    assert_int_equal(desk.loading.state, LOADING_HELD);
    assert_true(desk.loading.command_bar == 58.0);
    desk_start(&desk, 1, 3.0, 60.0);
    hold(&desk.loading);
    for (int s = 0; s < 600 && desk.loading.state == LOADING_RETREAT; s++) { /* L4 */
        double before_bar = desk.loading.command_bar, jump_bar = s % 7 == 0 ? 10.0 : 0.0;
        desk.now_ns += NS_PER_S;
        step(&desk.loading, desk.now_ns, before_bar + jump_bar, 0.0, settings.membrane_bar_max);
        assert_true(desk.loading.command_bar <= before_bar);
    }
    assert_int_equal(desk.loading.state, LOADING_HELD);
    resume(&desk.loading, 50.0, desk.now_ns);
    hold(&desk.loading);
    assert_int_equal(desk.loading.state, LOADING_HELD); /* it stands there already */
}

static void a_retreat_may_be_resumed_on_its_way(void **state)
{
    (void)state;
    struct rig rig;
    rig_start(&rig, 12, 1, 3.0, 40.0);
    for (int s = 0; s < 120; s++)
        rig_step(&rig);
    hold(&rig.loading);
    for (int s = 0; s < 5; s++)
        rig_step(&rig);
    assert_int_equal(rig.loading.state, LOADING_RETREAT);
    resume(&rig.loading, rig.plant.membrane_bar, rig.now_ns);
    assert_int_equal(rig.loading.state, LOADING_RAMP);
    assert_true(rig_run(&rig, LOADING_DONE, 40000.0));
    assert_true(fabs(plant_pressure_gpa(&rig.plant) - 3.0) < 0.1);
}

/* Whenever the doubt comes, the way of the retreat is in the range that was asked for before. */
static void the_range_holds_the_next_minute_and_the_retreat(void **state)
{
    (void)state;
    for (int direction = -1; direction <= 1; direction += 2) {
        struct rig rig;
        rig_start(&rig, 14, direction, direction > 0 ? 2.5 : 1.0, direction > 0 ? 0.0 : 60.0);
        for (int s = 0; s < 40000 && rig.loading.state != LOADING_DONE; s++) {
            double bar_min, bar_max, command_bar = rig.loading.command_bar;
            loading_range(&rig.loading, &bar_min, &bar_max);
            double reach_bar = 59.0 * settings.back_off_bar_per_s;
            assert_true(bar_min >= 0.0 && bar_max <= settings.membrane_bar_max);
            assert_true(bar_min == 0.0 || bar_min <= command_bar - reach_bar);
            assert_true(bar_max == settings.membrane_bar_max || bar_max >= command_bar + reach_bar);
            struct loading doubt = rig.loading;
            hold(&doubt);
            assert_true(doubt.state != LOADING_RETREAT || doubt.centre_bar >= bar_min - 1e-9);
            rig_step(&rig);
        }
        assert_int_equal(rig.loading.state, LOADING_DONE);
    }
}

/* ---- from one change to the next ----------------------------------------------------------------------------- */

static void the_next_change_knows_the_cell(void **state)
{
    (void)state;
    struct rig rig;
    rig_start(&rig, 17, 1, 2.0, 0.0);
    assert_true(rig_run(&rig, LOADING_DONE, 40000.0));
    struct loading fresh = {.state = LOADING_IDLE}, *loading = &rig.loading;
    const struct loading before = *loading;
    start(&fresh, -1, 1.0, rig.plant.membrane_bar, rig.now_ns);
    start(loading, -1, 1.0, rig.plant.membrane_bar, rig.now_ns);
    assert_true(loading->response.has_taught && !fresh.response.has_taught);
    double compliance = loading->response.estimate.compliance_bar_s_per_gpa;
    assert_true(fabs(compliance / before.response.estimate.compliance_bar_s_per_gpa - 1.0) < 1e-6);
    assert_memory_equal(&loading->width, &before.width, sizeof before.width);
    assert_memory_equal(&loading->middle, &before.middle, sizeof before.middle);
    assert_true(loading->width.n_measured == 1 && loading->middle.n_measured == 1);
    assert_true(fresh.width.n_measured == 0 && fresh.middle.n_measured == 0);
    assert_true(line_sigma_at(&loading->width, 2.0) < line_sigma_at(&fresh.width, 2.0));
    assert_true(line_sigma_at(&loading->middle, 2.0) < line_sigma_at(&fresh.middle, 2.0));
    assert_true(loading->is_viscous == before.is_viscous);
    assert_true(loading->slope_gpa_per_s_max == 0.0 && before.slope_gpa_per_s_max > 0.0);
    assert_true(loading->trend.n == 0 && loading->n_approaches == 0 && loading->n_corrections == 0);
    assert_true(rig_run(&rig, LOADING_DONE, 40000.0));
    assert_true(fabs(plant_pressure_gpa(&rig.plant) - 1.0) < 0.1);
    start(&fresh, 1, 1.0, -0.01, rig.now_ns); /* an empty membrane may read less than nothing */
    assert_true(fresh.command_bar == 0.0);
}

/* One edge that is seen far off does not carry the membrane away: the changes before know where the middle lies. */
static void the_middle_is_where_earlier_changes_have_seen_it(void **state)
{
    (void)state;
    struct rig rig;
    rig_start(&rig, 23, 1, 1.5, 0.0);
    assert_true(rig_run(&rig, LOADING_DONE, 40000.0));
    for (double target_gpa = 2.5; target_gpa < 5.0; target_gpa += 1.0) {
        start(&rig.loading, 1, target_gpa, rig.plant.membrane_bar, rig.now_ns);
        assert_true(rig_run(&rig, target_gpa > 4.0 ? LOADING_BACK_OFF : LOADING_DONE, 40000.0));
    }
    rig.loading.near_edge_bar -= 6.0;
    assert_true(rig_run(&rig, LOADING_DONE, 40000.0));
    const struct plant_law *law = &rig.plant.law;
    double middle_bar = law->takeup_bar + rig.plant.load_bar;
    double half_width_bar = law->dead_zone_bar + law->dead_zone_per_bar * rig.plant.load_bar;
    if (!(fabs(rig.plant.membrane_bar - middle_bar) < 0.5 * half_width_bar))
        fail_msg("membrane at %.1f bar, middle %.1f, half width %.1f", rig.plant.membrane_bar, middle_bar,
                 half_width_bar);
}

/* A slip looks like a drop. What an earlier change has measured is not given up for it, whenever it comes; and whether
 * it was taken for the drop or not, the drop itself ends the back-off. */
static void a_slip_does_not_make_a_known_dead_zone_narrow(void **state)
{
    (void)state;
    double highest = -INFINITY;
    for (int k = 0; k < 160; k++) {
        struct desk desk;
        int direction = k % 2 ? 1 : -1, after_s = 3 * (1 + k / 2 % 20);
        double slip_gpa = 0.02 * (1 + k / 40); /* as far as short_gpa and a drop go */
        desk_start(&desk, direction, 2.0, 60.0);
        struct loading *loading = &desk.loading;
        line_init(&loading->width, 8.0, 0.7, 0.0, 0.1); /* the changes before have found this, */
        loading->response.has_taught = true;            /* and have seen the sample slide */
        loading->state = LOADING_DONE;
        start(loading, direction, 2.0, 60.0, desk.now_ns);
        assert_true(line_at(&loading->width, 2.0) == 8.0);
        desk.level_gpa = 2.0;
        desk_run(&desk, 0.0, 300.0);
        assert_int_equal(loading->state, LOADING_BACK_OFF);
        desk_run(&desk, 0.0, after_s);
        desk.level_gpa -= direction * slip_gpa;
        desk_run(&desk, 0.0, 300.0);
        if (loading->state == LOADING_BACK_OFF)
            desk_run(&desk, direction * -1e-4, 3600.0);
        assert_true(loading->state == LOADING_RECENTRE ||
                    loading->state == LOADING_RAMP); /* RAMP: it is too far down */
        assert_true(loading->state == LOADING_RAMP ||
                    (line_at(&loading->width, 2.0) > 6.0 && line_at(&loading->width, 2.0) < 12.0));
        highest = fmax(highest, loading->centre_bar - direction * 60.0);
    }
    print_message("centre at most %.1f bar beyond the ramp's end\n", highest);
    assert_true(highest <= 0.0); /* L5 */
}

/* ---- a width that is known is applied ------------------------------------------------------------------------ */

/* A passport that knows everything but the half width, which is `half_width_bar` at all pressures, within `sigma`. */
static struct loading_cell passport(double half_width_bar, double sigma)
{
    return (struct loading_cell){.is_known = 1,
                                 .compliance_bar_s_per_gpa = 10000.0,
                                 .compliance_bar_s_per_gpa_sigma = 2000.0,
                                 .takeup_bar = 10.6,
                                 .takeup_bar_sigma = 1.0,
                                 .bar_per_gpa = 10.0,
                                 .bar_per_gpa_sigma = 0.5,
                                 .half_width_bar = half_width_bar,
                                 .half_width_bar_sigma = sigma,
                                 .half_width_bar_per_gpa = 0.0,
                                 .half_width_bar_per_gpa_sigma = 0.01};
}

static void apply_probes_while_nothing_is_known(void **state)
{
    (void)state;
    static const struct {
        enum plan_back_off back_off;
        double sigma; /* of a half width of 7 bar; 0: no passport */
        enum loading_state next;
    } cases[] = {
        {PLAN_BACK_OFF_APPLY, 0.0, LOADING_BACK_OFF},     {PLAN_BACK_OFF_APPLY, 3.0, LOADING_BACK_OFF},
        {PLAN_BACK_OFF_APPLY, 0.3, LOADING_RECENTRE},     {PLAN_BACK_OFF_CALIBRATE, 0.3, LOADING_BACK_OFF},
        {PLAN_BACK_OFF_CALIBRATE, 0.0, LOADING_BACK_OFF}, {PLAN_BACK_OFF_NONE, 0.3, LOADING_WATCH},
    };
    for (int direction = -1; direction <= 1; direction += 2)
        for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
            const struct loading_settings usual = settings;
            struct desk desk;
            settings.back_off = cases[i].back_off;
            if (cases[i].sigma > 0.0)
                settings.cell = passport(7.0, cases[i].sigma);
            desk_start(&desk, direction, 2.0, 60.0);
            settings = usual;
            desk.level_gpa = 2.0;
            desk_run(&desk, 0.0, 300.0); /* the sample stands at the target: the ramp has ended */
            assert_int_equal(desk.loading.state, cases[i].next);
            if (cases[i].next != LOADING_RECENTRE)
                continue;
            assert_true(fabs(desk.loading.near_edge_bar - desk.loading.far_edge_bar - 14.0) < 0.1);
            desk_run(&desk, 0.0, 600.0);
            assert_int_equal(desk.loading.state, LOADING_WATCH);
            assert_true(fabs(direction * (60.0 - desk.loading.command_bar) - 7.0) < 0.1); /* in the middle, at once */
        }
}

/* Nothing was probed, so that only the watch can see that the plateau lies short of the target. */
static void apply_approaches_again_from_the_watch(void **state)
{
    (void)state;
    for (int direction = -1; direction <= 1; direction += 2) {
        const struct loading_settings usual = settings;
        struct desk desk;
        settings.back_off = PLAN_BACK_OFF_APPLY;
        settings.cell = passport(7.0, 0.3);
        desk_start(&desk, direction, 2.0, 60.0);
        settings = usual;
        int n_ramps = 0;
        for (int i = 0; i < 60 && desk.loading.state != LOADING_DONE; i++) {
            enum loading_state state_before = desk.loading.state;
            desk.level_gpa = 2.0;
            if (state_before == LOADING_RECENTRE || state_before == LOADING_WATCH) /* each time it falls back */
                desk.level_gpa -= direction * 2.0 * settings.short_gpa;
            if (state_before == LOADING_RAMP) {
                n_ramps++;
                trend_clear(&desk.loading.trend);
            }
            desk_run(&desk, 0.0, 1800.0);
            assert_true(desk.loading.state != LOADING_BACK_OFF);
            assert_true(state_before != LOADING_WATCH || desk.loading.n_approaches == n_ramps);
        }
        assert_int_equal(desk.loading.state, LOADING_DONE); /* it cannot be helped */
        assert_true(n_ramps > 1 && n_ramps <= 4);
        assert_int_equal(n_ramps, desk.loading.n_approaches);
    }
    struct desk desk; /* with a probed width, the back-off has seen to it: a plateau that is short is left alone */
    desk_start(&desk, 1, 2.0, 60.0);
    desk.loading.state = LOADING_WATCH;
    desk.level_gpa = 2.0 - 2.0 * settings.short_gpa;
    desk_run(&desk, 0.0, 3600.0);
    assert_int_equal(desk.loading.state, LOADING_DONE);
}

/* On the plant: the first change probes, the later ones do not once both edges have been seen often enough; all arrive.
 */
static void apply_learns_until_it_need_not_probe(void **state)
{
    (void)state;
    const struct loading_settings usual = settings;
    int n_applied = 0;
    for (uint64_t seed = 41; seed <= 44; seed++) {
        struct rig rig;
        settings.back_off = PLAN_BACK_OFF_APPLY;
        rig_start(&rig, seed, 1, 1.5, 0.0);
        for (int k = 0; k < 6; k++) {
            double target_gpa = k % 2 ? 3.0 : 1.5;
            memset(rig.states_seen, 0, sizeof rig.states_seen);
            if (k > 0)
                start(&rig.loading, k % 2 ? 1 : -1, target_gpa, rig.plant.membrane_bar, rig.now_ns);
            double share = line_sigma_at(&rig.loading.width, target_gpa) / line_at(&rig.loading.width, target_gpa);
            assert_true(rig_run(&rig, LOADING_DONE, 60000.0));
            bool has_probed = rig.states_seen[LOADING_BACK_OFF];
            print_message("seed %d, change %d: half width %.1f bar within %.0f %%, probed: %d, %+.3f GPa off\n",
                          (int)seed, k, line_at(&rig.loading.width, target_gpa), 100.0 * share, has_probed,
                          plant_pressure_gpa(&rig.plant) - target_gpa);
            assert_true(k > 0 || has_probed);
            n_applied += !has_probed;
            assert_true(fabs(plant_pressure_gpa(&rig.plant) - target_gpa) < 0.1);
        }
    }
    settings = usual;
    assert_true(n_applied > 0);
}

/* A dead zone that is known is crossed fast, and slower again before its edge: the sample has not moved by then. */
static void a_known_dead_zone_is_crossed_fast(void **state)
{
    (void)state;
    for (int direction = -1; direction <= 1; direction += 2) {
        const struct loading_settings usual = settings;
        struct desk desk;
        /* middle at 10.6 + 10 x 2 bar, half width 7 bar: from the far edge, the near one is 14 bar ahead */
        settings.cell = passport(7.0, 0.3);
        desk_start(&desk, direction, direction > 0 ? 4.0 : 0.5, 30.6 - direction * 7.0);
        settings = usual;
        desk.level_gpa = 2.0;
        desk_run(&desk, 0.0, 60.0); /* until a trend is known */
        double fast = settings.back_off_bar_per_s, before_bar = desk.loading.command_bar;
        desk_run(&desk, 0.0, 10.0);
        assert_true(fabs(direction * (desk.loading.command_bar - before_bar) / 10.0 - fast) < 0.1 * fast);
        desk_run(&desk, 0.0, 600.0);
        double crossed_bar = direction * (desk.loading.command_bar - 30.6);
        assert_true(crossed_bar > 0.0); /* far into it */
        before_bar = desk.loading.command_bar;
        desk_run(&desk, 0.0, 10.0);
        double rate = direction * (desk.loading.command_bar - before_bar) / 10.0;
        assert_true(rate > 0.0 && rate <= RATE_BAR_PER_S * 1.001);
    }
}

/* A cell that creeps within 9 min slides so fast on its way down that the membrane could be emptied below the take-up,
 * where it has no hold on the sample. It stops there, what the sample does then is not taken for a stiffer cell, and
 * the target is not passed. */
static void an_unloading_does_not_let_go_of_the_sample(void **state)
{
    (void)state;
    const struct loading_settings kept = settings;
    struct rig rig;
    settings.cell = (struct loading_cell){.is_known = 1,
                                          .compliance_bar_s_per_gpa = 5640.0,
                                          .compliance_bar_s_per_gpa_sigma = 500.0,
                                          .takeup_bar = 8.1,
                                          .takeup_bar_sigma = 1.0,
                                          .bar_per_gpa = 10.4,
                                          .bar_per_gpa_sigma = 0.3,
                                          .half_width_bar = 7.3,
                                          .half_width_bar_sigma = 0.5,
                                          .half_width_bar_per_gpa = 1.6,
                                          .half_width_bar_per_gpa_sigma = 0.2};
    const struct plant_law law = {.gpa_per_bar = 1.0 / 10.4,
                                  .takeup_bar = 8.1,
                                  .dead_zone_bar = 7.3,
                                  .dead_zone_per_bar = 0.15,
                                  .creep_s = 540.0,
                                  .slip_interval_s = 1e9,
                                  .slip_relaxation_s = 3600.0};
    rig_start(&rig, 1, -1, 1.5, 42.0);
    plant_init_law(&rig.plant, &law, 1, 3.3);
    rig.plant.membrane_bar = 42.0;
    double lowest_bar = INFINITY, lowest_gpa = INFINITY;
    while (rig.loading.state != LOADING_DONE && s_from_ns(rig.now_ns) < 20000.0) {
        rig_step(&rig);
        lowest_bar = fmin(lowest_bar, rig.loading.command_bar);
        lowest_gpa = fmin(lowest_gpa, plant_pressure_gpa(&rig.plant));
    }
    settings = kept;
    assert_int_equal(rig.loading.state, LOADING_DONE);
    assert_true(lowest_bar > law.takeup_bar - 1.0 && lowest_bar < law.takeup_bar + 3.0); /* it was at its limit */
    assert_true(lowest_gpa > 1.5 - 0.03);
    assert_true(fabs(rig.loading.response.estimate.compliance_bar_s_per_gpa / 5616.0 - 1.0) < 0.2);
}

/* The same slide of the same cell: the ramp ends earlier, and the rise it leaves room for is larger, when it is the
 * first that anybody sees of this cell. */
static void a_first_slide_is_doubted(void **state)
{
    (void)state;
    struct desk first, later;
    desk_start(&first, 1, 3.0, 60.0);
    desk_start(&later, 1, 3.0, 60.0);
    assert_true(first.loading.is_first);
    later.loading.is_first = false;
    first.level_gpa = later.level_gpa = 1.5;
    while (first.loading.state == LOADING_RAMP && first.level_gpa < 3.1)
        desk_run(&first, 2e-3, 3.0);
    while (later.loading.state == LOADING_RAMP && later.level_gpa < 3.1)
        desk_run(&later, 2e-3, 3.0);
    assert_true(first.loading.state == LOADING_BACK_OFF && later.loading.state == LOADING_BACK_OFF);
    assert_true(first.level_gpa < later.level_gpa - 0.01);
    loading_start(&first.loading, &settings, 1, 3.3, RATE_BAR_PER_S, ISOBAR_S, DRIFT_GPA_MAX, 60.0, first.now_ns);
    assert_false(first.loading.is_first);
}

static void what_is_no_number_is_no_reading(void **state)
{
    (void)state;
    struct desk desk;
    desk_start(&desk, 1, 2.0, 60.0);
    int32_t n = desk.loading.trend.n;
    loading_add_reading(&desk.loading, desk.now_ns, NAN, 0.005);
    loading_add_reading(&desk.loading, desk.now_ns, INFINITY, 0.005);
    loading_add_reading(&desk.loading, desk.now_ns, 2.0, NAN);
    loading_add_reading(&desk.loading, desk.now_ns, 2.0, 0.0);
    assert_int_equal(desk.loading.trend.n, n);
}

/* With the logarithm of libm, which the control code does without: from a rise that nobody sees to a blow-out. */
static void v11_adds_what_a_day_of_creep_would_add(void **state)
{
    (void)state;
    static const double speeds[] = {1e-7, 1e-5, 1e-4, 1e-3, 1.0};
    for (size_t i = 0; i < sizeof speeds / sizeof speeds[0]; i++)
        for (int is_viscous = 0; is_viscous < 2; is_viscous++) {
            struct desk desk;
            desk_start(&desk, 1, 7.0, 60.0);
            struct slide *slide = &desk.loading.slides[is_viscous];
            const double seen[SLIDE_STATES] = {2.0, speeds[i], is_viscous ? 1200.0 : 0.3}, sigma[SLIDE_STATES] = {0.0};
            desk.loading.viscous_odds = is_viscous ? 200.0 : -200.0;
            desk.loading.slides[SLIDE_YIELDS].is_begun = true;
            slide_begin(slide, is_viscous != 0, seen, sigma, 60.0);
            double edge_bar_per_gpa = desk.loading.response.estimate.edge_bar_per_gpa;
            double width_gpa = line_at(&desk.loading.width, 2.0) / edge_bar_per_gpa;
            double yield_gpa = (is_viscous ? 0.1 : 0.3) * width_gpa; /* GPa per factor e of speed */
            double rise_gpa =
                yield_gpa * log1p(speeds[i] * 86400.0 / yield_gpa) + (is_viscous ? 1200.0 * speeds[i] : 0.0);
            if (!is_viscous) { /* harder on the way: by the width half way up */
                double half_way_gpa = line_at(&desk.loading.width, 2.0 + 0.5 * rise_gpa) / edge_bar_per_gpa;
                yield_gpa *= half_way_gpa / width_gpa;
                rise_gpa = yield_gpa * log1p(speeds[i] * 86400.0 / yield_gpa);
            }
            double died_gpa = loading_pressure_gpa_if_died(&desk.loading);
            if (!(fabs(died_gpa - 2.0 - rise_gpa) < 1e-6 * rise_gpa))
                fail_msg("speed %g: %.9f instead of %.9f GPa", speeds[i], died_gpa, 2.0 + rise_gpa);
        }
}

/* ---- the walk ------------------------------------------------------------------------------------------------ */

enum mode { MODE_WELL, MODE_STUCK, MODE_LAG, MODE_LEAK, MODE_COUNT };

struct walk {
    struct loading loading;
    struct random random;
    int64_t now_ns, ruby_ns_last;
    double membrane_bar, pressure_gpa, ruby_due_s;
    double bar_min, bar_max;                 /* authorised */
    double pending_bar_min, pending_bar_max; /* durable at pending_s */
    double pending_s;
    enum mode mode;
    bool is_ruby_stuck, is_ruby_lost;
};

static void walk_disturb(struct walk *walk)
{
    double draw = random_uniform(&walk->random);
    if (draw < 0.004)
        walk->mode = (enum mode)(random_uniform(&walk->random) * MODE_COUNT);
    else if (draw < 0.006)
        walk->is_ruby_lost = !walk->is_ruby_lost;
    else if (draw < 0.007)
        walk->is_ruby_stuck = !walk->is_ruby_stuck;
    else if (draw < 0.010)
        hold(&walk->loading);
    else if (draw < 0.014 && (walk->loading.state == LOADING_HELD || walk->loading.state == LOADING_RETREAT)) {
        resume(&walk->loading, fmin(fmax(walk->membrane_bar, -0.05), 1.3 * settings.membrane_bar_max), walk->now_ns);
        walk->bar_min = walk->bar_max = walk->loading.command_bar;
        walk->pending_s = 0.0;
    }
}

/* As the core does: a new range when half of the old one is used up; durable after up to 3 s, sometimes never. */
static void walk_authorise(struct walk *walk)
{
    double bar_min, bar_max, command_bar = walk->loading.command_bar, now_s = s_from_ns(walk->now_ns);
    if (walk->pending_s > 0.0 && now_s >= walk->pending_s) {
        walk->bar_min = fmin(walk->pending_bar_min, command_bar);
        walk->bar_max = fmax(walk->pending_bar_max, command_bar);
        walk->pending_s = 0.0;
    }
    loading_range(&walk->loading, &bar_min, &bar_max);
    if (walk->pending_s == 0.0 && (walk->bar_min - bar_min > 0.5 * (command_bar - bar_min) ||
                                   bar_max - walk->bar_max > 0.5 * (bar_max - command_bar))) {
        walk->pending_bar_min = bar_min;
        walk->pending_bar_max = bar_max;
        walk->pending_s = now_s + (random_uniform(&walk->random) < 0.02 ? 300.0 : uniform(&walk->random, 0.0, 3.0));
    }
}

static void walk_move(struct walk *walk, double dt_s)
{
    static const double slew_bar_per_s[MODE_COUNT] = {0.13, 0.0, 0.01, 0.13};
    double slew_bar = slew_bar_per_s[walk->mode] * dt_s;
    double away_bar = walk->loading.command_bar - walk->membrane_bar;
    walk->membrane_bar += fmin(fmax(away_bar, -slew_bar), slew_bar) - (walk->mode == MODE_LEAK ? 0.3 * dt_s : 0.0);
    walk->membrane_bar = fmax(walk->membrane_bar, 0.0);
    walk->pressure_gpa += (0.1 * walk->membrane_bar - walk->pressure_gpa) / 900.0 * dt_s;
}

static void walk_read_ruby(struct walk *walk)
{
    double now_s = s_from_ns(walk->now_ns);
    if (now_s < walk->ruby_due_s || walk->is_ruby_lost)
        return;
    walk->ruby_due_s = now_s + 5.0;
    walk->ruby_ns_last = walk->now_ns;
    double jump_gpa = random_uniform(&walk->random) < 0.02 ? uniform(&walk->random, -3.0, 3.0) : 0.0;
    double noise_gpa = 0.02 * random_normal(&walk->random);
    loading_add_reading(&walk->loading, walk->now_ns,
                        walk->is_ruby_stuck ? 1.0 : walk->pressure_gpa + jump_gpa + noise_gpa, 0.005);
}

static void walk_step(struct walk *walk)
{
    struct loading *loading = &walk->loading;
    double dt_s =
        random_uniform(&walk->random) < 0.01 ? uniform(&walk->random, 2.0, 60.0) : uniform(&walk->random, 0.2, 2.2);
    walk->now_ns += ns_from_s(dt_s);
    walk_disturb(walk);
    walk_move(walk, dt_s);
    walk_read_ruby(walk);
    walk_authorise(walk);
    double jump_bar = random_uniform(&walk->random) < 0.005 ? uniform(&walk->random, -20.0, 20.0) : 0.0;
    double reading_bar = walk->membrane_bar + jump_bar + 0.02 * random_normal(&walk->random);
    double before_bar = loading->command_bar;
    enum loading_state before = loading->state;
    step(loading, walk->now_ns, reading_bar, walk->bar_min, walk->bar_max);
    double command_bar = loading->command_bar;
    bool has_moved = command_bar != before_bar;
    assert_true(command_bar >= 0.0 && command_bar <= settings.membrane_bar_max);
    assert_true(!has_moved || (command_bar >= walk->bar_min && command_bar <= walk->bar_max)); /* L1 */
    bool is_at_wall = command_bar == walk->bar_min || command_bar == walk->bar_max || command_bar == 0.0 ||
                      command_bar == settings.membrane_bar_max;
    bool is_retreating = before == LOADING_RETREAT;
    assert_true(!has_moved || is_at_wall || is_retreating ||
                fabs(command_bar - reading_bar) <= settings.leash_bar + 1e-9); /* L2 */
    bool needs_ruby = before == LOADING_RAMP || before == LOADING_BACK_OFF;
    bool is_blind = loading->trend.n == 0 || s_from_ns(walk->now_ns - walk->ruby_ns_last) > 90.0;
    assert_true(!has_moved || before != LOADING_WATCH);
    assert_true(!has_moved || !needs_ruby || !is_blind);      /* L3 */
    assert_true(!is_retreating || command_bar <= before_bar); /* L4 */
    assert_true(!has_moved || (before != LOADING_HELD && before != LOADING_DONE && before != LOADING_IDLE));
}

static void hostile_readings_break_no_invariant(void **state)
{
    (void)state;
    const char *given = getenv("SEED");
    uint64_t first = given && *given ? strtoull(given, NULL, 10) : 4200;
    const struct loading_settings usual = settings;
    int n_walks = given && *given ? 1 : N_WALKS, n_states[LOADING_STATE_COUNT] = {0};
    for (int k = 0; k < n_walks; k++) {
        uint64_t seed = first + (uint64_t)k; /* it alone says what is walked */
        struct walk walk = {.random = {.state = seed}, .now_ns = 1000 * NS_PER_S};
        int direction = seed % 3 == 2 ? -1 : 1;
        walk.membrane_bar = direction > 0 ? uniform(&walk.random, 0.0, 30.0) : uniform(&walk.random, 30.0, 120.0);
        walk.pressure_gpa = 0.1 * walk.membrane_bar;
        walk.bar_min = walk.bar_max = walk.membrane_bar;
        settings.back_off = (enum plan_back_off)(seed / 3 % PLAN_BACK_OFF_COUNT);
        if (seed % 2)
            settings.cell = passport(uniform(&walk.random, 2.0, 12.0), uniform(&walk.random, 0.1, 3.0));
        start(&walk.loading, direction, uniform(&walk.random, 0.5, 6.0), walk.membrane_bar, walk.now_ns);
        settings = usual;
        print_message("walk of seed %llu\n", (unsigned long long)seed);
        for (int s = 0; s < WALK_STEPS; s++) {
            walk_step(&walk);
            n_states[walk.loading.state]++;
        }
    }
    for (int s = LOADING_RAMP; s < LOADING_STATE_COUNT; s++)
        assert_true(n_walks == 1 || n_states[s] > 0); /* the walk has been everywhere */
}

/* ---- the list of the header ---------------------------------------------------------------------------------- */

static void no_other_transition_than_the_header_says(void **state)
{
    (void)state;
    static const enum loading_state allowed[][2] = {
        {LOADING_IDLE, LOADING_RAMP},        {LOADING_RAMP, LOADING_BACK_OFF},     {LOADING_RAMP, LOADING_WATCH},
        {LOADING_BACK_OFF, LOADING_RAMP},    {LOADING_BACK_OFF, LOADING_RECENTRE}, {LOADING_RECENTRE, LOADING_WATCH},
        {LOADING_WATCH, LOADING_RECENTRE},   {LOADING_WATCH, LOADING_DONE},        {LOADING_RAMP, LOADING_RETREAT},
        {LOADING_BACK_OFF, LOADING_RETREAT}, {LOADING_RETREAT, LOADING_HELD},      {LOADING_RAMP, LOADING_HELD},
        {LOADING_BACK_OFF, LOADING_HELD},    {LOADING_RECENTRE, LOADING_HELD},     {LOADING_WATCH, LOADING_HELD},
        {LOADING_HELD, LOADING_RAMP},        {LOADING_HELD, LOADING_RECENTRE},     {LOADING_HELD, LOADING_WATCH},
        {LOADING_RETREAT, LOADING_RAMP},     {LOADING_DONE, LOADING_RAMP},         {LOADING_RAMP, LOADING_RECENTRE},
        {LOADING_WATCH, LOADING_RAMP},
    };
    bool is_allowed[LOADING_STATE_COUNT][LOADING_STATE_COUNT] = {{false}};
    for (size_t i = 0; i < sizeof allowed / sizeof allowed[0]; i++)
        is_allowed[allowed[i][0]][allowed[i][1]] = true;
    for (int from = 0; from < LOADING_STATE_COUNT; from++)
        for (int to = 0; to < LOADING_STATE_COUNT; to++)
            if (from != to && transitions_seen[from][to] != is_allowed[from][to])
                fail_msg("%s -> %s: %s", loading_state_name((enum loading_state)from),
                         loading_state_name((enum loading_state)to),
                         is_allowed[from][to] ? "never seen" : "not allowed");
}

int main(void)
{
    struct core_settings daemon;
    night_default_settings(&daemon);
    settings = daemon.loading;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_change_goes_through_all_its_states),
        cmocka_unit_test(hold_and_resume_in_every_state),
        cmocka_unit_test(a_retreat_ends),
        cmocka_unit_test(a_retreat_on_a_stuck_membrane_survives),
        cmocka_unit_test(holds_that_follow_each_other_do_not_walk_the_membrane_down),
        cmocka_unit_test(a_stall_is_seen_and_can_be_resumed),
        cmocka_unit_test(what_nobody_drove_has_not_stalled),
        cmocka_unit_test(a_wrong_reading_at_a_resume_is_no_set_point),
        cmocka_unit_test(a_back_off_that_reaches_zero_ends),
        cmocka_unit_test(a_target_too_near_the_cell_s_limit_is_not_waited_for),
        cmocka_unit_test(v11_is_nan_until_a_slide_is_seen),
        cmocka_unit_test(a_hold_ends_the_slide),
        cmocka_unit_test(every_state_has_a_name),
        cmocka_unit_test(a_change_without_back_off_stays_where_the_ramp_ended),
        cmocka_unit_test(a_ramp_that_ended_too_early_is_taken_up_again),
        cmocka_unit_test(approaches_come_to_an_end),
        cmocka_unit_test(a_plateau_needs_enough_readings),
        cmocka_unit_test(a_drift_is_corrected_against_its_direction),
        cmocka_unit_test(without_fresh_readings_nothing_moves),
        cmocka_unit_test(idle_held_and_done_do_not_step),
        cmocka_unit_test(the_authorised_range_and_the_leash_hold_the_ramp),
        cmocka_unit_test(a_ramp_does_not_catch_up_after_a_stall_of_the_process),
        cmocka_unit_test(a_limit_is_told_and_a_resume_begins_anew),
        cmocka_unit_test(a_retreat_goes_down_only_and_as_far_as_the_journal_allows),
        cmocka_unit_test(a_retreat_may_be_resumed_on_its_way),
        cmocka_unit_test(the_range_holds_the_next_minute_and_the_retreat),
        cmocka_unit_test(the_next_change_knows_the_cell),
        cmocka_unit_test(the_middle_is_where_earlier_changes_have_seen_it),
        cmocka_unit_test(a_slip_does_not_make_a_known_dead_zone_narrow),
        cmocka_unit_test(apply_probes_while_nothing_is_known),
        cmocka_unit_test(apply_approaches_again_from_the_watch),
        cmocka_unit_test(apply_learns_until_it_need_not_probe),
        cmocka_unit_test(a_known_dead_zone_is_crossed_fast),
        cmocka_unit_test(an_unloading_does_not_let_go_of_the_sample),
        cmocka_unit_test(a_first_slide_is_doubted),
        cmocka_unit_test(what_is_no_number_is_no_reading),
        cmocka_unit_test(v11_adds_what_a_day_of_creep_would_add),
        cmocka_unit_test(hostile_readings_break_no_invariant),
        cmocka_unit_test(no_other_transition_than_the_header_says),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
