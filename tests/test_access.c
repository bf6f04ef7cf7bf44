/*
 * Goal: the ruby's optics and its laser move only in the order that access.h states, no place is believed that has not
 * been asked for and read back, and whatever goes wrong is a doubt that ends when the place is reached.
 * Method: the shipping state machine on a virtual clock with a stage and a shutter that take their time, whose
 * readbacks arrive late, that can be stuck, be moved by strangers, and be cut off; first one case per transition and
 * refusal, then seeded random walks that check the true positions at every step. Seeds are fixed and printed.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "controller/access.h"
#include "controller/event.h"
#include "sim/random.h"

#define STEP_NS (NS_PER_S / 4)
#define OPTICS_STEPS 12 /* from one end to the other */
#define LATE_MAX 4      /* steps that a readback is on its way: less than the machine's CONFIRM_S */

struct bench {
    struct access access;
    int64_t now_ns;
    int optics, laser;               /* 0 .. OPTICS_STEPS, 0 or 1: where they are */
    int optics_wanted, laser_wanted; /* what they were told last */
    bool is_stuck, is_cut;
    int late; /* steps that readbacks are late by */
    int optics_was[LATE_MAX], laser_was[LATE_MAX];
    int n_asked[ACCESS_MOVE_COUNT];
};

static void post(struct bench *bench, enum event_kind kind, int64_t a, int64_t b)
{
    struct event event;
    memset(&event, 0, sizeof event);
    event.kind = (int32_t)kind;
    event.t_ns = event.now_ns = bench->now_ns;
    event.integer[0] = a;
    event.integer[1] = b;
    access_observe(&bench->access, &event);
}

static void bench_start(struct bench *bench)
{
    const struct access_settings settings = {.is_between_scans = 1, .settle_s = 2.0, .move_s_max = 10.0};
    *bench = (struct bench){.now_ns = 1000 * NS_PER_S, .late = 1};
    access_init(&bench->access, &settings);
    post(bench, EVENT_ACCESS_FOUND, 0, 0);
}

static enum access_optics optics_said(int optics)
{
    return optics == 0 ? ACCESS_OPTICS_OUT : optics == OPTICS_STEPS ? ACCESS_OPTICS_IN : ACCESS_OPTICS_MOVING;
}

static void obey(struct bench *bench, enum access_move move)
{
    bench->n_asked[move]++;
    if (move == ACCESS_MOVE_LASER_CLOSE || move == ACCESS_MOVE_LASER_OPEN)
        bench->laser_wanted = move == ACCESS_MOVE_LASER_OPEN;
    if (move == ACCESS_MOVE_OPTICS_IN || move == ACCESS_MOVE_OPTICS_OUT)
        bench->optics_wanted = move == ACCESS_MOVE_OPTICS_IN ? OPTICS_STEPS : 0;
}

/* A quarter of a second: the devices move, a readback arrives, the machine takes a step. */
static enum access_move step(struct bench *bench, bool is_wanted)
{
    bench->now_ns += STEP_NS;
    memmove(bench->optics_was + 1, bench->optics_was, (LATE_MAX - 1) * sizeof bench->optics_was[0]);
    memmove(bench->laser_was + 1, bench->laser_was, (LATE_MAX - 1) * sizeof bench->laser_was[0]);
    bench->optics_was[0] = bench->optics;
    bench->laser_was[0] = bench->laser;
    if (!bench->is_stuck)
        bench->optics += (bench->optics < bench->optics_wanted) - (bench->optics > bench->optics_wanted);
    bench->laser = bench->laser_wanted;
    if (!bench->is_cut)
        post(bench, EVENT_ACCESS, optics_said(bench->optics_was[bench->late]),
             bench->laser_was[bench->late] ? ACCESS_LASER_OPEN : ACCESS_LASER_CLOSED);
    enum access_move move = access_step(&bench->access, bench->now_ns, is_wanted);
    if (!bench->is_cut)
        obey(bench, move);
    return move;
}

static void run_s(struct bench *bench, bool is_wanted, double duration_s)
{
    for (int64_t end_ns = bench->now_ns + ns_from_s(duration_s); bench->now_ns < end_ns;)
        step(bench, is_wanted);
}

