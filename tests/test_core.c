/*
 * Goal: every phase of the core begins and ends as core.h says, refuses what it must refuse, and obeys hold, resume and
 * stop in every phase and with any one instrument gone; a recorded night replayed gives the same actions, byte for
 * byte. Method: a bench of the shipping core and the plant on a virtual clock; C1 to C3 are judged from the actions
 * alone. Seeds are fixed and printed.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "analysis/ruby_scale.h"
#include "base/clock.h"
#include "controller/core.h"
#include "sim/plant.h"
#include "tests/nights/night.h"

#define BAR_MAX 130.0
#define RECORD_MAX 400000

enum gone { GONE_NOTHING, GONE_MEMBRANE, GONE_RUBY, GONE_DETECTOR, GONE_BEAM, GONE_JOURNAL, GONE_COUNT };

struct record {
    int n_events, n_actions;
    struct event *events;
    struct action *actions;
    int *n_actions_of; /* per event */
};

#define STAND_S 4 /* of the way of the ruby's optics */

/* The ruby's optics and the shutter of its laser, at a beamline with access between scans only. */
struct stand {
    bool is_there, is_stuck;
    int optics, optics_wanted; /* 0 .. STAND_S */
    bool laser, laser_wanted;
    int n_moves;
};

struct bench {
    struct core core;
    struct plant plant;
    struct plant_input input;
    struct random random;
    int64_t now_ns, seq, posted, durable;
    double ruby_due_s, membrane_due_s, beam_due_s, cadence_s, bar_min, bar_max, pending_bar_min, pending_bar_max;
    int64_t pending;
    int64_t scan_number, attempt, scan_end_ns;
    int n_starts, n_aborts, n_analyses, n_setpoints, n_shuts, finished; /* finished: -1 not yet */
    uint32_t reasons;
    bool goes_on;
    double deflated_gpa;
    int n_calibrations;
    struct action calibration; /* the last */
    enum gone gone;
    enum core_phase phase_before; /* the step: its last set point may come with the end of the phase */
    struct record *record;
    struct stand stand;
};

static struct core_settings make_settings(void)
{
    struct core_settings settings;
    night_default_settings(&settings);
    night_add_change(&settings, 1.5, 0.1, 1800.0, 2);
    night_add_change(&settings, 1.0, 1.5, 1800.0, 0);
    return settings;
}

static struct event make_event(enum event_kind kind, double value)
{
    struct event event;
    memset(&event, 0, sizeof event);
    event.kind = (int32_t)kind;
    event.value[0] = value;
    return event;
}

static void keep_journal(struct bench *bench, const struct action *action)
{
    assert_int_equal(action->integer[0], bench->posted + 1); /* numbered without a gap */
    bench->posted = action->integer[0];
    if (action->integer[1] != INTENT_MEMBRANE)
        return;
    bench->pending = action->integer[0];
    bench->pending_bar_min = action->value[0];
    bench->pending_bar_max = action->value[1];
}

/* A change begins and goes on at the membrane pressure itself, which is not yet authorised as a range. */
static void check_setpoint(struct bench *bench, double setpoint_bar)
{
    bool is_present = fabs(setpoint_bar - bench->plant.membrane_bar) < 0.2;                /* read up to a second ago */
    assert_true(bench->core.phase == CORE_LOADING || bench->phase_before == CORE_LOADING); /* C3 */
    assert_true(setpoint_bar >= 0.0 && setpoint_bar <= BAR_MAX);                           /* C2 */
    assert_true(is_present || (setpoint_bar >= bench->bar_min && setpoint_bar <= bench->bar_max)); /* C1 */
    bench->n_setpoints++;
    if (bench->gone != GONE_MEMBRANE)
        bench->input.membrane_bar_setpoint = setpoint_bar;
}

static void move_stand(struct stand *stand, enum access_move move)
{
    assert_true(stand->is_there);
    stand->n_moves++;
    if (move == ACCESS_MOVE_LASER_CLOSE || move == ACCESS_MOVE_LASER_OPEN)
        stand->laser_wanted = move == ACCESS_MOVE_LASER_OPEN;
    else
        stand->optics_wanted = move == ACCESS_MOVE_OPTICS_IN ? STAND_S : 0;
}

static void execute(struct bench *bench, const struct action *action)
{
    switch ((enum action_kind)action->kind) {
    case ACTION_JOURNAL:
        keep_journal(bench, action);
        break;
    case ACTION_SETPOINT:
        check_setpoint(bench, action->value[0]);
        break;
    case ACTION_SLEW:
        assert_true(action->value[0] > 0.0 && action->value[0] <= 8.0);
        bench->input.slew_bar_per_s = action->value[0] / 60.0;
        break;
    case ACTION_CADENCE:
        bench->cadence_s = action->value[0];
        break;
    case ACTION_SCAN_START:
        assert_int_equal(bench->core.phase, CORE_ISOBAR);
        assert_true(!bench->stand.is_there || (bench->stand.optics == 0 && !bench->stand.laser)); /* C4 */
        bench->n_starts++;
        bench->scan_number = action->integer[0];
        bench->attempt = action->integer[1];
        bench->scan_end_ns = bench->now_ns + ns_from_s(605.0);
        break;
    case ACTION_SCAN_ABORT:
        assert_true(action->integer[0] == bench->scan_number && action->integer[1] == bench->attempt);
        bench->n_aborts++;
        bench->scan_end_ns = 0;
        break;
    case ACTION_ANALYSE:
        bench->n_analyses++;
        break;
    case ACTION_HOLD:
        bench->reasons = (uint32_t)action->integer[0];
        bench->goes_on = action->integer[1] != 0;
        break;
    case ACTION_VALVES_SHUT:
        bench->n_shuts++;
        break;
    case ACTION_CALIBRATION:
        bench->n_calibrations++;
        bench->calibration = *action;
        break;
    case ACTION_PHASE:
        if (action->integer[1] == CORE_DEFLATED && action->value[PHASE_STATE] == 1.0)
            bench->deflated_gpa = action->value[PHASE_PRESSURE_GPA];
        break;
    case ACTION_ACCESS:
        move_stand(&bench->stand, (enum access_move)action->integer[0]);
        break;
    case ACTION_FINISHED:
        bench->finished = (int)action->integer[0];
        break;
    default:
        break;
    }
}

