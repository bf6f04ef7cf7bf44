/*
 * Goal: the filter follows a slide of either law: pressure, speed, and how the gasket carries the speed, each with a
 * sigma that is honest; a wrong reading is left out, and a slip believed. Method: the two laws integrated here in fine
 * steps under a ramp that stops, read every 3 s with noise from a fixed seed; the filter begins with a speed and a flow
 * that are wrong by as much as it is told.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <math.h>

#include "controller/slide.h"
#include "sim/random.h"

#define N_DRAWS 60
#define RAMP_S 900
#define CREEP_S 3600
#define EVERY_S 3
#define FINE_S 0.05
#define NOISE_GPA 0.01

static const struct slide_cell cell = {.edge_bar_per_gpa = 11.0, .half_width_bar = 14.0};
static const double flow_begun[] = {0.24, 1200.0}, flow_sigma[] = {0.06, 300.0}; /* by is_viscous */

struct truth {
    double flow, membrane_bar, pressure_gpa, speed;
};

/* dP/dt of the law by its excess over the edge, not by the filter's equation for the speed. */
static double speed_of(const struct truth *truth, bool is_viscous, double start_bar)
{
    double excess_gpa = (truth->membrane_bar - start_bar) / cell.edge_bar_per_gpa - truth->pressure_gpa;
    double yield_gpa = truth->flow * cell.half_width_bar / cell.edge_bar_per_gpa;
    return is_viscous ? excess_gpa / truth->flow : 2e-4 * exp(excess_gpa / yield_gpa);
}

struct play {
    struct slide slide;
    struct truth truth;
    bool is_viscous;
    double start_bar;
    struct random random;
};

static void play_begin(struct play *play, bool is_viscous, uint64_t seed)
{
    *play = (struct play){.is_viscous = is_viscous, .random = {.state = seed}, .start_bar = 50.0};
    double flow = flow_begun[is_viscous] + flow_sigma[is_viscous] * random_normal(&play->random);
    play->truth = (struct truth){.flow = fmax(flow, 0.4 * flow_begun[is_viscous]), .membrane_bar = 50.0};
    if (is_viscous)
        play->truth.membrane_bar += 2e-4 * play->truth.flow * cell.edge_bar_per_gpa;
    play->truth.speed = speed_of(&play->truth, is_viscous, play->start_bar);
    double speed_sigma = 0.3 * play->truth.speed;
    const double state[SLIDE_STATES] = {NOISE_GPA * random_normal(&play->random),
                                        play->truth.speed + speed_sigma * random_normal(&play->random),
                                        flow_begun[is_viscous]};
    const double sigma[SLIDE_STATES] = {NOISE_GPA, speed_sigma, flow_sigma[is_viscous]};
    slide_begin(&play->slide, is_viscous, state, sigma, play->truth.membrane_bar);
}

static void play_second(struct play *play, double rate_bar_per_s)
{
    struct truth *truth = &play->truth;
    for (double t = 0.0; t < 1.0 - 0.5 * FINE_S; t += FINE_S) {
        truth->membrane_bar += rate_bar_per_s * FINE_S;
        truth->speed = speed_of(truth, play->is_viscous, play->start_bar);
        truth->pressure_gpa += truth->speed * FINE_S;
    }
    slide_move(&play->slide, &cell, truth->membrane_bar, 1.0);
}

static void play_run(struct play *play, int seconds, double rate_bar_per_s)
{
    for (int s = 0; s < seconds; s++) {
        play_second(play, rate_bar_per_s);
        if (s % EVERY_S == 0)
            slide_read(&play->slide, play->truth.pressure_gpa + NOISE_GPA * random_normal(&play->random), NOISE_GPA);
    }
}

static double sigma_of(const struct slide *slide, int i) { return sqrt(slide->covariance[i][i]); }