static void run_to(struct bench *bench, bool is_wanted, enum access_state state)
{
    for (int i = 0; i < 400 && bench->access.state != state; i++)
        step(bench, is_wanted);
    if (bench->access.state != state)
        fail_msg("%s was not reached: still %s", access_state_name(state), access_state_name(bench->access.state));
}

/* ---- the way in and the way out ------------------------------------------------------------------------------ */

static void always_means_that_nothing_moves(void **state)
{
    (void)state;
    const struct access_settings settings = {0};
    struct access access;
    access_init(&access, &settings);
    for (int i = 0; i < 8; i++) {
        assert_int_equal(access_step(&access, i * NS_PER_S, i % 2), ACCESS_MOVE_NONE);
        assert_true(access_is_clear(&access) && access_is_readable(&access) && access_believes(&access, 0));
        assert_false(access_is_moving(&access) || access_is_doubtful(&access));
    }
}

static void the_way_in_is_laser_off_optics_in_laser_on_settled(void **state)
{
    (void)state;
    static const enum access_move expected[] = {ACCESS_MOVE_LASER_CLOSE, ACCESS_MOVE_OPTICS_IN, ACCESS_MOVE_LASER_OPEN};
    struct bench bench;
    int n = 0;
    bench_start(&bench);
    while (bench.access.state != ACCESS_SETTLING) {
        enum access_move move = step(&bench, true);
        assert_true(move == ACCESS_MOVE_NONE || (n < 3 && move == expected[n++]));
        assert_true(access_is_moving(&bench.access) && !access_believes(&bench.access, bench.now_ns));
    }
    assert_int_equal(n, 3);
    int64_t settle_ns = bench.now_ns;
    run_to(&bench, true, ACCESS_IN);
    assert_true(s_from_ns(bench.now_ns - settle_ns) >= 2.0);
    assert_true(access_is_readable(&bench.access) && !access_is_clear(&bench.access));
    assert_true(access_believes(&bench.access, bench.now_ns));
    assert_false(access_believes(&bench.access, bench.now_ns - 1)); /* began before it had settled */
    assert_false(access_is_doubtful(&bench.access));
}

static void the_way_out_is_laser_off_optics_out(void **state)
{
    (void)state;
    struct bench bench;
    bench_start(&bench);
    run_to(&bench, true, ACCESS_IN);
    int64_t exposure_ns = bench.now_ns;
    memset(bench.n_asked, 0, sizeof bench.n_asked);
    assert_int_equal(step(&bench, false), ACCESS_MOVE_LASER_CLOSE);
    assert_false(access_believes(&bench.access, exposure_ns)); /* it ended when the laser went off */
    while (bench.access.state != ACCESS_OUT) {
        assert_false(access_is_clear(&bench.access));
        step(&bench, false);
        assert_true(bench.optics == OPTICS_STEPS || bench.laser == 0);
    }
    assert_true(access_is_clear(&bench.access) && !access_is_readable(&bench.access));
    assert_int_equal(bench.n_asked[ACCESS_MOVE_OPTICS_OUT], 1);
    assert_int_equal(bench.n_asked[ACCESS_MOVE_LASER_CLOSE], 1);
    assert_int_equal(bench.optics + bench.laser, 0);
    run_s(&bench, false, 100.0);
    assert_int_equal(bench.n_asked[ACCESS_MOVE_OPTICS_OUT], 1); /* what stands is left alone */
}

/* What stands where it should at the start is asked for all the same: who knows what it was told last. */
static void nothing_is_believed_that_was_not_asked_for(void **state)
{
    (void)state;
    struct bench bench;
    bench_start(&bench);
    assert_int_equal(bench.access.state, ACCESS_WITHDRAWING);
    assert_int_equal(step(&bench, false), ACCESS_MOVE_LASER_CLOSE);
    run_s(&bench, false, 1.25);
    assert_int_equal(bench.n_asked[ACCESS_MOVE_OPTICS_OUT], 1);
    assert_int_equal(bench.access.state, ACCESS_WITHDRAWING);
    run_s(&bench, false, 1.0);
    assert_int_equal(bench.access.state, ACCESS_OUT);
}