static void send(struct bench *bench, struct event event)
{
    struct core_actions actions;
    event.seq = ++bench->seq;
    event.now_ns = event.t_ns = bench->now_ns;
    bench->phase_before = bench->core.phase;
    core_step(&bench->core, &event, &actions);
    struct record *record = bench->record;
    if (record) {
        assert_true(record->n_events < RECORD_MAX && record->n_actions + actions.n < RECORD_MAX);
        record->n_actions_of[record->n_events] = actions.n;
        record->events[record->n_events++] = event;
        memcpy(record->actions + record->n_actions, actions.list, (size_t)actions.n * sizeof actions.list[0]);
        record->n_actions += actions.n;
    }
    for (int i = 0; i < actions.n; i++)
        execute(bench, &actions.list[i]);
}

static void command(struct bench *bench, enum event_command which)
{
    struct event event = make_event(EVENT_COMMAND, 0.0);
    event.integer[0] = which;
    send(bench, event);
}

static void bench_start(struct bench *bench, uint64_t seed)
{
    static struct core_settings settings;
    settings = make_settings();
    memset(bench, 0, sizeof *bench);
    core_init(&bench->core, &settings);
    plant_init(&bench->plant, seed, 0.1);
    bench->random.state = seed;
    bench->input = (struct plant_input){.slew_bar_per_s = 0.1, .output_on = true};
    bench->now_ns = NS_PER_S;
    bench->cadence_s = 5.0;
    bench->finished = -1;
    for (int kind = EVENT_MEMBRANE_FOUND; kind <= EVENT_DETECTOR_FOUND; kind++)
        if (kind == EVENT_MEMBRANE_FOUND || kind == EVENT_SPECTROMETER_FOUND || kind == EVENT_DETECTOR_FOUND)
            send(bench, make_event((enum event_kind)kind, 0.0));
}

static void lose(struct bench *bench, enum gone gone)
{
    static const enum event_kind lost[GONE_COUNT] = {
        0, EVENT_MEMBRANE_LOST, EVENT_SPECTROMETER_LOST, EVENT_DETECTOR_LOST, 0, EVENT_JOURNAL_FAILED};
    bench->gone = gone;
    if (lost[gone])
        send(bench, make_event(lost[gone], 0.0));
}

static void regain(struct bench *bench)
{
    enum gone gone = bench->gone;
    bench->gone = GONE_NOTHING;
    if (gone == GONE_MEMBRANE || gone == GONE_RUBY || gone == GONE_DETECTOR)
        send(bench, make_event(gone == GONE_MEMBRANE ? EVENT_MEMBRANE_FOUND
                               : gone == GONE_RUBY   ? EVENT_SPECTROMETER_FOUND
                                                     : EVENT_DETECTOR_FOUND,
                               0.0));
}

static void commit(struct bench *bench)
{
    if (bench->gone == GONE_JOURNAL || bench->posted == bench->durable)
        return;
    bench->durable = bench->posted;
    if (bench->pending) {
        bench->bar_min = bench->pending_bar_min;
        bench->bar_max = bench->pending_bar_max;
        bench->pending = 0;
    }
    struct event event = make_event(EVENT_DURABLE, 0.0);
    event.integer[0] = bench->durable;
    send(bench, event);
}

static void end_scan(struct bench *bench, enum event_kind kind)
{
    struct event event = make_event(kind, 0.0);
    event.integer[0] = bench->scan_number;
    event.integer[1] = bench->attempt;
    bench->scan_end_ns = 0;
    send(bench, event);
}

static void post_stand(struct bench *bench)
{
    const struct stand *stand = &bench->stand;
    struct event event = make_event(EVENT_ACCESS, 0.0);
    event.integer[0] = stand->optics == 0         ? ACCESS_OPTICS_OUT
                       : stand->optics == STAND_S ? ACCESS_OPTICS_IN
                                                  : ACCESS_OPTICS_MOVING;
    event.integer[1] = stand->laser ? ACCESS_LASER_OPEN : ACCESS_LASER_CLOSED;
    send(bench, event);
}

static void drive_stand(struct bench *bench)
{
    struct stand *stand = &bench->stand;
    if (!stand->is_there)
        return;
    int optics = stand->optics, laser = stand->laser;
    if (!stand->is_stuck)
        stand->optics += (optics < stand->optics_wanted) - (optics > stand->optics_wanted);
    stand->laser = stand->laser_wanted;
    assert_true(stand->optics == optics || !stand->laser); /* A1 */
    if (stand->optics != optics || stand->laser != laser)
        post_stand(bench);
}

/* Without light the fit would find something all the same: a pressure that must not be believed. */
static double read_ruby(struct bench *bench)
{
    const struct stand *stand = &bench->stand;
    bool is_lit = !stand->is_there || (stand->optics == STAND_S && stand->laser);
    return is_lit ? plant_pressure_gpa(&bench->plant) + 0.005 * random_normal(&bench->random) : 20.0;
}

static void second(struct bench *bench)
{
    bench->now_ns += NS_PER_S;
    double t_s = s_from_ns(bench->now_ns);
    plant_step(&bench->plant, 1.0, &bench->input);
    commit(bench);
    drive_stand(bench);
    if (t_s >= bench->beam_due_s) {
        bench->beam_due_s = t_s + 5.0;
        send(bench, make_event(EVENT_BEAM, bench->gone == GONE_BEAM ? NAN : 200.0));
    }
    if (t_s >= bench->ruby_due_s && bench->gone != GONE_RUBY) {
        bench->ruby_due_s = t_s + bench->cadence_s;
        struct event event = make_event(EVENT_RUBY, 0.0);
        event.value[0] = read_ruby(bench);
        event.value[1] = 0.005;
        event.integer[0] = bench->now_ns - NS_PER_S / 2;
        send(bench, event);
    }
    if (t_s >= bench->membrane_due_s && bench->gone != GONE_MEMBRANE) {
        bench->membrane_due_s = t_s + bench->cadence_s / 5.0;
        send(bench, make_event(EVENT_MEMBRANE, bench->plant.membrane_bar + 0.003 * random_normal(&bench->random)));
    }
    if (bench->scan_end_ns && bench->now_ns >= bench->scan_end_ns && bench->gone != GONE_DETECTOR)
        end_scan(bench, EVENT_SCAN_COMPLETE);
    send(bench, make_event(EVENT_TICK, 0.0));
}

