/*
 * Goal: the scans of an isobar take every transition of scan.h, repeat only whole scans as numbered attempts, and are
 * not confused by late events of earlier attempts.
 * Method: the pure machine, event by event; then a walk from a printed seed with an oracle of its own. SEED=N repeats
 * it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "controller/scan.h"
#include "sim/random.h"

#define WALK_STEPS 200000

static struct event scan_event(enum event_kind kind, int64_t scan_number, int64_t attempt, int64_t now_ns)
{
    struct event event;
    memset(&event, 0, sizeof event);
    event.kind = (int32_t)kind;
    event.integer[0] = scan_number;
    event.integer[1] = attempt;
    event.now_ns = now_ns;
    return event;
}

static enum scan_wish observe(struct scan *scan, enum event_kind kind, int64_t scan_number, int64_t attempt,
                              double now_s)
{
    struct event event = scan_event(kind, scan_number, attempt, ns_from_s(now_s));
    return scan_observe(scan, &event);
}

/* From WAIT to RUN at `now_s`. */
static void run_scan(struct scan *scan, double now_s)
{
    assert_int_equal(scan->state, SCAN_WAIT);
    assert_int_equal(scan_step(scan, ns_from_s(now_s), false, 0), SCAN_WISH_JOURNAL);
    scan->intent_number = 7;
    assert_int_equal(scan_step(scan, ns_from_s(now_s), false, 7), SCAN_WISH_START);
    assert_int_equal(scan->state, SCAN_RUN);
}

static struct scan begun(int32_t n_scans)
{
    struct scan scan;
    scan_begin(&scan, 4, n_scans, 6000, 0.1, ns_from_s(100.0));
    return scan;
}

static void an_isobar_without_scans_is_done(void **state)
{
    (void)state;
    struct scan scan = begun(0);
    assert_int_equal(scan.state, SCAN_DONE);
    assert_int_equal(scan.scan_number, 4); /* the next isobar's first is 5 all the same */
    assert_int_equal(scan_step(&scan, ns_from_s(101.0), false, 9), SCAN_WISH_NONE);
    struct scan idle = {0};
    assert_int_equal(scan_step(&idle, 1, false, 9), SCAN_WISH_NONE);
}

static void scans_follow_each_other(void **state)
{
    (void)state;
    struct scan scan = begun(2);
    run_scan(&scan, 101.0);
    assert_int_equal(observe(&scan, EVENT_SCAN_STARTED, 5, 1, 102.0), SCAN_WISH_NONE);
    assert_int_equal(observe(&scan, EVENT_SCAN_PROGRESS, 5, 1, 103.0), SCAN_WISH_NONE);
    assert_int_equal(observe(&scan, EVENT_SCAN_COMPLETE, 5, 1, 700.0), SCAN_WISH_ANALYSE);
    assert_int_equal(scan.scan_number, 6);
    run_scan(&scan, 700.0); /* at once */
    assert_int_equal(observe(&scan, EVENT_SCAN_COMPLETE, 6, 1, 1300.0), SCAN_WISH_ANALYSE);
    assert_int_equal(scan.state, SCAN_DONE);
    assert_int_equal(observe(&scan, EVENT_SCAN_COMPLETE, 6, 1, 1301.0), SCAN_WISH_NONE); /* said twice */
}

static void nothing_starts_while_held_or_before_it_is_durable(void **state)
{
    (void)state;
    struct scan scan = begun(1);
    assert_int_equal(scan_step(&scan, ns_from_s(101.0), true, 0), SCAN_WISH_NONE);
    assert_int_equal(scan.state, SCAN_WAIT);
    assert_int_equal(scan_step(&scan, ns_from_s(102.0), false, 0), SCAN_WISH_JOURNAL);
    scan.intent_number = 3;
    assert_int_equal(scan_step(&scan, ns_from_s(103.0), false, 2), SCAN_WISH_NONE);
    assert_int_equal(scan.state, SCAN_JOURNAL);
    assert_int_equal(scan_step(&scan, ns_from_s(104.0), true, 3), SCAN_WISH_NONE); /* held meanwhile */
    assert_int_equal(scan.state, SCAN_WAIT);
    assert_int_equal(scan.attempt, 1); /* it never began */
}

