/*
 * Goal: what a night teaches of its cell is written down truly: branches become the cell's own numbers, the database
 * and the passport's file give them back, a night with a deflated cell replays to the byte, and a passport that is not
 * one is refused in a sentence. Method: branches computed from a known law; the shipping core on the plant, recorded as
 * the daemon records it; files written to a directory of this test alone.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "controller/cell.h"
#include "controller/core.h"
#include "controller/replay.h"
#include "db/store.h"
#include "sim/plant.h"

static char directory[] = "/tmp/isobar-cell-XXXXXX";
static char db_path[64], lua_path[64];
static struct err err;

static int make_directory(void **state)
{
    (void)state;
    if (!mkdtemp(directory))
        return -1;
    snprintf(db_path, sizeof db_path, "%s/night.db", directory);
    snprintf(lua_path, sizeof lua_path, "%s/cell.lua", directory);
    return 0;
}

static int remove_directory(void **state)
{
    (void)state;
    static const char *const suffixes[] = {"night.db", "night.db-wal", "night.db-shm", "night.db.lock", "cell.lua"};
    for (size_t i = 0; i < sizeof suffixes / sizeof suffixes[0]; i++) {
        char path[100];
        snprintf(path, sizeof path, "%s/%s", directory, suffixes[i]);
        unlink(path);
    }
    return rmdir(directory);
}

/* ---- estimates ----------------------------------------------------------------------------------------------- */

/* The edges that the plant's law has at this pressure, as a change in this direction sees them. */
static struct cell_branch branch_of(int32_t direction, double pressure_gpa)
{
    double half_width_bar = 4.0 + 1.2 * pressure_gpa, middle_bar = 10.0 + pressure_gpa / 0.1;
    return (struct cell_branch){.direction = direction,
                                .pressure_gpa = pressure_gpa,
                                .membrane_bar_near_edge = middle_bar + direction * half_width_bar,
                                .membrane_bar_far_edge = middle_bar - direction * half_width_bar,
                                .membrane_bar_centre = middle_bar,
                                .compliance_bar_s_per_gpa = 9000.0,
                                .compliance_bar_s_per_gpa_max = 10000.0,
                                .edge_bar_per_gpa = 10.0 + 1.2 * direction,
                                .half_width_bar = half_width_bar};
}

static void expect_near(double value, double expected, double tolerance)
{
    if (!(fabs(value - expected) <= tolerance))
        fail_msg("%.6g, expected %.6g +- %.2g", value, expected, tolerance);
}

static void branches_give_the_law_back(void **state)
{
    (void)state;
    struct cell_branch branches[] = {branch_of(1, 1.5), branch_of(1, 3.3), branch_of(-1, 2.0), {.pressure_gpa = 2.0}};
    struct cell_estimate estimate;
    branches[3].membrane_bar_near_edge = branches[3].half_width_bar =
        1000.0; /* the locked cell says nothing of edges */
    cell_estimate_branches(branches, 4, &estimate);
    expect_near(estimate.takeup_bar, 10.0, 0.05); /* the priors pull a little */
    expect_near(estimate.gpa_per_bar, 0.1, 0.001);
    expect_near(estimate.creep_s, 900.0, 5.0);
    expect_near(estimate.creep_s_max, 1000.0, 5.0);
    expect_near(estimate.half_width_bar, 4.0, 0.05);
    expect_near(estimate.half_width_bar_per_gpa, 1.2, 0.05);
}

static void what_no_branch_tells_is_not_known(void **state)
{
    (void)state;
    struct cell_branch branch = branch_of(1, 1.5);
    struct cell_estimate estimate;
    cell_estimate_branches(&branch, 0, &estimate);
    assert_true(isnan(estimate.takeup_bar) && isnan(estimate.gpa_per_bar) && isnan(estimate.creep_s));
    assert_true(isnan(estimate.half_width_bar) && isnan(estimate.half_width_bar_per_gpa));
    cell_estimate_branches(&branch, 1, &estimate); /* one pressure: the slope is that of its edge */
    expect_near(estimate.gpa_per_bar, 0.1, 0.01);
    expect_near(estimate.takeup_bar + 1.5 / estimate.gpa_per_bar, 25.0, 0.1);
    branch.compliance_bar_s_per_gpa = NAN;
    cell_estimate_branches(&branch, 1, &estimate);
    assert_true(isnan(estimate.creep_s) && !isnan(estimate.creep_s_max));
    branch.edge_bar_per_gpa = NAN; /* and without that slope nothing tells GPa per bar */
    cell_estimate_branches(&branch, 1, &estimate);
    assert_true(isnan(estimate.takeup_bar) && isnan(estimate.gpa_per_bar));
}