static void a_slide_is_followed_and_teaches(void **state)
{
    (void)state;
    for (int is_viscous = 0; is_viscous < 2; is_viscous++) {
        double pull2[SLIDE_STATES] = {0.0}, speed2 = 0.0, before2 = 0.0, after2 = 0.0;
        for (int k = 0; k < N_DRAWS; k++) {
            struct play play;
            play_begin(&play, is_viscous != 0, 1000 + (uint64_t)k);
            play_run(&play, RAMP_S, 0.02);
            play_run(&play, CREEP_S, 0.0);
            const double truth[SLIDE_STATES] = {play.truth.pressure_gpa, play.truth.speed, play.truth.flow};
            for (int i = 0; i < SLIDE_STATES; i++)
                pull2[i] += pow((play.slide.state[i] - truth[i]) / sigma_of(&play.slide, i), 2.0) / N_DRAWS;
            speed2 += pow(play.slide.state[SLIDE_SPEED] / play.truth.speed - 1.0, 2.0) / N_DRAWS;
            before2 += pow(flow_begun[is_viscous] / play.truth.flow - 1.0, 2.0) / N_DRAWS;
            after2 += pow(play.slide.state[SLIDE_FLOW] / play.truth.flow - 1.0, 2.0) / N_DRAWS;
        }
        print_message("%s: speed to %.1f %%; flow to %.1f %%, before %.1f %%; pulls %.2f %.2f %.2f\n",
                      is_viscous ? "flows" : "yields", 100.0 * sqrt(speed2), 100.0 * sqrt(after2),
                      100.0 * sqrt(before2), sqrt(pull2[0]), sqrt(pull2[1]), sqrt(pull2[2]));
        assert_true(sqrt(speed2) < 0.1);
        assert_true(after2 < 0.1 * before2);
        for (int i = 0; i < SLIDE_STATES; i++)
            assert_true(pull2[i] < 1.0); /* cautious: readings are taken to err together, and here they do not */
    }
}

static void a_wrong_reading_is_left_out_and_a_slip_believed(void **state)
{
    (void)state;
    struct play play;
    play_begin(&play, false, 5);
    play_run(&play, RAMP_S, 0.02);
    const struct slide before = play.slide;
    for (int i = 0; i < 3; i++) {
        slide_read(&play.slide, play.truth.pressure_gpa - 0.5, NOISE_GPA);
        assert_true(play.slide.state[SLIDE_LEVEL] == before.state[SLIDE_LEVEL]);
        assert_true(play.slide.state[SLIDE_SPEED] == before.state[SLIDE_SPEED]);
    }
    slide_read(&play.slide, play.truth.pressure_gpa - 0.5, NOISE_GPA);
    assert_true(fabs(play.slide.state[SLIDE_LEVEL] - (play.truth.pressure_gpa - 0.5)) < 0.05);
    assert_true(play.slide.state[SLIDE_SPEED] > 0.5 * before.state[SLIDE_SPEED]); /* it slipped, and slides on */
}

/* A slip hides the slide from any line through readings; what the membrane does to the speed goes on being known. */
static void a_membrane_that_rises_is_a_slide_that_quickens(void **state)
{
    (void)state;
    struct play play;
    play_begin(&play, false, 6);
    play_run(&play, RAMP_S, 0.02);
    double before = play.truth.speed;
    for (int s = 0; s < 60; s++)
        play_second(&play, 0.06); /* no reading */
    assert_true(play.truth.speed > 1.1 * before);
    assert_true(fabs(play.slide.state[SLIDE_SPEED] / play.truth.speed - 1.0) < 0.1);
}

static void nothing_is_known_before_it_begins(void **state)
{
    (void)state;
    struct slide slide = {0};
    slide_move(&slide, &cell, 60.0, 1.0);
    slide_read(&slide, 3.0, NOISE_GPA);
    assert_false(slide.is_begun);
    assert_true(slide.state[SLIDE_LEVEL] == 0.0 && slide.membrane_bar == 0.0);
}

/* Whatever is read, the states stay numbers within their bounds. */
static void garbage_does_not_break_it(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 200; seed++) {
        struct play play;
        play_begin(&play, seed % 2 == 0, seed);
        for (int s = 0; s < 2000; s++) {
            double rate = 0.1 * random_normal(&play.random);
            slide_move(&play.slide, &cell, play.slide.membrane_bar + rate, 1.0);
            slide_read(&play.slide, 10.0 * random_normal(&play.random), 0.001 + 0.1 * random_uniform(&play.random));
            double flow = play.slide.state[SLIDE_FLOW] / flow_begun[play.is_viscous];
            assert_true(isfinite(play.slide.state[SLIDE_LEVEL]) && play.slide.state[SLIDE_SPEED] > 0.0);
            assert_true(flow > 0.39 && flow < 2.51);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_slide_is_followed_and_teaches),
        cmocka_unit_test(a_wrong_reading_is_left_out_and_a_slip_believed),
        cmocka_unit_test(a_membrane_that_rises_is_a_slide_that_quickens),
        cmocka_unit_test(nothing_is_known_before_it_begins),
        cmocka_unit_test(garbage_does_not_break_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