static void run_s(struct bench *bench, int n_s)
{
    for (int s = 0; s < n_s && bench->finished < 0; s++)
        second(bench);
}

/* Until the phase (of that step, when given) or the end of patience; true when it was reached. */
static bool run_to(struct bench *bench, enum core_phase phase, int step_index, int n_s)
{
    for (int s = 0; s < n_s && bench->finished < 0; s++) {
        if (bench->core.phase == phase && (step_index < 0 || bench->core.step_index == step_index))
            return true;
        second(bench);
    }
    return bench->core.phase == phase;
}

/* ---- phases -------------------------------------------------------------------------------------------------- */

static void waiting_names_what_is_missing(void **state)
{
    (void)state;
    struct bench bench;
    bench_start(&bench, 1);
    assert_true(bench.reasons & HOLD_BEAM);
    lose(&bench, GONE_RUBY);
    run_s(&bench, 100);
    assert_int_equal(bench.core.phase, CORE_WAITING);
    assert_int_equal(bench.reasons, HOLD_RUBY_LINK);
    assert_int_equal(bench.posted, 0);
    regain(&bench);
    command(&bench, COMMAND_HOLD);
    run_s(&bench, 100);
    assert_int_equal(bench.core.phase, CORE_WAITING);
    command(&bench, COMMAND_RESUME);
    assert_int_not_equal(bench.core.phase, CORE_WAITING);
}

static void no_step_begins_before_its_intent_is_durable(void **state)
{
    (void)state;
    struct bench bench;
    bench_start(&bench, 1);
    assert_true(run_to(&bench, CORE_PRELOADED, 0, 100));
    bench.gone = GONE_JOURNAL; /* slow, without a word */
    assert_true(run_to(&bench, CORE_JOURNAL, 1, 200));
    run_s(&bench, 2);
    assert_int_equal(bench.reasons, 0);
    run_s(&bench, 2);
    assert_int_equal(bench.reasons, HOLD_JOURNAL); /* none within 2 s */
    run_s(&bench, 600);
    assert_int_equal(bench.core.phase, CORE_JOURNAL);
    assert_int_equal(bench.n_setpoints, 0);
    regain(&bench);
    run_s(&bench, 2);
    assert_int_equal(bench.core.phase, CORE_LOADING);
}

static void a_preload_takes_eight_readings(void **state)
{
    (void)state;
    struct bench bench;
    bench_start(&bench, 1);
    assert_true(run_to(&bench, CORE_PRELOADED, 0, 100));
    for (int i = 0; i < 7; i++)
        send(&bench, make_event(EVENT_RUBY_REJECTED, 0.0)); /* not counted */
    int64_t from_ns = bench.now_ns;
    assert_true(run_to(&bench, CORE_JOURNAL, 1, 200));
    assert_true(s_from_ns(bench.now_ns - from_ns) >= 7 * 3.0);
}

/* Readings of R1 every three seconds of which nothing but the calibration knows. */
static void read_r1(struct bench *bench, double r1_nm, int64_t ruler_number, int n)
{
    for (int i = 0; i < n; i++) {
        struct event event = make_event(EVENT_RUBY, 0.005 * random_normal(&bench->random));
        bench->now_ns += ns_from_s(3.0);
        event.integer[0] = bench->now_ns;
        event.integer[1] = ruler_number;
        event.value[1] = 0.0027; /* 0.001 nm on the settings' slope */
        event.value[2] = r1_nm + 0.001 * random_normal(&bench->random);
        event.value[3] = 0.0012;
        event.value[4] = 297; /* by a thermometer */
        event.value[5] = 1;
        send(bench, event);
        send(bench, make_event(EVENT_MEMBRANE, 0.0));
        commit(bench);
    }
}

static void start_calibration(struct bench *bench)
{
    bench_start(bench, 1);
    bench->core.settings.n_steps = 2;
    bench->core.settings.needs_detector = 0;
    bench->core.settings.calibration = (struct calibration_settings){
        .lambda0_nm = 694.25, .temperature_k_zero = 296, .correction = "datchi2007", .gpa_per_nm = 2.7};
    bench->core.settings.steps[0] = (struct plan_step){.kind = PLAN_CALIBRATE_RUBY, .n_readings = 20};
    bench->core.settings.steps[1] = (struct plan_step){.kind = PLAN_PRELOADED, .pressure_gpa_target = 0.1};
    assert_true(run_to(bench, CORE_CALIBRATION, 0, 200));
}

static void a_free_ruby_gives_the_ruler_and_hands_are_waited_for(void **state)
{
    (void)state;
    struct bench bench;
    start_calibration(&bench);
    read_r1(&bench, 694.26, 0, 19);
    assert_int_equal(bench.n_calibrations, 0);
    read_r1(&bench, 694.26, 0, 1);
    assert_int_equal(bench.n_calibrations, 1);
    assert_int_equal(bench.calibration.integer[1], CALIBRATION_GOOD);
    assert_true(fabs(bench.calibration.value[CALIBRATION_LAMBDA0_NM] - (694.26 - ruby_shift_nm(297, 296))) < 0.001);
    assert_true(bench.calibration.value[CALIBRATION_TEMPERATURE_K] == 297);
    assert_int_equal(bench.core.ruler_number, 1);
    read_r1(&bench, 694.3, 1, 30);
    assert_int_equal(bench.core.phase, CORE_PRELOADED); /* nobody has closed the cell */
    assert_int_equal(bench.reasons, HOLD_PRELOAD);
    command(&bench, COMMAND_RESUME);
    read_r1(&bench, 694.3, 0, 30); /* on the ruler of before: not believed */
    assert_int_equal(bench.core.phase, CORE_PRELOADED);
    assert_int_equal(bench.core.n_readings, 0);
    read_r1(&bench, 694.3, 1, 8);
    assert_int_equal(bench.finished, 0);
    assert_int_equal(bench.n_setpoints, 0);
}