/* ---- a night in the database --------------------------------------------------------------------------------- */

static const char SEQUENCE[] =
    "cell { name = 'the \"blue\" one', culet_um = 600, gasket = 'rhenium', medium = 'argon', pressure_gpa_max = 8,\n"
    "       membrane_bar_max = 130 }\n"
    "preloaded { at = '0.1 GPa' }\n"
    "load { to = '1.5 GPa' } isobar { duration = '10 min' }\n"
    "load { to = '3.3 GPa' } isobar { duration = '10 min' }\n"
    "unload { to = '1.5 GPa' } isobar { duration = '10 min' }\n"
    "deflate {}\n"
    "isobar { duration = '10 min' }\n";

struct night {
    struct store *store;
    struct core core;
    struct plant plant;
    struct plant_input input;
    struct random random;
    int64_t now_ns, seq, posted, durable;
    double cadence_s;
    bool is_finished;
    int n_branches;
    struct action branches[8];
};

static void put(struct night *night, enum store_table table, const struct store_value *row, int n)
{
    while (store_put(night->store, table, row, n, 0, &err) == ERR_FULL) /* this night is faster than the disk */
        usleep(5000);
    assert_int_equal(store_failure(night->store, &err), 0);
}

static void put_branch(struct night *night, const struct action *action, int direction)
{
    struct store_value row[11] = {store_integer(action->integer[0]), store_integer(night->now_ns),
                                  store_integer(direction)};
    for (int i = 0; i < 8; i++)
        row[3 + i] = direction || i == 0 ? store_real(action->value[PHASE_PRESSURE_GPA + i]) : store_null();
    put(night, STORE_CELL_BRANCH, row, 11);
    assert_true(night->n_branches < 8);
    night->branches[night->n_branches++] = *action;
}

static void execute(struct night *night, const struct action *action)
{
    enum plan_kind kind = night->core.settings.steps[action->kind == ACTION_PHASE ? action->integer[0] : 0].kind;
    if (action->kind == ACTION_JOURNAL)
        night->posted = action->integer[0];
    if (action->kind == ACTION_SETPOINT)
        night->input.membrane_bar_setpoint = action->value[0];
    if (action->kind == ACTION_SLEW)
        night->input.slew_bar_per_s = action->value[0] / 60.0;
    if (action->kind == ACTION_CADENCE)
        night->cadence_s = action->value[0];
    if (action->kind == ACTION_FINISHED)
        night->is_finished = true;
    bool is_done = action->kind == ACTION_PHASE && action->integer[1] == CORE_LOADING &&
                   action->value[PHASE_STATE] == LOADING_DONE;
    bool is_measured =
        action->kind == ACTION_PHASE && action->integer[1] == CORE_DEFLATED && action->value[PHASE_STATE] == 1.0;
    if (is_done || is_measured)
        put_branch(night, action, is_measured ? 0 : kind == PLAN_LOAD ? 1 : -1);
}

static void send(struct night *night, int32_t kind, int64_t integer, double a, double b)
{
    struct event event;
    struct core_actions actions;
    memset(&event, 0, sizeof event);
    event.kind = kind;
    event.integer[0] = integer;
    event.value[0] = a;
    event.value[1] = b;
    event.seq = ++night->seq;
    event.now_ns = event.t_ns = night->now_ns;
    const struct store_value row[] = {store_integer(event.seq),
                                      store_integer(event.seq),
                                      store_integer(event.t_ns),
                                      store_text(event_kind_name(kind)),
                                      store_real(a),
                                      store_null(),
                                      store_blob(&event, sizeof event)};
    put(night, STORE_EVENT, row, 7);
    core_step(&night->core, &event, &actions);
    for (int i = 0; i < actions.n; i++) {
        const struct action *action = &actions.list[i];
        const struct store_value decision[] = {
            store_integer(event.seq),     store_integer(i), store_text(action_kind_name(action->kind)),
            store_real(action->value[0]), store_null(),     store_blob(action, sizeof *action)};
        put(night, STORE_DECISION, decision, 6);
        execute(night, action);
    }
}