/* The laser has just been told to open when the ruby is not wanted any more: its readback still says Closed. */
static void an_old_readback_does_not_confirm_a_new_wish(void **state)
{
    (void)state;
    struct bench bench;
    bench_start(&bench);
    bench.late = LATE_MAX - 1;
    for (int i = 0; i < 200 && bench.n_asked[ACCESS_MOVE_LASER_OPEN] == 0; i++)
        step(&bench, true);
    assert_int_equal(bench.access.laser_seen, ACCESS_LASER_CLOSED);
    assert_int_equal(step(&bench, false), ACCESS_MOVE_LASER_CLOSE);
    while (bench.access.state != ACCESS_OUT) {
        step(&bench, false);
        assert_true(bench.laser == 0 || bench.optics == OPTICS_STEPS);
    }
}

static void turning_round_on_the_way_is_allowed_at_any_moment(void **state)
{
    (void)state;
    for (int n_steps = 1; n_steps < 60; n_steps++) {
        struct bench bench;
        bench_start(&bench);
        for (int i = 0; i < n_steps; i++)
            step(&bench, true);
        run_to(&bench, false, ACCESS_OUT);
        assert_int_equal(bench.optics + bench.laser, 0);
        for (int i = 0; i < n_steps; i++)
            step(&bench, true);
        for (int i = 0; i < 4; i++)
            step(&bench, false);
        run_to(&bench, true, ACCESS_IN);
        assert_true(bench.optics == OPTICS_STEPS && bench.laser == 1);
        assert_false(access_is_doubtful(&bench.access));
    }
}

/* ---- what goes wrong ----------------------------------------------------------------------------------------- */

static void a_stage_that_is_stuck_is_a_doubt_until_it_arrives(void **state)
{
    (void)state;
    for (int is_wanted = 0; is_wanted <= 1; is_wanted++) {
        struct bench bench;
        bench_start(&bench);
        run_to(&bench, !is_wanted, is_wanted ? ACCESS_OUT : ACCESS_IN);
        enum access_move asked = is_wanted ? ACCESS_MOVE_OPTICS_IN : ACCESS_MOVE_OPTICS_OUT;
        memset(bench.n_asked, 0, sizeof bench.n_asked);
        bench.is_stuck = true;
        for (int i = 0; i < 100 && bench.n_asked[asked] == 0; i++)
            step(&bench, is_wanted);
        run_s(&bench, is_wanted, 9.75);
        assert_false(access_is_doubtful(&bench.access));
        run_s(&bench, is_wanted, 0.75);
        assert_true(access_is_doubtful(&bench.access) && access_is_moving(&bench.access));
        assert_int_equal(bench.n_asked[asked], 1);
        run_s(&bench, is_wanted, 100.0);
        assert_true(access_is_doubtful(&bench.access));
        assert_in_range(bench.n_asked[asked], 4, 7); /* the wish is repeated, but not all the time */
        assert_int_equal(bench.n_asked[ACCESS_MOVE_LASER_OPEN], 0);
        bench.is_stuck = false;
        if (is_wanted) {
            run_to(&bench, is_wanted, ACCESS_SETTLING);
            assert_true(access_is_doubtful(&bench.access)); /* not there yet */
        }
        run_to(&bench, is_wanted, is_wanted ? ACCESS_IN : ACCESS_OUT);
        assert_false(access_is_doubtful(&bench.access));
    }
}

static void a_doubt_is_not_forgotten_by_turning_round(void **state)
{
    (void)state;
    struct bench bench;
    bench_start(&bench);
    run_to(&bench, true, ACCESS_IN);
    bench.is_stuck = true;
    run_s(&bench, false, 20.0);
    assert_true(access_is_doubtful(&bench.access));
    step(&bench, true);
    assert_true(access_is_doubtful(&bench.access));
    run_to(&bench, true, ACCESS_IN); /* it never left */
    assert_false(access_is_doubtful(&bench.access));
}