static void a_cut_scan_is_repeated_as_the_next_attempt(void **state)
{
    (void)state;
    struct scan scan = begun(1);
    run_scan(&scan, 101.0);
    assert_int_equal(scan_step(&scan, ns_from_s(150.0), true, 7), SCAN_WISH_ABORT); /* beam lost */
    assert_int_equal(scan.state, SCAN_WAIT);
    assert_int_equal(scan.attempt, 2);
    assert_int_equal(scan_step(&scan, ns_from_s(159.0), false, 7), SCAN_WISH_NONE); /* not at once */
    run_scan(&scan, 160.0);
    assert_int_equal(observe(&scan, EVENT_SCAN_FAILED, 5, 1, 161.0), SCAN_WISH_NONE); /* late words of attempt 1 */
    assert_int_equal(observe(&scan, EVENT_SCAN_COMPLETE, 5, 1, 161.0), SCAN_WISH_NONE);
    assert_int_equal(observe(&scan, EVENT_SCAN_COMPLETE, 4, 2, 161.0), SCAN_WISH_NONE);
    assert_int_equal(scan.state, SCAN_RUN);
    assert_int_equal(observe(&scan, EVENT_SCAN_FAILED, 5, 2, 170.0), SCAN_WISH_NONE);
    assert_int_equal(scan.attempt, 3);
    run_scan(&scan, 180.0);
    double deadline_s = s_from_ns(scan.deadline_ns);
    assert_true(deadline_s > 180.0 + 600.0);
    assert_int_equal(scan_step(&scan, scan.deadline_ns, false, 7), SCAN_WISH_NONE);
    assert_int_equal(scan_step(&scan, scan.deadline_ns + 1, false, 7), SCAN_WISH_ABORT); /* no end in sight */
    assert_int_equal(scan.attempt, 4);
}

static void five_failures_exhaust_and_a_resume_starts_anew(void **state)
{
    (void)state;
    struct scan scan = begun(1);
    double now_s = 200.0;
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < SCAN_ATTEMPTS_MAX; i++) {
            if (scan.state != SCAN_WAIT)
                fail_msg("round %d: exhausted after %d failures, expected %d", round + 1, i, SCAN_ATTEMPTS_MAX);
            run_scan(&scan, now_s);
            observe(&scan, EVENT_SCAN_FAILED, 5, scan.attempt, now_s + 1.0);
            now_s += 20.0;
        }
        assert_int_equal(scan.state, SCAN_EXHAUSTED);
        assert_int_equal(scan_step(&scan, ns_from_s(now_s), false, 99), SCAN_WISH_NONE);
        scan_resume(&scan, ns_from_s(now_s));
        assert_int_equal(scan.attempt, (round + 1) * SCAN_ATTEMPTS_MAX + 1); /* numbers are never used twice */
    }
    struct scan running = begun(1);
    run_scan(&running, 101.0);
    scan_resume(&running, ns_from_s(102.0)); /* of no use to a scan that is not exhausted */
    assert_int_equal(running.state, SCAN_RUN);
}

/* Any events in any order: an attempt starts once, only when nothing holds and it is durable; a scan is analysed once.
 */
static void a_walk_never_repeats_an_attempt(void **state)
{
    (void)state;
    const char *given = getenv("SEED");
    struct random random = {.state = given && *given ? strtoull(given, NULL, 10) : 4242};
    print_message("seed %llu\n", (unsigned long long)random.state);
    struct scan scan = begun(1000);
    int64_t now_ns = ns_from_s(100.0), intent = 0, durable = 0, last_scan = 0, last_attempt = 0, analysed = 4;
    for (int i = 0; i < WALK_STEPS; i++) {
        now_ns += ns_from_s(20.0 * random_uniform(&random));
        bool is_held = random_uniform(&random) < 0.1;
        if (random_uniform(&random) < 0.7)
            durable = intent;
        enum scan_wish wish = SCAN_WISH_NONE;
        if (random_uniform(&random) < 0.3) {
            enum event_kind kind = random_uniform(&random) < 0.3 ? EVENT_SCAN_FAILED : EVENT_SCAN_COMPLETE;
            int64_t attempt = scan.attempt - (random_uniform(&random) < 0.3);
            struct event event = scan_event(kind, scan.scan_number, attempt, now_ns);
            bool is_mine = scan.state == SCAN_RUN && attempt == scan.attempt;
            wish = scan_observe(&scan, &event);
            assert_true(wish == (is_mine && kind == EVENT_SCAN_COMPLETE ? SCAN_WISH_ANALYSE : SCAN_WISH_NONE));
            assert_true(wish != SCAN_WISH_ANALYSE || event.integer[0] == ++analysed);
        }
        wish = scan_step(&scan, now_ns, is_held, durable);
        if (wish == SCAN_WISH_JOURNAL)
            scan.intent_number = ++intent;
        if (wish == SCAN_WISH_START) {
            assert_true(!is_held && durable >= scan.intent_number);
            assert_true(scan.scan_number > last_scan || (scan.scan_number == last_scan && scan.attempt > last_attempt));
            last_scan = scan.scan_number;
            last_attempt = scan.attempt;
        }
        if (scan.state == SCAN_EXHAUSTED && random_uniform(&random) < 0.1)
            scan_resume(&scan, now_ns);
        assert_true(scan.n_left == 1000 - (analysed - 4));
    }
    assert_true(analysed > 500);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_isobar_without_scans_is_done),
        cmocka_unit_test(scans_follow_each_other),
        cmocka_unit_test(nothing_starts_while_held_or_before_it_is_durable),
        cmocka_unit_test(a_cut_scan_is_repeated_as_the_next_attempt),
        cmocka_unit_test(five_failures_exhaust_and_a_resume_starts_anew),
        cmocka_unit_test(a_walk_never_repeats_an_attempt),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
