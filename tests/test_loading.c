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

#define N_WALKS 60
#define WALK_STEPS 4000
#define BAR_MAX 130.0
#define LEASH_BAR 0.5

static const struct loading_settings settings = {.membrane_bar_max = BAR_MAX,
                                                 .pressure_gpa_max = 8.0,
                                                 .leash_bar = LEASH_BAR,
                                                 .back_off_bar_per_s = 0.1,
                                                 .short_gpa = 0.03,
                                                 .half_width_bar = 5.0,
                                                 .creep_s_max = 2700.0,
                                                 .taper_s = 300.0,
                                                 .drop_gpa = 0.008,
                                                 .watch_s = 480.0};

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
    loading_start(&rig->loading, &settings, direction, target_gpa, 2.0 / 60.0, 3600.0, 0.12, membrane_bar, rig->now_ns);
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
    loading_step(loading, rig->now_ns, rig->plant.membrane_bar + 0.003 * random_normal(&rig->random), bar_min, bar_max);
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
        loading_hold(loading);
        assert_int_equal(loading->state, cases[i].held);
        loading_hold(loading); /* a second doubt changes nothing */
        assert_int_equal(loading->state, cases[i].held);
        if (loading->state == LOADING_RETREAT) {
            assert_true(rig_run(&rig, LOADING_HELD, 400.0));
            assert_true(loading->command_bar < 40.0);
        }
        double command_bar = loading->command_bar;
        for (int s = 0; s < 600 && loading->state == LOADING_HELD; s++)
            rig_step(&rig);
        assert_true(loading->command_bar == command_bar); /* a hold does not move */
        loading_resume(loading, 35.0, rig.now_ns);
        assert_int_equal(loading->state, cases[i].resumed);
        if (cases[i].held != cases[i].from)
            assert_true(loading->command_bar == 35.0 && loading->trend.n == 0);
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
        loading_hold(&rig.loading);
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
    struct loading loading;
    struct random random = {.state = 5};
    int64_t now_ns = NS_PER_S;
    loading_start(&loading, &settings, 1, 3.0, 2.0 / 60.0, 3600.0, 0.12, 50.0, now_ns);
    loading_hold(&loading);
    for (int s = 0; s < 300; s++) {
        double before_bar = loading.command_bar;
        now_ns += NS_PER_S;
        loading_step(&loading, now_ns, 50.0 + 0.01 * random_normal(&random), 40.0, 60.0);
        assert_true(loading.command_bar <= before_bar); /* L4 */
        assert_true(loading.command_bar >= 50.0 - LEASH_BAR - 0.1);
    }
    assert_true(loading.is_stalled);
}

static void holds_that_follow_each_other_do_not_walk_the_membrane_down(void **state)
{
    (void)state;
    struct rig rig;
    rig_start(&rig, 4, 1, 3.0, 40.0);
    loading_hold(&rig.loading);
    assert_true(rig_run(&rig, LOADING_HELD, 400.0));
    double first_bar = rig.loading.command_bar;
    for (int i = 0; i < 5; i++) { /* each resume is followed by the next doubt before a trend is known */
        loading_resume(&rig.loading, rig.plant.membrane_bar, rig.now_ns);
        for (int s = 0; s < 20; s++)
            rig_step(&rig);
        loading_hold(&rig.loading);
        assert_true(rig_run(&rig, LOADING_HELD, 400.0));
    }
    if (!(rig.loading.command_bar > first_bar - 1.0))
        fail_msg("five holds later the membrane stands %.1f bar lower", first_bar - rig.loading.command_bar);
}

static void a_stall_is_seen_and_can_be_resumed(void **state)
{
    (void)state;
    for (int direction = -1; direction <= 1; direction += 2) {
        struct loading loading;
        int64_t now_ns = 1000 * NS_PER_S;
        loading_start(&loading, &settings, direction, direction > 0 ? 3.0 : 0.5, 2.0 / 60.0, 3600.0, 0.12, 40.0,
                      now_ns);
        for (int s = 0; s < 400 && !loading.is_stalled; s++) {
            now_ns += NS_PER_S;
            if (s % 5 == 0)
                loading_add_reading(&loading, now_ns, 1.0, 0.005);
            loading_step(&loading, now_ns, 40.0, 30.0, 50.0);
        }
        assert_true(loading.is_stalled);
        loading_hold(&loading);
        loading_resume(&loading, 40.0, now_ns);
        now_ns += NS_PER_S;
        loading_step(&loading, now_ns, 40.0, 30.0, 50.0);
        assert_false(loading.is_stalled); /* or an operator's resume would be taken back at once, for ever */
    }
}