static void a_place_that_is_left_is_a_doubt_at_once(void **state)
{
    (void)state;
    static const struct {
        bool is_wanted;
        int optics, laser; /* where a stranger puts them */
        enum access_state then;
    } cases[] = {{false, 3, 0, ACCESS_WITHDRAWING},
                 {false, 0, 1, ACCESS_WITHDRAWING},
                 {true, OPTICS_STEPS - 1, 1, ACCESS_INSERTING},
                 {true, OPTICS_STEPS, 0, ACCESS_INSERTING}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct bench bench;
        bench_start(&bench);
        run_to(&bench, cases[i].is_wanted, cases[i].is_wanted ? ACCESS_IN : ACCESS_OUT);
        int64_t before_ns = bench.now_ns;
        bench.optics = bench.optics_wanted = cases[i].optics;
        bench.laser = bench.laser_wanted = cases[i].laser;
        step(&bench, cases[i].is_wanted);
        step(&bench, cases[i].is_wanted);
        assert_int_equal(bench.access.state, cases[i].then);
        assert_true(access_is_doubtful(&bench.access));
        assert_false(access_is_clear(&bench.access) || access_is_readable(&bench.access));
        run_to(&bench, cases[i].is_wanted, cases[i].is_wanted ? ACCESS_IN : ACCESS_OUT); /* and it is put back */
        assert_false(access_is_doubtful(&bench.access));
        assert_false(access_believes(&bench.access, before_ns));
    }
}

/* During the settling, too; and a readback that is not known is no place. */
static void settling_begins_anew_after_a_disturbance(void **state)
{
    (void)state;
    struct bench bench;
    bench_start(&bench);
    run_to(&bench, true, ACCESS_SETTLING);
    step(&bench, true);
    post(&bench, EVENT_ACCESS, ACCESS_OPTICS_UNKNOWN, ACCESS_LASER_OPEN);
    bench.now_ns += STEP_NS;
    assert_int_equal(access_step(&bench.access, bench.now_ns, true), ACCESS_MOVE_LASER_CLOSE); /* A1 comes first */
    assert_int_equal(bench.access.state, ACCESS_INSERTING);
    obey(&bench, ACCESS_MOVE_LASER_CLOSE);
    run_to(&bench, true, ACCESS_SETTLING);
    int64_t settle_ns = bench.now_ns;
    run_to(&bench, true, ACCESS_IN);
    assert_true(s_from_ns(bench.now_ns - settle_ns) >= 2.0);
}

static void a_lost_link_is_a_doubt_and_everything_is_asked_for_anew(void **state)
{
    (void)state;
    struct bench bench;
    bench_start(&bench);
    run_to(&bench, false, ACCESS_OUT);
    post(&bench, EVENT_ACCESS_LOST, 0, 0);
    bench.is_cut = true;
    memset(bench.n_asked, 0, sizeof bench.n_asked);
    for (int i = 0; i < 200; i++) {
        assert_int_equal(step(&bench, false), ACCESS_MOVE_NONE); /* nobody would hear it */
        assert_true(access_is_doubtful(&bench.access) && !access_is_clear(&bench.access));
    }
    bench.is_cut = false;
    post(&bench, EVENT_ACCESS_FOUND, 0, 0);
    run_to(&bench, false, ACCESS_OUT);
    assert_int_equal(bench.n_asked[ACCESS_MOVE_LASER_CLOSE], 1);
    assert_int_equal(bench.n_asked[ACCESS_MOVE_OPTICS_OUT], 1);
    assert_false(access_is_doubtful(&bench.access));
    step(&bench, true);
    post(&bench, EVENT_ACCESS_LOST, 0, 0);
    assert_true(access_is_doubtful(&bench.access)); /* on the way, too */
}

/* ---- anything, at any time ----------------------------------------------------------------------------------- */

static bool is_now(struct random *random, double probability) { return random_uniform(random) < probability; }