static void a_ruby_that_is_not_free_is_held_for_and_read_anew(void **state)
{
    (void)state;
    struct bench bench;
    start_calibration(&bench);
    read_r1(&bench, 694.3, 0, 60);
    assert_int_equal(bench.n_calibrations, 1); /* judged once, not at every event */
    assert_int_equal(bench.calibration.integer[1], CALIBRATION_STRANGE);
    assert_int_equal(bench.core.phase, CORE_CALIBRATION);
    assert_int_equal(bench.reasons, HOLD_CALIBRATION);
    assert_int_equal(bench.core.ruler_number, 0);
    command(&bench, COMMAND_RESUME);
    assert_int_equal(bench.reasons, 0);
    read_r1(&bench, 694.25, 0, 20);
    assert_int_equal(bench.n_calibrations, 2);
    assert_int_equal(bench.calibration.integer[1], CALIBRATION_GOOD); /* none of the first readings is in it */
    start_calibration(&bench);
    read_r1(&bench, 694.3, 0, 20);
    command(&bench, COMMAND_STOP);
    assert_int_equal(bench.finished, 1);
    start_calibration(&bench);
    bench.core.settings.calibration.passport_lambda0_nm = 694.22; /* what is stated may be near both */
    read_r1(&bench, 694.26, 0, 60);
    assert_int_equal(bench.n_calibrations, 1);
    assert_int_equal(bench.calibration.integer[1], CALIBRATION_PASSPORT);
    assert_int_equal(bench.reasons, HOLD_CALIBRATION);
    assert_int_equal(bench.core.ruler_number, 0);
}

static void a_deflated_cell_is_waited_for_and_measured(void **state)
{
    (void)state;
    struct bench bench;
    bench_start(&bench, 1);
    bench.core.settings.n_steps = 3;
    bench.core.settings.needs_detector = 0;
    bench.core.settings.steps[1] = (struct plan_step){.kind = PLAN_DEFLATE, .pressure_gpa_target = 0.1};
    bench.core.settings.steps[2] = (struct plan_step){.kind = PLAN_ISOBAR, .duration_s = 1800.0, .drift_gpa_max = 0.12};
    bench.plant.membrane_bar = bench.input.membrane_bar_setpoint = 3.0;
    assert_true(run_to(&bench, CORE_DEFLATED, 1, 200));
    run_s(&bench, 600);
    assert_int_equal(bench.core.phase, CORE_DEFLATED); /* nobody has come yet */
    assert_int_equal(bench.reasons, HOLD_DEFLATE);
    char sentence[200];
    interlock_sentence(bench.reasons | HOLD_RUBY_LINK, sentence, sizeof sentence);
    assert_string_equal(sentence, "no link to the spectrometer; "
                                  "waiting for the membrane to be emptied and the cell locked");
    interlock_sentence(bench.reasons, sentence, 20); /* too short for a sentence: none, and no overrun */
    assert_string_equal(sentence, "");
    bench.input.membrane_bar_setpoint = 0.6;
    run_s(&bench, 600);
    assert_int_equal(bench.reasons, HOLD_DEFLATE); /* nearly empty is not empty */
    bench.input.membrane_bar_setpoint = 0.0;
    run_s(&bench, 9);
    assert_int_equal(bench.reasons, 0);
    lose(&bench, GONE_MEMBRANE); /* empty a moment ago is not known to be empty */
    run_s(&bench, 100);
    assert_int_equal(bench.core.phase, CORE_DEFLATED);
    assert_int_equal(bench.reasons, HOLD_DEFLATE | HOLD_MEMBRANE_LINK);
    assert_int_equal(bench.core.n_readings, 0);
    regain(&bench);
    second(&bench);
    int64_t from_ns = bench.now_ns;
    assert_true(run_to(&bench, CORE_ISOBAR, 2, 200));
    assert_true(s_from_ns(bench.now_ns - from_ns) >= 6 * 3.0);
    assert_true(fabs(bench.deflated_gpa - plant_pressure_gpa(&bench.plant)) < 0.03);
    run_s(&bench, 2400);
    assert_int_equal(bench.finished, 0);
    assert_int_equal(bench.n_setpoints, 0); /* measured, not driven */
}

static void a_night_goes_through_all_steps(void **state)
{
    (void)state;
    struct bench bench;
    bench_start(&bench, 2);
    run_s(&bench, 60000);
    assert_int_equal(bench.finished, 0);
    assert_int_equal(bench.n_starts, 2);
    assert_int_equal(bench.n_analyses, 2);
    assert_int_equal(bench.n_aborts, 0);
    int64_t posted = bench.posted;
    command(&bench, COMMAND_RESUME); /* nothing happens any more */
    second(&bench);
    assert_int_equal(bench.posted, posted);
}

/* ---- commands and losses in every phase ---------------------------------------------------------------------- */

static const struct {
    enum core_phase phase;
    int step_index;
    int after_s;
} moments[] = {{CORE_WAITING, 0, 0},    {CORE_PRELOADED, 0, 5},  {CORE_LOADING, 1, 3},  {CORE_LOADING, 1, 900},
               {CORE_LOADING, 1, 1500}, {CORE_LOADING, 1, 4000}, {CORE_ISOBAR, 2, 100}, {CORE_ISOBAR, 2, 1500},
               {CORE_LOADING, 3, 300},  {CORE_LOADING, 3, 2500}, {CORE_ISOBAR, 4, 100}};

#define N_MOMENTS (sizeof moments / sizeof moments[0])

static void bench_at(struct bench *bench, size_t moment, uint64_t seed)
{
    bench_start(bench, seed);
    assert_true(run_to(bench, moments[moment].phase, moments[moment].step_index, 60000));
    run_s(bench, moments[moment].after_s);
}

