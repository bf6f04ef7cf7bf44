/*
 * Goal: a temperature that no cell can have never reaches a pressure, a lost one makes it less certain and not another,
 * and a step is told.
 * Method: thermometers that go wrong in one way each, reading by reading; a random walk through all of them at once,
 * which must keep the invariants.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"
#include "controller/temperature.h"
#include "sim/random.h"

#define SIGMA_K 0.3
#define LOST_K 3.0

static struct temperature temperature;
static struct temperature_sample sample;
static char text[200];

/* The next reading, `dt_s` after the last, of experiment and of wall time. */
static struct temperature_use next(double dt_s, double kelvin)
{
    sample.is_read = true;
    sample.temperature_k = kelvin;
    sample.stamp_ns += ns_from_s(dt_s);
    sample.t_ns += ns_from_s(dt_s);
    sample.wall_ns += ns_from_s(dt_s);
    struct temperature_use use = temperature_judge(&temperature, &sample);
    temperature_text(&temperature, &use, "ISB:T is not connected", text, sizeof text);
    return use;
}

static struct temperature_use next_unread(double dt_s)
{
    sample.t_ns += ns_from_s(dt_s);
    sample.wall_ns += ns_from_s(dt_s);
    sample.is_read = false;
    struct temperature_use use = temperature_judge(&temperature, &sample);
    temperature_text(&temperature, &use, "ISB:T is not connected", text, sizeof text);
    return use;
}

static int begin(void **state)
{
    (void)state;
    temperature = temperature_begin(296, SIGMA_K, LOST_K);
    sample = (struct temperature_sample){.t_ns = 10 * NS_PER_S, .wall_ns = 500 * NS_PER_S, .stamp_ns = NS_PER_S};
    return 0;
}

static void check_believed(struct temperature_use use, double kelvin)
{
    assert_true(use.temperature_k == kelvin && use.temperature_k_sigma == SIGMA_K);
}

static void check_lost(struct temperature_use use, double kelvin)
{
    assert_true(use.temperature_k == kelvin && use.temperature_k_sigma == LOST_K);
}

static void a_thermometer_is_believed(void **state)
{
    (void)state;
    check_believed(next(5, 297.5), 297.5);
    assert_string_equal(text, "thermometer of the cell is believed: 297.50 K, with every ruby reading");
    check_believed(next(5, 297.52), 297.52);
    assert_string_equal(text, "");
}

static void lost_before_it_was_read(void **state)
{
    (void)state;
    check_lost(next_unread(5), 296);
    assert_string_equal(text, "thermometer of the cell not read (ISB:T is not connected); ruby readings go on with the "
                              "stated 296.00 K, known to 3 K; check the sensor");
    check_lost(next_unread(5), 296);
    assert_string_equal(text, "");     /* once */
    check_believed(next(5, 310), 310); /* no jump: nothing was believed before */
}

static void lost_in_the_night(void **state)
{
    (void)state;
    next(5, 320);
    check_lost(next_unread(5), 320); /* not the stated one: the cell is warm all the same */
    assert_non_null(strstr(text, "the last that was believed, 320.00 K, known to 3 K"));
    check_believed(next(5, 320.1), 320.1);
    assert_string_equal(text, ""); /* not over yet: a loose plug comes and goes */
    check_lost(next_unread(5), 320.1);
    assert_string_equal(text, "");
    for (int i = 0; i < 12; i++) {
        check_believed(next(5, 320.1), 320.1);
        assert_string_equal(text, "");
    }
    next(5, 320.1);
    assert_non_null(strstr(text, "is believed: 320.10 K"));
    next_unread(5);
    assert_non_null(strstr(text, "not read")); /* another loss */
}

static void stale(void **state)
{
    (void)state;
    next(5, 296.2);
    for (int i = 0; i < 12; i++) {
        sample.stamp_ns -= 5 * NS_PER_S; /* as it was */
        check_believed(next(5, 296.2), 296.2);
    }
    sample.stamp_ns -= 5 * NS_PER_S;
    check_lost(next(5, 296.2), 296.2);
    assert_non_null(strstr(text, "stale: its record has not been processed for a minute, and holds 296.20 K"));
    check_believed(next(5, 296.2), 296.2);
}