static void put_run(struct night *night, const struct plan *plan, const struct core_settings *settings)
{
    const struct store_value row[] = {store_integer(1),
                                      store_text("20261122T120000_cafe"),
                                      store_text("night.lua"),
                                      store_integer(night->now_ns),
                                      store_integer(0),
                                      store_text("/dev/shm/page"),
                                      store_text("0123456789abcdef"),
                                      store_text(plan->source),
                                      store_text(""),
                                      store_text(plan->cell.name),
                                      store_blob(settings, sizeof *settings),
                                      store_text("test")};
    put(night, STORE_RUN, row, 12);
    for (int i = 0; i < plan->n_steps; i++) {
        const struct plan_step *step = &plan->steps[i];
        const struct store_value step_row[] = {store_integer(i),
                                               store_text(plan_kind_name(step->kind)),
                                               store_real(step->pressure_gpa_target),
                                               store_real(step->rate_bar_per_min),
                                               store_real(step->duration_s),
                                               store_integer(step->n_scans),
                                               store_integer(step->n_frames),
                                               store_real(step->frame_time_s),
                                               store_real(step->drift_gpa_max)};
        put(night, STORE_STEP, step_row, 9);
    }
}

static void second(struct night *night)
{
    night->now_ns += NS_PER_S;
    int64_t t_s = night->now_ns / NS_PER_S;
    plant_step(&night->plant, 0.5, &night->input);
    plant_step(&night->plant, 0.5, &night->input);
    if (night->posted > night->durable)
        send(night, EVENT_DURABLE, night->durable = night->posted, 0.0, 0.0);
    if (t_s % (int64_t)night->cadence_s == 0)
        send(night, EVENT_RUBY, 0, plant_pressure_gpa(&night->plant) + 0.005 * random_normal(&night->random), 0.005);
    send(night, EVENT_MEMBRANE, 0, plant_membrane_bar(&night->plant), night->input.membrane_bar_setpoint);
    if (night->core.reasons_shown & HOLD_DEFLATE)
        night->input.membrane_bar_setpoint = 0.0; /* a hand, when it is asked for */
}

static void play(struct night *night)
{
    static struct plan plan;
    static struct core_settings settings;
    static const struct beamline beamline = {.membrane = {.membrane_bar_max = 150.0, .slew_bar_per_min_max = 8.0}};
    assert_int_equal(plan_read(&plan, SEQUENCE, "night", &err), 0);
    core_settings_init(&settings, &plan, &beamline);
    *night = (struct night){.input = {.slew_bar_per_s = 0.1, .output_on = true},
                            .random = {.state = 11},
                            .now_ns = NS_PER_S,
                            .cadence_s = 5.0};
    assert_int_equal(store_create(&night->store, db_path, &err), 0);
    plant_init(&night->plant, 11, 0.1);
    core_init(&night->core, &settings);
    put_run(night, &plan, &settings);
    send(night, EVENT_MEMBRANE_FOUND, 0, 0.0, 0.0);
    send(night, EVENT_SPECTROMETER_FOUND, 0, 0.0, 0.0);
    for (int s = 0; s < 100000 && !night->is_finished; s++)
        second(night);
    assert_true(night->is_finished);
    store_close(night->store);
}

static void a_night_teaches_its_cell(void **state)
{
    (void)state;
    static struct night night;
    static struct cell_passport passport;
    struct replay_report report;
    play(&night);
    assert_int_equal(night.n_branches, 4);
    if (replay_run(db_path, &report, &err))
        fail_msg("%s", err.message);
    assert_int_equal(report.n_events, night.seq);

    if (cell_read_db(&passport, db_path, &err))
        fail_msg("%s", err.message);
    cell_print(&passport, stdout);
    const struct plant_law *law = &night.plant.law;
    printf("truth: take-up %.1f bar; %.4f GPa per bar; creep time %.1f min; half width %.1f bar and %.2f bar per GPa\n",
           law->takeup_bar, law->gpa_per_bar, law->creep_s / 60.0, law->dead_zone_bar,
           law->dead_zone_per_bar / law->gpa_per_bar);
    assert_string_equal(passport.cell.gasket, "rhenium");
    assert_string_equal(passport.clock, "simulated");
    assert_true(passport.cell.hydrostatic_gpa_max == 9.0);
    static const int directions[] = {1, 1, -1, 0};
    static const int steps[] = {1, 3, 5, 7};
    assert_int_equal(passport.n_branches, 4);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(passport.branches[i].direction, directions[i]);
        assert_int_equal(passport.branches[i].step_index, steps[i]);
        assert_true(passport.branches[i].pressure_gpa == night.branches[i].value[PHASE_PRESSURE_GPA]);
    }
    assert_true(isnan(passport.branches[3].half_width_bar));
    expect_near(passport.estimate.takeup_bar, law->takeup_bar, 1.5); /* soft edges, slips, one early drop */
    expect_near(passport.estimate.gpa_per_bar, law->gpa_per_bar, 0.05 * law->gpa_per_bar);
    expect_near(passport.estimate.creep_s, law->creep_s, 0.10 * law->creep_s);
    for (int i = 0; i < 3; i++) /* slips of 0.01 GPa and the temperature are in it */
        expect_near(passport.branches[i].pressure_gpa, i == 1 ? 3.3 : 1.5, 0.1);
}