static void hold_and_resume_in_every_phase(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_MOMENTS; i++) {
        struct bench bench;
        bench_at(&bench, i, 3);
        command(&bench, COMMAND_HOLD);
        assert_true(bench.reasons & HOLD_OPERATOR);
        run_s(&bench, 1200); /* time for a retreat */
        double setpoint_bar = bench.input.membrane_bar_setpoint;
        int step_index = bench.core.step_index, n_starts = bench.n_starts;
        run_s(&bench, 3600);
        if (bench.core.step_index == step_index)
            assert_true(bench.input.membrane_bar_setpoint == setpoint_bar); /* a hold does not move */
        assert_int_equal(bench.n_starts, n_starts);
        assert_true(bench.finished < 0 || bench.core.step_index == 4); /* an isobar without scans needs nothing */
        command(&bench, COMMAND_RESUME);
        run_s(&bench, 60000);
        if (bench.finished != 0)
            fail_msg("held in %s of step %d and resumed: in %s of step %d, reasons %#x, after a day",
                     core_phase_name(moments[i].phase), moments[i].step_index, core_phase_name(bench.core.phase),
                     bench.core.step_index, (unsigned)bench.reasons);
        assert_int_equal(bench.n_analyses, 2);
    }
}

/* A run can always be ended by an operator, whatever is broken; half an hour is more than the longest retreat. Without
 * the membrane controller there is no retreat: whoever asks for the stop a second time means it. */
static void stop_in_every_phase_with_anything_gone(void **state)
{
    (void)state;
    int n_stuck = 0;
    for (size_t i = 0; i < N_MOMENTS; i++)
        for (int gone = 0; gone < GONE_COUNT; gone++) {
            struct bench bench;
            bench_at(&bench, i, 4);
            lose(&bench, (enum gone)gone);
            run_s(&bench, 30);
            command(&bench, COMMAND_STOP);
            run_s(&bench, 1800);
            if (bench.finished < 0 && gone == GONE_MEMBRANE)
                command(&bench, COMMAND_STOP);
            if (bench.finished < 0) {
                n_stuck++;
                print_message("stopped in %s of step %d, %d gone: still in %s (%s), reasons %#x\n",
                              core_phase_name(moments[i].phase), moments[i].step_index, gone,
                              core_phase_name(bench.core.phase), loading_state_name(bench.core.loading.state),
                              (unsigned)bench.reasons);
            } else {
                assert_int_equal(bench.finished, 1);
                assert_int_equal(bench.scan_end_ns, 0); /* no scan is left running */
            }
        }
    assert_int_equal(n_stuck, 0);
}

static void anything_may_go_away_in_every_phase(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_MOMENTS; i++)
        for (int gone = 1; gone < GONE_COUNT; gone++) {
            struct bench bench;
            bench_at(&bench, i, 5);
            lose(&bench, (enum gone)gone);
            run_s(&bench, 300);
            regain(&bench);
            if (gone == GONE_JOURNAL)
                command(&bench, COMMAND_RESUME); /* a person has made room on the disk */
            run_s(&bench, 60000);
            if (bench.finished != 0)
                fail_msg("%d gone in %s of step %d: in %s (%s) of step %d, reasons %#x, after a day", gone,
                         core_phase_name(moments[i].phase), moments[i].step_index, core_phase_name(bench.core.phase),
                         loading_state_name(bench.core.loading.state), bench.core.step_index, (unsigned)bench.reasons);
            assert_int_equal(bench.n_analyses, 2);
        }
}

/* ---- what a person has to look at ---------------------------------------------------------------------------- */

static void a_stall_ends_by_a_resume(void **state)
{
    (void)state;
    static const size_t ramps[] = {3, 8}; /* loading and unloading */
    for (size_t i = 0; i < 2; i++) {
        struct bench bench;
        bench_at(&bench, ramps[i], 6);
        bench.input.output_on = false; /* the valves are shut */
        for (int s = 0; s < 1000 && !(bench.reasons & HOLD_MEMBRANE_STALL); s++)
            second(&bench);
        assert_true(bench.reasons & HOLD_MEMBRANE_STALL);
        bench.input.output_on = true;
        run_s(&bench, 1800);
        command(&bench, COMMAND_RESUME);
        run_s(&bench, 10);
        if (bench.reasons & HOLD_MEMBRANE_STALL)
            fail_msg("%s: resumed with the valves open again, but stalled at once", i ? "unloading" : "loading");
        run_s(&bench, 60000);
        assert_int_equal(bench.finished, 0);
    }
}

/* In mid-ramp: no set point is sent while the controller is in other hands, and after a resume the night goes on. */
static void a_change_at_the_controller_stops_every_set_point(void **state)
{
    (void)state;
    static const size_t ramps[] = {3, 8}; /* loading and unloading */
    for (size_t i = 0; i < 2; i++) {
        struct bench bench;
        bench_at(&bench, ramps[i], 9);
        struct event event = make_event(EVENT_MEMBRANE, bench.plant.membrane_bar);
        event.integer[0] = MEMBRANE_SETPOINT_CHANGED;
        bench.input.membrane_bar_setpoint = bench.plant.membrane_bar; /* somebody has stopped it */
        send(&bench, event);
        assert_int_equal(bench.reasons, HOLD_MEMBRANE_FOREIGN);
        int n_setpoints = bench.n_setpoints;
        run_s(&bench, 900);
        assert_int_equal(bench.reasons, HOLD_MEMBRANE_FOREIGN);
        assert_int_equal(bench.n_setpoints, n_setpoints);
        command(&bench, COMMAND_RESUME);
        run_s(&bench, 60);
        assert_int_equal(bench.reasons, 0);
        assert_true(bench.n_setpoints > n_setpoints);
        run_s(&bench, 60000);
        assert_int_equal(bench.finished, 0);
        bench_at(&bench, ramps[i], 9);
        send(&bench, event);
        command(&bench, COMMAND_STOP); /* ends without a retreat: hands off */
        second(&bench);
        assert_int_equal(bench.finished, 1);
    }
}