/* The experiment's clock may run a thousand times too fast: then a minute of it says nothing of the IOC. */
static void staleness_is_of_wall_time(void **state)
{
    (void)state;
    next(5, 296.2);
    int64_t stamp_ns = sample.stamp_ns, wall_ns = sample.wall_ns;
    next(3600, 296.2);
    sample.stamp_ns = stamp_ns - 5 * NS_PER_S;
    sample.wall_ns = wall_ns;
    check_believed(next(5, 296.2), 296.2);
}

static void absurd(void **state)
{
    (void)state;
    const double values[] = {NAN, INFINITY, -INFINITY, 0, -273.15, 23, 49.9, 1000.1, 1e30};
    next(5, 296.2);
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++)
        check_lost(next(5, values[i]), 296.2);
    next(100, 296.2);
    next(5, 23.05);
    assert_non_null(strstr(text, "absurd: 23.05 K, expected 50 to 1000; ruby readings go on"));
}

static void a_jump_is_not_believed_but_a_change_is(void **state)
{
    (void)state;
    next(5, 296);
    check_lost(next(5, 300), 296);
    assert_non_null(strstr(text, "jumped to 300.00 K, as no cell does"));
    check_lost(next(5, 300), 296);
    check_lost(next(5, 300), 296);
    check_lost(next(5, 300), 296);
    check_lost(next(5, 300), 296);
    check_lost(next(4.9, 300), 296); /* 3.99 K are allowed by now */
    struct temperature_use use = next(0.2, 300);
    check_believed(use, 300);
    assert_true(use.step_k == 4);
    assert_string_equal(text, "thermometer of the cell: +4.00 K from one ruby reading to the next, now 300.00 K");
    for (int i = 1; i < 100; i++) { /* a heater: 6 K a minute, step by step */
        use = next(5, 300 + 0.5 * i);
        check_believed(use, 300 + 0.5 * i);
        assert_true(use.step_k == 0);
    }
    use = next(5, 349.5 - 0.61);
    assert_true(fabs(use.step_k + 0.61) < 1e-9); /* more than two sigma of the thermometer */
}

/* Whatever comes: what is used was believed at some time, lies within what a cell can have, and never moves faster. */
static void random_thermometers(void **state)
{
    (void)state;
    struct random random = {.state = 7};
    double used = 296, moved_s = 0;
    int n_believed = 0, n_told = 0;
    for (int i = 0; i < 200000; i++) {
        double draw = random_uniform(&random), dt_s = 0.5 + 10 * random_uniform(&random);
        double kelvin = draw < 0.6   ? 296 + sin(i * 0.01)
                        : draw < 0.7 ? 2000 * random_uniform(&random)
                        : draw < 0.8 ? NAN
                                     : 296 + 5 * random_normal(&random);
        bool had_believed = temperature.has_believed;
        struct temperature_use use = draw > 0.95 ? next_unread(dt_s) : next(dt_s, kelvin);
        bool is_believed = use.temperature_k_sigma == SIGMA_K;
        assert_true(is_believed || use.temperature_k_sigma == LOST_K);
        assert_true(use.temperature_k >= 50 && use.temperature_k <= 1000);
        assert_true(is_believed ? use.temperature_k == kelvin : use.temperature_k == used);
        double since_s = s_from_ns(sample.t_ns) - moved_s;
        assert_true(!had_believed || !is_believed || fabs(use.temperature_k - used) <= 1 + 0.1 * since_s + 1e-6);
        assert_true(!had_believed || !is_believed || fabs(use.temperature_k - used) <= 2 * SIGMA_K || text[0]);
        moved_s = is_believed ? s_from_ns(sample.t_ns) : moved_s;
        used = use.temperature_k;
        n_believed += is_believed;
        n_told += use.is_news;
    }
    assert_true(n_believed > 100000 && n_told < 2000); /* not at every reading */
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test_setup(a_thermometer_is_believed, begin),
                                       cmocka_unit_test_setup(lost_before_it_was_read, begin),
                                       cmocka_unit_test_setup(lost_in_the_night, begin),
                                       cmocka_unit_test_setup(stale, begin),
                                       cmocka_unit_test_setup(staleness_is_of_wall_time, begin),
                                       cmocka_unit_test_setup(absurd, begin),
                                       cmocka_unit_test_setup(a_jump_is_not_believed_but_a_change_is, begin),
                                       cmocka_unit_test_setup(random_thermometers, begin)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