/* The first reading after a loss may be wrong; a set point made of it would stand until a trend is known. */
static void a_wrong_reading_at_a_resume_is_no_set_point(void **state)
{
    (void)state;
    struct rig rig;
    rig_start(&rig, 8, 1, 3.0, 40.0);
    loading_hold(&rig.loading);
    assert_true(rig_run(&rig, LOADING_HELD, 400.0));
    double held_bar = rig.loading.command_bar;
    loading_resume(&rig.loading, 100.0, rig.now_ns);
    assert_true(rig.loading.command_bar <= held_bar + LEASH_BAR);
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

static void v11_is_nan_without_a_trend(void **state)
{
    (void)state;
    struct rig rig;
    rig_start(&rig, 1, 1, 3.0, 10.0);
    assert_true(isnan(loading_pressure_gpa_if_frozen(&rig.loading, rig.now_ns)));
    for (int s = 0; s < 60; s++)
        rig_step(&rig);
    assert_true(loading_pressure_gpa_if_frozen(&rig.loading, rig.now_ns) >= 0.0);
    assert_true(isnan(loading_pressure_gpa_if_frozen(&rig.loading, rig.now_ns + ns_from_s(600.0))));
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
        loading_hold(&walk->loading);
    else if (draw < 0.014 && (walk->loading.state == LOADING_HELD || walk->loading.state == LOADING_RETREAT)) {
        loading_resume(&walk->loading, fmin(fmax(walk->membrane_bar, -0.05), 1.3 * BAR_MAX), walk->now_ns);
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
    loading_step(loading, walk->now_ns, reading_bar, walk->bar_min, walk->bar_max);
    double command_bar = loading->command_bar;
    bool has_moved = command_bar != before_bar;
    assert_true(command_bar >= 0.0 && command_bar <= BAR_MAX);
    assert_true(!has_moved || (command_bar >= walk->bar_min && command_bar <= walk->bar_max)); /* L1 */
    bool is_at_wall =
        command_bar == walk->bar_min || command_bar == walk->bar_max || command_bar == 0.0 || command_bar == BAR_MAX;
    bool is_retreating = before == LOADING_RETREAT;
    assert_true(!has_moved || is_at_wall || is_retreating ||
                fabs(command_bar - reading_bar) <= LEASH_BAR + 1e-9); /* L2 */
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
    int n_walks = given && *given ? 1 : N_WALKS, n_states[LOADING_STATE_COUNT] = {0};
    for (int k = 0; k < n_walks; k++) {
        struct walk walk = {.random = {.state = first + (uint64_t)k}, .now_ns = 1000 * NS_PER_S};
        int direction = k % 3 == 2 ? -1 : 1;
        walk.membrane_bar = direction > 0 ? uniform(&walk.random, 0.0, 30.0) : uniform(&walk.random, 30.0, 120.0);
        walk.pressure_gpa = 0.1 * walk.membrane_bar;
        walk.bar_min = walk.bar_max = walk.membrane_bar;
        loading_start(&walk.loading, &settings, direction, uniform(&walk.random, 0.5, 6.0), 2.0 / 60.0, 3600.0, 0.12,
                      walk.membrane_bar, walk.now_ns);
        print_message("walk of seed %llu\n", (unsigned long long)(first + (uint64_t)k));
        for (int s = 0; s < WALK_STEPS; s++) {
            walk_step(&walk);
            n_states[walk.loading.state]++;
        }
    }
    for (int s = LOADING_RAMP; s < LOADING_STATE_COUNT; s++)
        assert_true(n_walks == 1 || n_states[s] > 0); /* the walk has been everywhere */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_change_goes_through_all_its_states),
        cmocka_unit_test(hold_and_resume_in_every_state),
        cmocka_unit_test(a_retreat_ends),
        cmocka_unit_test(holds_that_follow_each_other_do_not_walk_the_membrane_down),
        cmocka_unit_test(a_stall_is_seen_and_can_be_resumed),
        cmocka_unit_test(a_wrong_reading_at_a_resume_is_no_set_point),
        cmocka_unit_test(a_back_off_that_reaches_zero_ends),
        cmocka_unit_test(v11_is_nan_without_a_trend),
        cmocka_unit_test(a_retreat_on_a_stuck_membrane_survives),
        cmocka_unit_test(hostile_readings_break_no_invariant),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