/* ---- the passport's file ------------------------------------------------------------------------------------- */

static bool same(double a, double b) { return a == b || (isnan(a) && isnan(b)); }

static void a_passport_reads_back_as_it_was(void **state)
{
    (void)state;
    static struct cell_passport written, read;
    assert_int_equal(cell_read_db(&written, db_path, &err), 0);
    if (cell_write_file(&written, lua_path, &err) || cell_read_file(&read, lua_path, &err))
        fail_msg("%s", err.message);
    assert_memory_equal(&read.cell, &written.cell, sizeof read.cell);
    assert_string_equal(read.run, written.run);
    assert_string_equal(read.measured, written.measured);
    assert_string_equal(read.clock, written.clock);
    assert_int_equal(read.n_branches, written.n_branches);
    const double *a = &read.estimate.takeup_bar, *b = &written.estimate.takeup_bar;
    for (size_t i = 0; i < sizeof read.estimate / sizeof *a; i++)
        assert_true(same(a[i], b[i]));
    for (int k = 0; k < read.n_branches; k++) {
        a = &read.branches[k].pressure_gpa;
        b = &written.branches[k].pressure_gpa;
        for (int i = 0; i < 8; i++)
            assert_true(same(a[i], b[i]));
    }
    assert_int_equal(cell_write_file(&written, lua_path, &err), ERR_IO); /* never over another */
    assert_non_null(strstr(err.message, "choose another name"));
}

#define CELL "cell { culet_um = 600, medium = 'neon', pressure_gpa_max = 8, membrane_bar_max = 130 }\n"
#define PASSPORT "cell_passport { run = 'r', measured = 'm', clock = 'real' }\n"

static void what_is_no_passport_is_refused(void **state)
{
    (void)state;
    static const struct {
        const char *text, *part;
    } refusals[] = {
        {"", "not a passport"},
        {CELL, "expected cell { ... } and cell_passport { ... }"},
        {CELL PASSPORT PASSPORT, ":3: cell_passport: given twice"},
        {CELL "cell_passport { run = 'r', measured = 'm', clock = 'fast' }", "expected \"real\" or \"simulated\""},
        {CELL "cell_passport { run = 'r', measured = 'm', clock = 'real', takeup = 3 }",
         ":2: cell_passport: unknown key 'takeup'; nearest is 'takeup_bar'"},
        {CELL "cell_passport { run = 'r', measured = 'm', clock = 'real', takeup_bar = '3 bar' }",
         "expected a plain number; its unit is in its name"},
        {CELL "cell_passport { run = 'r', measured = 'm', clock = 'real', creep_s = 0/0 }", "expected 0 to 1e+06"},
        {CELL PASSPORT "cell_branch { step_index = 1 }", "cell_branch: missing key 'direction'"},
        {CELL PASSPORT "cell_branch { step_index = 1, direction = 2 }", "direction = 2: expected -1 to 1"},
        {CELL PASSPORT "load { to = '1 GPa' }", "unknown name 'load'"},
    };
    static struct cell_passport passport;
    for (size_t i = 0; i < sizeof refusals / sizeof refusals[0]; i++) {
        FILE *file = fopen(lua_path, "w");
        fputs(refusals[i].text, file);
        fclose(file);
        assert_int_equal(cell_read_file(&passport, lua_path, &err), ERR_CONFIG);
        if (!strstr(err.message, refusals[i].part))
            fail_msg("%s\n expected \"%s\" in: %s", refusals[i].text, refusals[i].part, err.message);
    }
    assert_int_equal(cell_read_db(&passport, lua_path, &err), ERR_DB);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(branches_give_the_law_back),     cmocka_unit_test(what_no_branch_tells_is_not_known),
        cmocka_unit_test(a_night_teaches_its_cell),       cmocka_unit_test(a_passport_reads_back_as_it_was),
        cmocka_unit_test(what_is_no_passport_is_refused),
    };
    return cmocka_run_group_tests(tests, make_directory, remove_directory);
}