static void disturb(struct bench *bench, struct random *random, bool has_strangers)
{
    if (is_now(random, 0.01))
        bench->is_stuck = !bench->is_stuck;
    if (is_now(random, bench->is_cut ? 0.1 : 0.005)) {
        bench->is_cut = !bench->is_cut;
        post(bench, bench->is_cut ? EVENT_ACCESS_LOST : EVENT_ACCESS_FOUND, 0, 0);
    }
    if (is_now(random, 0.05))
        bench->late = (int)(random_uniform(random) * LATE_MAX);
    if (has_strangers && is_now(random, 0.01))
        bench->optics_wanted = is_now(random, 0.5) ? OPTICS_STEPS : 0;
    if (has_strangers && is_now(random, 0.01))
        bench->laser_wanted = is_now(random, 0.5);
}

/* With strangers only what was read back can be held against the machine, and it asserts that itself. */
static void walk(uint64_t seed, bool has_strangers)
{
    struct random random = {.state = seed};
    struct bench bench;
    bool is_wanted = true;
    int n_in = 0, n_out = 0;
    bench_start(&bench);
    for (int i = 0; i < 40000; i++) {
        is_wanted = is_now(&random, 0.01) ? !is_wanted : is_wanted;
        disturb(&bench, &random, has_strangers);
        int optics_before = bench.optics;
        step(&bench, is_wanted);
        n_in += bench.access.state == ACCESS_IN;
        n_out += bench.access.state == ACCESS_OUT;
        if (has_strangers)
            continue;
        bool is_moved = bench.optics != optics_before;
        if (is_moved && bench.laser)
            fail_msg("seed %d, step %d: the optics move with the laser on", (int)seed, i);
        if (access_is_clear(&bench.access) && (bench.optics != 0 || bench.laser))
            fail_msg("seed %d, step %d: clear, but optics at %d, laser %d", (int)seed, i, bench.optics, bench.laser);
        if (access_is_readable(&bench.access) && (bench.optics != OPTICS_STEPS || !bench.laser))
            fail_msg("seed %d, step %d: readable, but optics at %d, laser %d", (int)seed, i, bench.optics, bench.laser);
    }
    assert_true(n_in > 1000 && n_out > 1000);
    bench.is_stuck = false;
    if (bench.is_cut)
        post(&bench, EVENT_ACCESS_FOUND, 0, 0);
    bench.is_cut = false;
    run_to(&bench, false, ACCESS_OUT); /* whatever happened, the way is found again */
    run_to(&bench, true, ACCESS_IN);
    assert_false(access_is_doubtful(&bench.access));
    print_message("seed %d%s: in %d, out %d of 40000 steps\n", (int)seed, has_strangers ? ", strangers" : "", n_in,
                  n_out);
}

static void random_walks_keep_the_order(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 10; seed++) {
        walk(seed, false);
        walk(seed, true);
    }
}

static void everything_has_a_name(void **state)
{
    (void)state;
    for (int i = 0; i < ACCESS_STATE_COUNT; i++)
        assert_true(strlen(access_state_name((enum access_state)i)) > 0);
    for (int i = 0; i < ACCESS_MOVE_COUNT; i++)
        assert_true(strlen(access_move_name((enum access_move)i)) > 0);
    assert_string_equal(event_kind_name(EVENT_ACCESS_FOUND), "access found");
    assert_string_equal(action_kind_name(ACTION_ACCESS), "access");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(always_means_that_nothing_moves),
        cmocka_unit_test(the_way_in_is_laser_off_optics_in_laser_on_settled),
        cmocka_unit_test(the_way_out_is_laser_off_optics_out),
        cmocka_unit_test(nothing_is_believed_that_was_not_asked_for),
        cmocka_unit_test(an_old_readback_does_not_confirm_a_new_wish),
        cmocka_unit_test(turning_round_on_the_way_is_allowed_at_any_moment),
        cmocka_unit_test(a_stage_that_is_stuck_is_a_doubt_until_it_arrives),
        cmocka_unit_test(a_doubt_is_not_forgotten_by_turning_round),
        cmocka_unit_test(a_place_that_is_left_is_a_doubt_at_once),
        cmocka_unit_test(settling_begins_anew_after_a_disturbance),
        cmocka_unit_test(a_lost_link_is_a_doubt_and_everything_is_asked_for_anew),
        cmocka_unit_test(random_walks_keep_the_order),
        cmocka_unit_test(everything_has_a_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