/* The valves are told to shut, once; nothing else is sent until a person resumes. */
static void a_burst_shuts_the_valves(void **state)
{
    (void)state;
    static const size_t driven[] = {3, 5, 8};
    for (size_t i = 0; i < sizeof driven / sizeof driven[0]; i++) {
        struct bench bench;
        bench_at(&bench, driven[i], 10);
        for (int s = 0; s < 1200 && bench.plant.membrane_bar < 8.0; s++)
            second(&bench);
        bench.plant.membrane_bar -= 5.0;
        bench.input.output_on = false;
        for (int s = 0; s < 30 && !(bench.reasons & HOLD_MEMBRANE_BURST); s++)
            second(&bench);
        assert_true(bench.reasons & HOLD_MEMBRANE_BURST);
        assert_int_equal(bench.n_shuts, 1);
        int n_setpoints = bench.n_setpoints;
        run_s(&bench, 600);
        assert_int_equal(bench.n_shuts, 1);
        assert_int_equal(bench.n_setpoints, n_setpoints);
        bench.input.output_on = true;
        bench.input.membrane_bar_setpoint = bench.plant.membrane_bar;
        command(&bench, COMMAND_RESUME);
        second(&bench);
        assert_false(bench.reasons & HOLD_MEMBRANE_BURST);
    }
}

static void scans_that_fail_wait_for_a_person(void **state)
{
    (void)state;
    struct bench bench;
    bench_start(&bench, 7);
    assert_true(run_to(&bench, CORE_ISOBAR, 2, 60000));
    for (int s = 0; s < 1000 && !(bench.reasons & HOLD_SCAN); s++) {
        second(&bench);
        if (bench.scan_end_ns)
            end_scan(&bench, EVENT_SCAN_FAILED);
    }
    assert_int_equal(bench.reasons, HOLD_SCAN);
    assert_false(bench.goes_on);
    assert_int_equal(bench.n_starts, SCAN_ATTEMPTS_MAX);
    run_s(&bench, 7200);
    assert_int_equal(bench.core.phase, CORE_ISOBAR);
    command(&bench, COMMAND_RESUME);
    run_s(&bench, 60000);
    assert_int_equal(bench.finished, 0);
    assert_int_equal(bench.n_analyses, 2);
}

static void a_cut_scan_is_repeated_and_late_words_are_ignored(void **state)
{
    (void)state;
    struct bench bench;
    bench_start(&bench, 8);
    assert_true(run_to(&bench, CORE_ISOBAR, 2, 60000));
    run_s(&bench, 100);
    lose(&bench, GONE_BEAM);
    run_s(&bench, 20);
    assert_int_equal(bench.n_aborts, 1);
    struct event late = make_event(EVENT_SCAN_COMPLETE, 0.0); /* it was just ending */
    late.integer[0] = bench.scan_number;
    late.integer[1] = bench.attempt;
    send(&bench, late);
    regain(&bench);
    run_s(&bench, 60);
    assert_int_equal(bench.n_analyses, 0);
    assert_int_equal(bench.attempt, 2);
    send(&bench, late);
    assert_int_equal(bench.n_analyses, 0);
    run_s(&bench, 60000);
    assert_int_equal(bench.finished, 0);
    assert_int_equal(bench.n_analyses, 2);
}

/* ---- access to the ruby -------------------------------------------------------------------------------------- */

static void bench_start_between_scans(struct bench *bench, uint64_t seed)
{
    bench_start(bench, seed);
    bench->stand.is_there = true;
    bench->core.settings.access.is_between_scans = 1;
    bench->core.settings.access.settle_s = 5.0;
    access_init(&bench->core.access, &bench->core.settings.access);
    send(bench, make_event(EVENT_ACCESS_FOUND, 0.0));
    post_stand(bench);
}

static bool run_to_scan(struct bench *bench, int n_starts, int n_s)
{
    for (int s = 0; s < n_s && bench->n_starts < n_starts; s++)
        second(bench);
    return bench->n_starts == n_starts;
}

static void a_night_between_scans_reads_in_the_gaps_alone(void **state)
{
    (void)state;
    struct bench bench;
    bench_start_between_scans(&bench, 2);
    bench.core.settings.steps[2].duration_s = 1000.0; /* over before the second scan is */
    assert_true(run_to(&bench, CORE_ISOBAR, 2, 60000));
    assert_true(access_is_readable(&bench.core.access));
    int64_t from_ns = bench.now_ns;
    assert_true(run_to_scan(&bench, 1, 300));
    assert_true(s_from_ns(bench.now_ns - from_ns) >= 9 * 3.0); /* ten readings first, at the cadence of a load */
    assert_in_range(bench.core.isobar.n_readings, 10, 13);
    int n_readings = bench.core.isobar.n_readings;
    run_s(&bench, 400);
    assert_int_equal(bench.core.isobar.n_readings, n_readings); /* and none while it runs */
    assert_int_equal(bench.reasons, 0);                         /* which is no reason to hold */
    assert_true(run_to_scan(&bench, 2, 600));
    assert_in_range(bench.core.isobar.n_readings, n_readings + 10, n_readings + 13);
    n_readings = bench.core.isobar.n_readings;
    assert_true(run_to(&bench, CORE_JOURNAL, 3, 3600));
    assert_true(bench.core.isobar.n_readings >= n_readings + 10); /* the end's pressure is one of after the last scan */
    assert_true(fabs(bench.core.isobar.drift.pressure_gpa_departure) < 0.2);
    assert_int_equal(bench.n_aborts, 0);
    run_s(&bench, 60000);
    assert_int_equal(bench.finished, 0);
    second(&bench);
    assert_false(bench.stand.laser); /* nobody looks after it any more */
}

static void always_means_that_no_stand_is_told_anything(void **state)
{
    (void)state;
    struct bench bench;
    bench_start(&bench, 2);
    run_s(&bench, 60000); /* move_stand would fail */
    assert_int_equal(bench.finished, 0);
}

static void a_ruby_that_cannot_be_read_does_not_keep_the_scans_waiting(void **state)
{
    (void)state;
    struct bench bench;
    bench_start_between_scans(&bench, 2);
    assert_true(run_to(&bench, CORE_ISOBAR, 2, 60000));
    bench.gone = GONE_RUBY; /* without a word */
    run_s(&bench, 300);
    assert_int_equal(bench.n_starts, 0);
    assert_true((bench.reasons & HOLD_RUBY_STALE) && bench.goes_on);
    assert_true(run_to_scan(&bench, 1, 500));
    run_s(&bench, 10);
    assert_int_equal(bench.reasons, 0);
    bench.gone = GONE_NOTHING;
    run_s(&bench, 60000);
    assert_int_equal(bench.finished, 0);
    assert_int_equal(bench.n_analyses, 2);
}

static void stuck_optics_hold_until_they_are_free(void **state)
{
    (void)state;
    struct bench bench;
    bench_start_between_scans(&bench, 2);
    assert_true(run_to(&bench, CORE_ISOBAR, 2, 60000));
    bench.stand.is_stuck = true; /* in */
    run_s(&bench, 300);
    assert_int_equal(bench.n_starts, 0);
    assert_int_equal(bench.reasons, HOLD_RUBY_ACCESS);
    assert_false(bench.goes_on);
    char sentence[300];
    interlock_sentence(bench.reasons, sentence, sizeof sentence);
    assert_non_null(strstr(sentence, "did not reach the position asked for; "));
    bench.stand.is_stuck = false;
    assert_true(run_to_scan(&bench, 1, 60));
    assert_int_equal(bench.reasons, 0);
    bench.stand.is_stuck = true; /* out */
    run_s(&bench, 1200);
    assert_int_equal(bench.n_starts, 1);
    assert_int_equal(bench.n_analyses, 1);
    assert_int_equal(bench.reasons, HOLD_RUBY_ACCESS);
    bench.stand.is_stuck = false;
    run_s(&bench, 60000);
    assert_int_equal(bench.finished, 0);
    assert_int_equal(bench.n_analyses, 2);
}

static void nudge_stand(struct bench *bench, int optics)
{
    bench->stand.optics = bench->stand.optics_wanted = optics;
    post_stand(bench);
}

/* A stranger moves the stage, or the link is lost, in a scan and in a ramp. */
static void optics_that_leave_their_place_cut_the_scan_and_stop_the_ramp(void **state)
{
    (void)state;
    for (int is_link = 0; is_link < 2; is_link++) {
        struct bench bench;
        bench_start_between_scans(&bench, 2);
        assert_true(run_to(&bench, CORE_LOADING, 1, 1000));
        run_s(&bench, 900);
        if (is_link)
            send(&bench, make_event(EVENT_ACCESS_LOST, 0.0));
        else
            nudge_stand(&bench, STAND_S - 1);
        run_s(&bench, 2);
        assert_int_equal(bench.reasons & HOLD_RUBY_ACCESS, HOLD_RUBY_ACCESS);
        assert_true(bench.core.loading.state == LOADING_RETREAT || bench.core.loading.state == LOADING_HELD);
        if (is_link) {
            send(&bench, make_event(EVENT_ACCESS_FOUND, 0.0));
            post_stand(&bench);
        }
        assert_true(run_to(&bench, CORE_ISOBAR, 2, 60000) && run_to_scan(&bench, 1, 300));
        run_s(&bench, 100);
        assert_int_equal(bench.reasons, 0);
        if (is_link)
            send(&bench, make_event(EVENT_ACCESS_LOST, 0.0));
        else
            nudge_stand(&bench, 1);
        run_s(&bench, 2);
        assert_int_equal(bench.n_aborts, 1);
        assert_int_equal(bench.reasons & HOLD_RUBY_ACCESS, HOLD_RUBY_ACCESS);
        if (is_link) {
            send(&bench, make_event(EVENT_ACCESS_FOUND, 0.0));
            post_stand(&bench);
        }
        run_s(&bench, 60000);
        assert_int_equal(bench.finished, 0);
        assert_int_equal(bench.n_analyses, 2);
    }
}

/* Strangers, a stuck stage, a lost link, a lost beam, an operator: at any moment, in any order, for the first hours. */
static void a_night_between_scans_survives_anything(void **state)
{
    (void)state;
    for (uint64_t seed = 20; seed < 30; seed++) {
        struct bench bench;
        struct random random = {.state = seed};
        bool is_cut = false;
        bench_start_between_scans(&bench, seed);
        for (int s = 0; s < 15000 && bench.finished < 0; s++) {
            if (random_uniform(&random) < 0.004)
                bench.stand.is_stuck = !bench.stand.is_stuck;
            if (random_uniform(&random) < (is_cut ? 0.05 : 0.001)) {
                is_cut = !is_cut;
                send(&bench, make_event(is_cut ? EVENT_ACCESS_LOST : EVENT_ACCESS_FOUND, 0.0));
                if (!is_cut)
                    post_stand(&bench);
            }
            if (random_uniform(&random) < 0.0005 && !is_cut && !bench.stand.laser)
                nudge_stand(&bench, (int)(random_uniform(&random) * (STAND_S + 1)));
            if (random_uniform(&random) < (bench.gone ? 0.02 : 0.001))
                bench.gone ? regain(&bench) : lose(&bench, GONE_BEAM);
            if (random_uniform(&random) < 0.001)
                command(&bench, random_uniform(&random) < 0.3 ? COMMAND_HOLD : COMMAND_RESUME);
            second(&bench);
        }
        bench.stand.is_stuck = false;
        if (is_cut)
            send(&bench, make_event(EVENT_ACCESS_FOUND, 0.0));
        post_stand(&bench);
        regain(&bench);
        command(&bench, COMMAND_RESUME);
        run_s(&bench, 60000);
        if (bench.finished != 0)
            fail_msg("seed %d: in %s of step %d, access %s, reasons %#x", (int)seed, core_phase_name(bench.core.phase),
                     bench.core.step_index, access_state_name(bench.core.access.state), (unsigned)bench.reasons);
        assert_int_equal(bench.n_analyses, 2);
        print_message("seed %d: %d moves, %d scans begun, %d cut\n", (int)seed, bench.stand.n_moves, bench.n_starts,
                      bench.n_aborts);
    }
}

/* While the beam is away the ruby is read; when it is back the optics leave before the scan is repeated. */
static void a_lost_beam_calls_the_ruby_back(void **state)
{
    (void)state;
    struct bench bench;
    bench_start_between_scans(&bench, 2);
    assert_true(run_to(&bench, CORE_ISOBAR, 2, 60000) && run_to_scan(&bench, 1, 300));
    run_s(&bench, 100);
    lose(&bench, GONE_BEAM);
    run_s(&bench, 600);
    assert_int_equal(bench.n_aborts, 1);
    assert_int_equal(bench.reasons, HOLD_BEAM);
    assert_true(access_is_readable(&bench.core.access) && bench.core.isobar.n_gap_readings >= 10);
    regain(&bench);
    run_s(&bench, 60000);
    assert_int_equal(bench.finished, 0);
    assert_int_equal(bench.n_analyses, 2);
}

static void a_stop_shuts_the_laser_off(void **state)
{
    (void)state;
    struct bench bench;
    bench_start_between_scans(&bench, 2);
    assert_true(run_to(&bench, CORE_PRELOADED, 0, 100));
    run_s(&bench, 5);
    assert_true(bench.stand.laser);
    command(&bench, COMMAND_STOP);
    assert_int_equal(bench.finished, 1);
    second(&bench);
    assert_false(bench.stand.laser);
}

static void without_the_stand_nothing_begins(void **state)
{
    (void)state;
    struct bench bench;
    bench_start_between_scans(&bench, 2);
    bench.stand.is_stuck = true;
    run_s(&bench, 200);
    assert_int_equal(bench.core.phase, CORE_WAITING);
    assert_int_equal(bench.reasons, HOLD_RUBY_ACCESS | HOLD_RUBY_STALE);
    bench.stand.is_stuck = false;
    assert_true(run_to(&bench, CORE_PRELOADED, 0, 100));
}

/* ---- replay -------------------------------------------------------------------------------------------------- */

static void a_recorded_night_replays_to_the_byte(void **state)
{
    (void)state;
    static struct core_settings settings;
    struct record record = {.events = malloc(RECORD_MAX * sizeof(struct event)),
                            .actions = malloc(RECORD_MAX * sizeof(struct action)),
                            .n_actions_of = malloc(RECORD_MAX * sizeof(int))};
    assert_true(record.events && record.actions && record.n_actions_of);
    static struct core fresh, middle;
    for (uint64_t seed = 10; seed < 12; seed++) {
        struct bench bench;
        struct core_actions actions;
        record.n_events = record.n_actions = 0;
        bench_start(&bench, seed);
        bench_start(&bench, seed); /* the record begins with a fresh core */
        settings = make_settings();
        core_init(&bench.core, &settings);
        bench.record = &record;
        for (int kind = EVENT_MEMBRANE_FOUND; kind <= EVENT_DETECTOR_FOUND; kind++)
            if (kind != EVENT_SPECTROMETER_LOST && kind != EVENT_DETECTOR_LOST && kind != EVENT_RUBY &&
                kind != EVENT_RUBY_REJECTED)
                send(&bench, make_event((enum event_kind)kind, 0.0));
        for (int s = 0; s < 60000 && bench.finished < 0; s++) {
            if (s == 1200 || s == 4000)
                lose(&bench, s == 1200 ? GONE_RUBY : GONE_BEAM);
            if (s == 1500 || s == 4100)
                regain(&bench);
            second(&bench);
        }
        assert_int_equal(bench.finished, 0);
        core_init(&fresh, &settings);
        const struct action *expected = record.actions;
        for (int i = 0; i < record.n_events; i++) {
            core_step(&fresh, &record.events[i], &actions);
            assert_int_equal(actions.n, record.n_actions_of[i]);
            assert_memory_equal(actions.list, expected, (size_t)actions.n * sizeof actions.list[0]);
            expected += actions.n;
            if (i == record.n_events / 2)
                middle = fresh; /* a core can be copied, and its copy goes on alike */
        }
        expected = record.actions;
        for (int i = 0; i < record.n_events; i++) {
            if (i > record.n_events / 2) {
                core_step(&middle, &record.events[i], &actions);
                assert_int_equal(actions.n, record.n_actions_of[i]);
                assert_memory_equal(actions.list, expected, (size_t)actions.n * sizeof actions.list[0]);
            }
            expected += record.n_actions_of[i];
        }
        print_message("seed %llu: %d events, %d actions, all the same\n", (unsigned long long)seed, record.n_events,
                      record.n_actions);
    }
    free(record.events);
    free(record.actions);
    free(record.n_actions_of);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(waiting_names_what_is_missing),
        cmocka_unit_test(no_step_begins_before_its_intent_is_durable),
        cmocka_unit_test(a_preload_takes_eight_readings),
        cmocka_unit_test(a_free_ruby_gives_the_ruler_and_hands_are_waited_for),
        cmocka_unit_test(a_ruby_that_is_not_free_is_held_for_and_read_anew),
        cmocka_unit_test(a_deflated_cell_is_waited_for_and_measured),
        cmocka_unit_test(a_night_goes_through_all_steps),
        cmocka_unit_test(hold_and_resume_in_every_phase),
        cmocka_unit_test(stop_in_every_phase_with_anything_gone),
        cmocka_unit_test(anything_may_go_away_in_every_phase),
        cmocka_unit_test(a_stall_ends_by_a_resume),
        cmocka_unit_test(a_change_at_the_controller_stops_every_set_point),
        cmocka_unit_test(a_burst_shuts_the_valves),
        cmocka_unit_test(scans_that_fail_wait_for_a_person),
        cmocka_unit_test(a_cut_scan_is_repeated_and_late_words_are_ignored),
        cmocka_unit_test(a_night_between_scans_reads_in_the_gaps_alone),
        cmocka_unit_test(always_means_that_no_stand_is_told_anything),
        cmocka_unit_test(a_ruby_that_cannot_be_read_does_not_keep_the_scans_waiting),
        cmocka_unit_test(stuck_optics_hold_until_they_are_free),
        cmocka_unit_test(optics_that_leave_their_place_cut_the_scan_and_stop_the_ramp),
        cmocka_unit_test(a_night_between_scans_survives_anything),
        cmocka_unit_test(a_lost_beam_calls_the_ruby_back),
        cmocka_unit_test(a_stop_shuts_the_laser_off),
        cmocka_unit_test(without_the_stand_nothing_begins),
        cmocka_unit_test(a_recorded_night_replays_to_the_byte),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
