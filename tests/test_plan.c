/*
 * Goal: a sequence becomes exactly the plan it says, or is refused with a sentence that tells where and why; and no
 * text, however hostile, gets at more than two seconds and its own memory.
 * Method: texts written to a file and loaded through the real sandbox; a table of refusals, each with its code and the
 * parts its sentence must hold; a plan printed and hashed twice.
 */
#include <dirent.h>
#include <fcntl.h>
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "sequences/plan.h"
#include "sequences/record.h"

#define CELL "cell { culet_um = 600, medium = 'm', pressure_gpa_max = 8, membrane_bar_max = 130 }\n"
#define HEAD CELL "preloaded { at = '0.1 GPa' }\n" /* two lines: what follows is on line 3 */

static char path[] = "/tmp/isobar-plan-XXXXXX";
static struct plan plan;
static struct err err;

static int make_file(void **state)
{
    (void)state;
    int fd = mkstemp(path);
    return fd < 0 ? -1 : close(fd);
}

static int remove_file(void **state)
{
    (void)state;
    return unlink(path);
}

static int load_bytes(const char *text, size_t n_bytes)
{
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_int_equal(fwrite(text, 1, n_bytes, file), n_bytes);
    fclose(file);
    err = (struct err){0};
    return plan_load(&plan, path, &err);
}

static int load(const char *text) { return load_bytes(text, strlen(text)); }

static void expect_plan(const char *text)
{
    if (load(text) < 0)
        fail_msg("%s\n refused: %s", text, err.message);
}

static const char *printed(const struct plan *p)
{
    static char buffer[40000];
    memset(buffer, 0, sizeof buffer);
    FILE *stream = fmemopen(buffer, sizeof buffer, "w");
    plan_print(p, stream);
    fclose(stream);
    return buffer;
}

static void first_light_is_what_it_says(void **state)
{
    (void)state;
    assert_int_equal(plan_load(&plan, "sequences/first_light.lua", &err), 0);
    static const struct {
        enum plan_kind kind;
        double pressure_gpa;
    } EXPECTED[] = {{PLAN_PRELOADED, 0.1}, {PLAN_LOAD, 1.5},   {PLAN_ISOBAR, 1.5}, {PLAN_LOAD, 3.3},
                    {PLAN_ISOBAR, 3.3},    {PLAN_UNLOAD, 1.5}, {PLAN_ISOBAR, 1.5}};
    assert_int_equal(plan.n_steps, 7);
    for (int i = 0; i < 7; i++) {
        const struct plan_step *step = &plan.steps[i];
        assert_int_equal(step->kind, EXPECTED[i].kind);
        assert_true(step->pressure_gpa_target == EXPECTED[i].pressure_gpa);
        if (step->kind == PLAN_ISOBAR)
            assert_true(step->duration_s == 3600 && step->n_scans == 1 && step->n_frames == 6000 &&
                        step->frame_time_s == 0.1 && step->drift_gpa_max == 0.12);
        else
            assert_true(step->rate_bar_per_min == (i ? 2.0 : 0.0));
    }
    assert_string_equal(plan.cell.medium, "methanol-ethanol 4:1");
    assert_true(plan.cell.culet_um == 600 && plan.cell.pressure_gpa_max == 8 && plan.cell.membrane_bar_max == 130);
    assert_non_null(strstr(plan.source, "-- First light"));
}

static void every_spelling_of_a_unit_is_the_same_number(void **state)
{
    (void)state;
    expect_plan(HEAD "load { to = '33 kbar', rate = '90 bar/h' }\n"
                     "isobar { duration = '90 min', scan = { frames = 100, frame_time = '50 ms', count = 3 } }\n"
                     "unload { to = '1500  MPa' }\n"
                     "isobar { duration = '5400s', drift_gpa_max = 0.5 }");
    assert_int_equal(plan.n_steps, 5);
    assert_true(plan.steps[1].pressure_gpa_target == 3.3 && plan.steps[1].rate_bar_per_min == 1.5);
    assert_true(plan.steps[2].duration_s == 5400 && plan.steps[2].frame_time_s == 0.05 && plan.steps[2].n_scans == 3);
    assert_int_equal(plan.steps[2].line, 4);
    assert_true(plan.steps[3].pressure_gpa_target == 1.5 && plan.steps[3].rate_bar_per_min == 2);
    assert_true(plan.steps[4].duration_s == 5400 && plan.steps[4].n_scans == 0 && plan.steps[4].n_frames == 0 &&
                plan.steps[4].frame_time_s == 0 && plan.steps[4].drift_gpa_max == 0.5);
}

static void a_choice_is_read_and_has_a_default(void **state)
{
    (void)state;
    expect_plan(HEAD "load { to = '2 GPa' } isobar { duration = '1 h' }\n"
                     "load { to = '3 GPa', back_off = 'apply' }\n"
                     "isobar { duration = '1 h', drift_correction = 'between_scans' }\n"
                     "unload { to = '1 GPa', back_off = 'none' }");
    assert_int_equal(plan.steps[1].back_off, PLAN_BACK_OFF_CALIBRATE);
    assert_int_equal(plan.steps[2].drift_correction, PLAN_CORRECT_NONE);
    assert_int_equal(plan.steps[3].back_off, PLAN_BACK_OFF_APPLY);
    assert_int_equal(plan.steps[4].drift_correction, PLAN_CORRECT_BETWEEN_SCANS);
    assert_int_equal(plan.steps[5].back_off, PLAN_BACK_OFF_NONE);
}

static void the_hash_is_of_the_plan_and_not_of_the_text(void **state)
{
    (void)state;
    expect_plan(HEAD "load { to = '3.3 GPa', rate = '2 bar/min' }");
    uint64_t hash = plan.hash;
    char before[400];
    snprintf(before, sizeof before, "%.399s", printed(&plan));
    expect_plan(HEAD "\n-- the same in other words\nlocal to = 33 load { rate = '120 bar/h', to = to .. ' kbar' }");
    assert_true(plan.hash == hash);
    assert_string_equal(printed(&plan), before);
    assert_string_equal(before,
                        "cell name=\"\" culet_um=600 gasket=\"\" medium=\"m\" hydrostatic_gpa_max=inf "
                        "pressure_gpa_max=8 membrane_bar_max=130\n"
                        "0 preloaded pressure_gpa_target=0.10000000000000001\n"
                        "1 load pressure_gpa_target=3.2999999999999998 rate_bar_per_min=2 back_off=calibrate\n");
    uint64_t fnv = UINT64_C(14695981039346656037);
    for (const char *c = before; *c; c++)
        fnv = (fnv ^ (unsigned char)*c) * UINT64_C(1099511628211);
    assert_true(hash == fnv);
    expect_plan(HEAD "load { to = '3.3000000000000003 GPa', rate = '2 bar/min' }");
    assert_true(plan.hash != hash);
}

static void pairs_is_sorted_and_nothing_shows_an_address(void **state)
{
    (void)state;
    expect_plan("local medium = ''\n"
                "for k, v in pairs { zeta = 1, alpha = 2, [3] = 3, [1] = 4, mu = 5, beta = 6 } do medium = medium .. k "
                ".. v end\n"
                "assert(tostring({}) == 'table' and tostring(pairs) == 'function' and tostring(1.5) == '1.5')\n"
                "cell { culet_um = 600, medium = medium, pressure_gpa_max = 8, membrane_bar_max = 130 }\n"
                "preloaded { at = string.format('%.1f GPa', math.min(0.1, 7)) }");
    assert_string_equal(plan.cell.medium, "1433alpha2beta6mu5zeta1");
    assert_true(plan.steps[0].pressure_gpa_target == 0.1);
}

static void the_estimate_adds_up(void **state)
{
    (void)state;
    double s_min, s_max, total_s_min, total_s_max, sum_s_min = 0, sum_s_max = 0;
    expect_plan(HEAD
                "load { to = '1.1 GPa', rate = '2 bar/min' } isobar { duration = '1 h' } unload { to = '0.1 GPa' }");
    plan_estimate(&plan, &total_s_min, &total_s_max);
    for (int32_t i = 0; i < plan.n_steps; i++) {
        plan_estimate_step(&plan, i, &s_min, &s_max);
        assert_true(s_min > 0 && s_min < s_max);
        sum_s_min += s_min;
        sum_s_max += s_max;
    }
    assert_true(sum_s_min == total_s_min && sum_s_max == total_s_max);
    plan_estimate_step(&plan, 1, &s_min, &s_max); /* 1 GPa: 7 to 14 bar at 2 bar/min, and 20 to 60 min */
    assert_true(fabs(s_min - (210 + 1200)) < 1e-6 && fabs(s_max - (420 + 3600)) < 1e-6);
    plan_estimate_step(&plan, 2, &s_min, &s_max);
    assert_true(s_min == 3600 && fabs(s_max - 3960) < 1e-6);
    plan_estimate_step(&plan, 3, &s_min, &s_max);
    assert_true(fabs(s_min - (210 + 1200)) < 1e-6);
}

static void a_ruby_is_calibrated_before_the_preload(void **state)
{
    (void)state;
    double s_min, s_max;
    expect_plan(CELL "calibrate_ruby {}\npreloaded { at = '0.1 GPa' }\nload { to = '1.1 GPa' }");
    assert_int_equal(plan.n_steps, 3);
    assert_int_equal(plan.steps[0].kind, PLAN_CALIBRATE_RUBY);
    assert_string_equal(plan_kind_name(PLAN_CALIBRATE_RUBY), "calibrate_ruby");
    assert_int_equal(plan.steps[0].n_readings, 20);
    uint64_t hash = plan.hash;
    expect_plan(CELL "calibrate_ruby { readings = 40 }\npreloaded { at = '0.1 GPa' }\nload { to = '1.1 GPa' }");
    assert_int_equal(plan.steps[0].n_readings, 40);
    assert_true(plan.hash != hash);
    plan_estimate_step(&plan, 0, &s_min, &s_max);
    assert_true(s_min == 120 && s_max == 240 + 3600); /* and the hands that close the cell */
}

static void a_deflated_cell_keeps_its_pressure_and_may_be_held(void **state)
{
    (void)state;
    double s_min, s_max;
    expect_plan(HEAD "load { to = '1.1 GPa' } deflate {} isobar { duration = '1 h' }");
    assert_int_equal(plan.n_steps, 4);
    assert_int_equal(plan.steps[2].kind, PLAN_DEFLATE);
    assert_string_equal(plan_kind_name(PLAN_DEFLATE), "deflate");
    assert_true(plan.steps[2].pressure_gpa_target == 1.1 && plan.steps[3].pressure_gpa_target == 1.1);
    assert_true(plan.steps[2].rate_bar_per_min == 0 && plan.steps[2].duration_s == 0);
    plan_estimate_step(&plan, 2, &s_min, &s_max);
    assert_true(s_min == 10 && s_max == 1800);
}

static void a_medium_has_a_hydrostatic_limit_or_is_given_one(void **state)
{
    (void)state;
    static const struct {
        const char *medium;
        double gpa_max;
    } MEDIA[] = {
        {"methanol-ethanol 4:1", 10}, {"4:1 Methanol/Ethanol", 10}, {"neon", 15},           {"Ne", INFINITY},
        {"solid argon", 9},           {"helium", INFINITY},         {"methanol", INFINITY}, {"xenon", INFINITY}};
    for (size_t i = 0; i < sizeof MEDIA / sizeof MEDIA[0]; i++)
        assert_true(plan_hydrostatic_gpa(MEDIA[i].medium) == MEDIA[i].gpa_max);
    expect_plan(
        "cell { culet_um = 300, medium = 'argon', gasket = 'rhenium', pressure_gpa_max = 20, membrane_bar_max = 130 }"
        "preloaded { at = '0.1 GPa' } load { to = '9 GPa' } load { to = '9.1 GPa' }");
    assert_string_equal(plan.cell.gasket, "rhenium");
    assert_true(plan.cell.hydrostatic_gpa_max == 9);
    assert_int_equal(plan_find_nonhydrostatic(&plan), 2); /* said, not refused */
    expect_plan("cell { culet_um = 300, medium = 'argon', hydrostatic_gpa_max = 2, pressure_gpa_max = 20, "
                "membrane_bar_max = 130 } preloaded { at = '0.1 GPa' } load { to = '9 GPa' }");
    assert_true(plan.cell.hydrostatic_gpa_max == 2);
    assert_int_equal(plan_find_nonhydrostatic(&plan), 1);
    expect_plan(HEAD "load { to = '8 GPa' }");
    assert_int_equal(plan_find_nonhydrostatic(&plan), -1);
}

/* ---- refusals ------------------------------------------------------------------------------------------------ */

struct refusal {
    const char *text;
    int code;
    const char *part[3];
};

static const struct refusal REFUSALS[] = {
    /* the order and meaning of steps */
    {"", ERR_CONFIG, {"no steps"}},
    {CELL, ERR_CONFIG, {"no steps"}},
    {"load { to = '1 GPa' }", ERR_CONFIG, {":1: load: expected cell { ... } before the first step"}},
    {CELL "load { to = '1 GPa' }", ERR_CONFIG, {":2: load: expected preloaded { at"}},
    {HEAD CELL, ERR_CONFIG, {":3: cell: given twice"}},
    {HEAD "preloaded { at = '0.2 GPa' }", ERR_CONFIG, {":3: preloaded: only the first step"}},
    {HEAD "load { to = '0.1 GPa' }",
     ERR_CONFIG,
     {":3: load: to 0.1 GPa is not above the 0.1 GPa before it; use unload"}},
    {HEAD "unload { to = '0.2 GPa' }",
     ERR_CONFIG,
     {":3: unload: to 0.2 GPa is not below the 0.1 GPa before it; use load"}},
    {HEAD "isobar { duration = '1 h' }\nisobar { duration = '1 h' }",
     ERR_CONFIG,
     {":4: isobar: follows another isobar (line 3)"}},
    {HEAD "isobar { duration = '10 min', scan = { frames = 6000 } }",
     ERR_CONFIG,
     {"1 x 6000 frames of 0.1 s need 610 s", "duration is 600 s"}},
    {HEAD "load { to = '8.1 GPa' }",
     ERR_LIMIT,
     {":3: load: 8.1 GPa refused: above the cell's pressure_gpa_max of 8 GPa"}},
    {CELL "preloaded { at = '9 GPa' }", ERR_LIMIT, {":2: preloaded: 9 GPa refused"}},
    {HEAD "for i = 1, 300 do isobar { duration = '1 h' } end",
     ERR_CONFIG,
     {"more than 257 steps or sections in one sequence"}},
    {HEAD "deflate {}\nload { to = '1 GPa' }",
     ERR_CONFIG,
     {":4: load: follows deflate (line 3): the cell is locked", "begin another sequence with preloaded"}},
    {HEAD "deflate {} isobar { duration = '1 h' }\nunload { to = '0 GPa' }",
     ERR_CONFIG,
     {":4: unload: follows deflate"}},
    {HEAD "deflate {} deflate {}", ERR_CONFIG, {":3: deflate: follows deflate (line 3)"}},
    {HEAD "deflate {} isobar { duration = '1 h' } isobar { duration = '1 h' }", ERR_CONFIG, {"follows another isobar"}},
    {CELL "deflate {}", ERR_CONFIG, {":2: deflate: expected preloaded { at"}},
    {CELL "calibrate_ruby {}\nload { to = '1 GPa' }",
     ERR_CONFIG,
     {":3: load: expected preloaded { at", "after calibrate_ruby"}},
    {HEAD "calibrate_ruby {}", ERR_CONFIG, {":3: calibrate_ruby: only the first step can be calibrate_ruby"}},
    {CELL "calibrate_ruby { readings = 4 }", ERR_CONFIG, {":2: calibrate_ruby: readings", "4"}},
    /* keys */
    {HEAD "deflate { to = '0 GPa' }", ERR_CONFIG, {":3: deflate: unknown key 'to'"}},
    {"cell { culet_um = 600, medium = 'm', hydrostatic_gpa_max = '9 GPa' }",
     ERR_CONFIG,
     {"hydrostatic_gpa_max = \"9 GPa\": expected a plain number"}},
    {HEAD "\nlod { to = '1 GPa' }",
     ERR_CONFIG,
     {":4: unknown name 'lod'; nearest is 'load'", "known: cell, preloaded, load, unload, isobar, deflate"}},
    {HEAD "load { to = '1 GPa', rat = '2 bar/min' }",
     ERR_CONFIG,
     {":3: load: unknown key 'rat'; nearest is 'rate'", "known: to, rate"}},
    {HEAD "load { to = '1 GPa', velocity = 3 }", ERR_CONFIG, {"unknown key 'velocity' (known: to, rate, back_off)"}},
    {HEAD "isobar { duration = '1 h', scan = { frames = 100, frametime = '1 s' } }",
     ERR_CONFIG,
     {"isobar: unknown key 'frametime'; nearest is 'frame_time'"}},
    {HEAD "load { to = '1 GPa', zz = 1, yy = 2, xx = 3 }", ERR_CONFIG, {"unknown key 'xx'"}},
    {"cell { medium = 'a\\0b' }", ERR_CONFIG, {"expected a text of at most 207 bytes without NUL"}},
    {HEAD "load { rate = '2 bar/min' }",
     ERR_CONFIG,
     {":3: load: missing key 'to'; expected a pressure, like to = \"3.3 GPa\""}},
    {HEAD "isobar { duration = '1 h', scan = {} }", ERR_CONFIG, {"isobar: missing key 'frames'"}},
    {HEAD "load { '1 GPa' }", ERR_CONFIG, {":3: load: a value without a key"}},
    {HEAD "load '1 GPa'", ERR_CONFIG, {":3: load: expected one table"}},
    {HEAD "load { to = { gpa = 1 } }", ERR_CONFIG, {":3: load: to = { ... }: expected a pressure with its unit"}},
    {HEAD "local t = {} t.scan = t isobar(t)", ERR_CONFIG, {":3: scan: scan: a table is not expected here"}},
    {HEAD "isobar { duration = '1 h', scan = 6000 }", ERR_CONFIG, {"scan: expected a table, scan = { ... }"}},
    {HEAD "load { to = load }", ERR_CONFIG, {"load: to: a function is not expected here"}},
    /* values */
    {HEAD "load { to = 3.3 }", ERR_CONFIG, {":3: load: to = 3.3: expected a pressure with its unit, like \"3.3 GPa\""}},
    {HEAD "load { to = '3.3' }", ERR_CONFIG, {"to = \"3.3\": expected a pressure in GPa, kbar, MPa"}},
    {HEAD "load { to = '3.3 bar' }", ERR_CONFIG, {"to = \"3.3 bar\": expected a pressure in GPa"}},
    {HEAD "load { to = '3.3 gpa' }", ERR_CONFIG, {"expected a pressure in GPa"}},
    {HEAD "load { to = 'GPa' }", ERR_CONFIG, {"expected a pressure in GPa"}},
    {HEAD "load { to = '0x3 GPa' }", ERR_CONFIG, {"expected a pressure in GPa"}},
    {HEAD "load { to = '1e GPa' }", ERR_CONFIG, {"expected a pressure in GPa"}},
    {HEAD "load { to = '-1 GPa' }", ERR_CONFIG, {"to = \"-1 GPa\": expected 0 to 100 GPa"}},
    {HEAD "load { to = 'nan GPa' }", ERR_CONFIG, {"expected a pressure in GPa"}},
    {HEAD "load { to = 'inf GPa' }", ERR_CONFIG, {"expected a pressure in GPa"}},
    {HEAD "load { to = '1e999 GPa' }", ERR_CONFIG, {"expected 0 to 100 GPa"}},
    {HEAD "load { to = true }", ERR_CONFIG, {"to = true: expected a pressure with its unit"}},
    {HEAD "load { to = '1 GPa', rate = '0 bar/min' }",
     ERR_CONFIG,
     {"rate = \"0 bar/min\": expected 0.01 to 20 bar/min"}},
    {HEAD "load { to = '1 GPa', rate = '21 bar/min' }", ERR_CONFIG, {"expected 0.01 to 20 bar/min"}},
    {HEAD "load { to = '1 GPa', back_off = 'aply' }",
     ERR_CONFIG,
     {":3: load: back_off = \"aply\": not a choice; nearest is 'apply' (known: calibrate, apply, none)"}},
    {HEAD "load { to = '1 GPa', back_off = 1 }", ERR_CONFIG, {"back_off = 1: not a choice"}},
    {HEAD "load { to = '1 GPa' } isobar { duration = '1 h', drift_correction = true }",
     ERR_CONFIG,
     {"isobar: drift_correction = true: not a choice", "known: none, between_scans"}},
    {HEAD "isobar { duration = '1 h', drift_correction = 'between_scans' }",
     ERR_CONFIG,
     {"isobar: drift_correction needs the dead zone that a load or unload finds; line 2 is preloaded"}},
    {HEAD "isobar { duration = '0 s' }", ERR_CONFIG, {"duration = \"0 s\": expected 1 to 604800 s"}},
    {HEAD "isobar { duration = '1 h', drift_gpa_max = 0/0 }", ERR_CONFIG, {"nan: expected 0.001 to 10"}},
    {HEAD "isobar { duration = '1 h', drift_gpa_max = 1/0 }", ERR_CONFIG, {"drift_gpa_max = inf: expected"}},
    {HEAD "isobar { duration = '1 h', drift_gpa_max = '0.1 GPa' }",
     ERR_CONFIG,
     {"expected a plain number; its unit is in its name"}},
    {HEAD "isobar { duration = '1 h', scan = { frames = 100.5 } }",
     ERR_CONFIG,
     {"frames = 100.5: expected a whole number"}},
    {HEAD "isobar { duration = '1 h', scan = { frames = 'auto' } }",
     ERR_CONFIG,
     {"frames = \"auto\": expected a whole number"}},
    {HEAD "isobar { duration = '1 h', scan = { frames = 1 } }", ERR_CONFIG, {"frames = 1: expected 2 to 100000"}},
    {HEAD "isobar { duration = '1 h', scan = { frames = 1e300 } }", ERR_CONFIG, {"expected a whole number"}},
    {"cell { culet_um = 600, medium = 'a\\nb', pressure_gpa_max = 8, membrane_bar_max = 130 }",
     ERR_CONFIG,
     {"medium: expected one line without control characters"}},
    {"cell { culet_um = 600, medium = '', pressure_gpa_max = 8, membrane_bar_max = 130 }",
     ERR_CONFIG,
     {"medium = \"\": expected 1 to 47 bytes of text, not 0"}},
    {"cell { culet_um = 600, medium = ('x'):rep(48), pressure_gpa_max = 8, membrane_bar_max = 130 }",
     ERR_CONFIG,
     {"expected 1 to 47 bytes of text, not 48"}},
    {"cell { culet_um = 600, medium = 7, pressure_gpa_max = 8, membrane_bar_max = 130 }",
     ERR_CONFIG,
     {"medium = 7: expected a text in quotation marks"}},
    {"cell { culet_um = 600, medium = ('x'):rep(300) }",
     ERR_CONFIG,
     {"cell: medium: expected a text of at most 207 bytes"}},
    {"cell { [('k'):rep(40)] = 1 }", ERR_CONFIG, {"is longer than 31 bytes"}},
    /* Lua */
    {HEAD "load { to = '1 GPa' ", ERR_CONFIG, {":3: '}' expected near <eof>"}},
    {HEAD "error('the cell is not here')", ERR_CONFIG, {":3: the cell is not here"}},
    {HEAD "error { }", ERR_CONFIG, {"raised an error that is not a text"}},
    {HEAD "local f = nil f()", ERR_CONFIG, {":3: attempt to call a nil value (local 'f')"}},
    {"local function f() return 1 + f() end f()", ERR_CONFIG, {":1: stack overflow"}},
    {"\033Lua", ERR_CONFIG, {"attempt to load a binary chunk"}},
    {"error('\\27[31m\\n')", ERR_CONFIG, {":1:  [31m "}},
};

static void what_cannot_be_is_refused_in_a_sentence(void **state)
{
    (void)state;
    memset(&plan, 0x5a, sizeof plan);
    for (size_t i = 0; i < sizeof REFUSALS / sizeof REFUSALS[0]; i++) {
        const struct refusal *r = &REFUSALS[i];
        int code = load(r->text);
        if (code != r->code || err.code != code)
            fail_msg("%s\n gave %s: %s", r->text, err_name(code), err.message);
        for (int j = 0; j < 3 && r->part[j]; j++)
            if (!strstr(err.message, r->part[j]))
                fail_msg("%s\n expected \"%s\" in: %s", r->text, r->part[j], err.message);
    }
    for (size_t i = 0; i < sizeof plan; i++) /* a failure writes nothing */
        assert_int_equal(((unsigned char *)&plan)[i], 0x5a);
    print_message("%zu refusals\n", sizeof REFUSALS / sizeof REFUSALS[0]);
}

static void what_reaches_outside_is_unknown(void **state)
{
    (void)state;
    static const char *const NAMES[] = {
        "io",     "os",     "debug",          "package",   "require", "loadfile",    "dofile",       "loadstring",
        "pcall",  "xpcall", "collectgarbage", "coroutine", "print",   "next",        "setmetatable", "getmetatable",
        "rawset", "rawget", "warn",           "utf8",      "_G",      "string.dump", "math.random",  "math.randomseed"};
    for (size_t i = 0; i < sizeof NAMES / sizeof NAMES[0]; i++) {
        char text[100];
        snprintf(text, sizeof text, "local x = %s; x()", NAMES[i]);
        assert_int_equal(load(text), ERR_CONFIG);
        if (!strstr(err.message, strchr(NAMES[i], '.') ? "attempt to call a nil value" : "unknown name"))
            fail_msg("%s: %s", NAMES[i], err.message);
    }
    assert_int_equal(load("load('x = 1')()"), ERR_CONFIG); /* the name is ours: it makes a step */
    assert_non_null(strstr(err.message, "load: expected one table"));
    assert_int_equal(load("local x = string.format('%p', {})"), ERR_CONFIG);
    assert_int_equal(load("local x = string.format('%s', {})"), ERR_CONFIG);
    assert_int_equal(load("local x = ('%-20p'):format('x')"), ERR_CONFIG);
}

static void time_and_memory_are_bounded(void **state)
{
    (void)state;
    static const struct refusal BOMBS[] = {
        {HEAD "\nwhile true do end",
         ERR_LIMIT,
         {"sequence", "ran longer than 2 s and was ended at line 4 (an endless loop?)"}},
        {"local s = ('a'):rep(30000) s:find('.-.-.-.-.-.-b')",
         ERR_LIMIT,
         {"ran longer than 3 s and was ended (an endless loop?)"}},
        {"local s = ('x'):rep(110e6)", ERR_LIMIT, {"needs more than 96 MB of memory"}},
        {"local t = {} while true do t[#t + 1] = ('x'):rep(1000) .. #t end", ERR_LIMIT, {"needs more than 96 MB"}},
        {"local s = 'x' while true do s = s .. s end", ERR_LIMIT, {"needs more than 96 MB"}},
    };
    for (size_t i = 0; i < sizeof BOMBS / sizeof BOMBS[0]; i++) {
        int64_t start_ns = clock_wall_ns();
        int code = load(BOMBS[i].text);
        double taken_s = s_from_ns(clock_wall_ns() - start_ns);
        print_message("%.2f s: %s\n", taken_s, err.message);
        assert_int_equal(code, BOMBS[i].code);
        assert_true(taken_s < 7);
        for (int j = 0; j < 3 && BOMBS[i].part[j]; j++)
            if (!strstr(err.message, BOMBS[i].part[j]) &&
                taken_s < 5) /* a busy machine meets the wall deadline first */
                fail_msg("expected \"%s\"", BOMBS[i].part[j]);
    }
}

static pid_t child_of(pid_t pid)
{
    char name[64];
    long child = 0;
    snprintf(name, sizeof name, "/proc/%ld/task/%ld/children", (long)pid, (long)pid);
    FILE *file = fopen(name, "r");
    assert_non_null(file);
    if (fscanf(file, "%ld", &child) != 1)
        child = 0;
    fclose(file);
    return (pid_t)child;
}

static int count_descriptors(pid_t pid)
{
    char name[64];
    int n = 0;
    snprintf(name, sizeof name, "/proc/%ld/fd", (long)pid);
    DIR *listing = opendir(name);
    for (struct dirent *entry; listing && (entry = readdir(listing));)
        n += entry->d_name[0] != '.';
    if (listing)
        closedir(listing);
    return n;
}

/* Waits for it: the limits are set in the moments after the descriptors are closed. */
static void expect_limit(pid_t pid, const char *limit, int64_t deadline_ns)
{
    char name[64], text[4096] = "";
    snprintf(name, sizeof name, "/proc/%ld/limits", (long)pid);
    while (!strstr(text, limit)) {
        if (clock_wall_ns() > deadline_ns)
            fail_msg("expected \"%s\" in %s", limit, text);
        memset(text, 0, sizeof text);
        FILE *file = fopen(name, "r");
        assert_non_null(file);
        assert_true(fread(text, 1, sizeof text - 1, file) > 0);
        fclose(file);
    }
}

/* A process evaluates an endless loop; its child is looked at from outside, and must not outlive it. */
static void the_child_is_confined_and_dies_with_its_parent(void **state)
{
    (void)state;
    int64_t deadline_ns = clock_wall_ns() + 10 * NS_PER_S;
    assert_true(dup2(1, 40) == 40); /* more to inherit */
    pid_t parent = fork(), child = 0;
    if (parent == 0) {
        load("while true do end");
        _exit(0);
    }
    while ((child = child_of(parent)) == 0 || count_descriptors(child) != 1)
        assert_true(clock_wall_ns() < deadline_ns);
    close(40);
    int64_t looked_ns = clock_wall_ns();
    expect_limit(child, "Max cpu time              3                    4 ", looked_ns + NS_PER_S);
    expect_limit(child, "Max file size             0                    0 ", looked_ns + NS_PER_S);
    expect_limit(child, "Max open files            0                    0 ", looked_ns + NS_PER_S);
    expect_limit(child, "Max core file size        0                    0 ", looked_ns + NS_PER_S);
    assert_int_equal(kill(parent, SIGKILL), 0);
    assert_int_equal(waitpid(parent, NULL, 0), parent);
    deadline_ns = clock_wall_ns() + NS_PER_S; /* its own limit would end it only after 2 s */
    while (count_descriptors(child) > 0)      /* gone, or a zombie of the init process */
        assert_true(clock_wall_ns() < deadline_ns);
}

static void a_file_that_is_no_text_is_refused(void **state)
{
    (void)state;
    static char text[PLAN_TEXT_MAX + 1];
    memset(text, ' ', sizeof text);
    memcpy(text, HEAD, strlen(HEAD));
    assert_int_equal(load_bytes(text, PLAN_TEXT_MAX - 1), 0);
    assert_int_equal(load_bytes(text, PLAN_TEXT_MAX), ERR_CONFIG);
    assert_non_null(strstr(err.message, "is longer than 65535 bytes"));
    text[100] = '\0';
    assert_int_equal(load_bytes(text, 1000), ERR_CONFIG);
    assert_non_null(strstr(err.message, "it holds a NUL byte"));
    assert_int_equal(plan_load(&plan, "/nowhere/night.lua", &err), ERR_IO);
    assert_non_null(strstr(err.message, "/nowhere/night.lua cannot be read: No such file"));
    assert_int_equal(plan_load(&plan, "/", &err), ERR_IO);
    assert_non_null(strstr(err.message, "not a regular file"));
}

/* An edited night is checked often: the whole way through the child must stay quick. */
static void a_hundred_plans_take_less_than_a_second(void **state)
{
    (void)state;
    int64_t start_ns = clock_wall_ns();
    for (int i = 0; i < 100; i++)
        assert_int_equal(plan_load(&plan, "sequences/first_light.lua", &err), 0);
    double taken_s = s_from_ns(clock_wall_ns() - start_ns);
    print_message("100 plans in %.2f s\n", taken_s);
#ifndef __SANITIZE_ADDRESS__ /* which makes fork() copy a large map */
    assert_true(taken_s < 1);
#endif
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1); /* no child is left behind */
    int fd = open("/", O_RDONLY);
    assert_true(fd >= 0 && fd < 20); /* and no descriptor */
    close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(first_light_is_what_it_says),
        cmocka_unit_test(every_spelling_of_a_unit_is_the_same_number),
        cmocka_unit_test(a_choice_is_read_and_has_a_default),
        cmocka_unit_test(the_hash_is_of_the_plan_and_not_of_the_text),
        cmocka_unit_test(pairs_is_sorted_and_nothing_shows_an_address),
        cmocka_unit_test(the_estimate_adds_up),
        cmocka_unit_test(a_ruby_is_calibrated_before_the_preload),
        cmocka_unit_test(a_deflated_cell_keeps_its_pressure_and_may_be_held),
        cmocka_unit_test(a_medium_has_a_hydrostatic_limit_or_is_given_one),
        cmocka_unit_test(what_cannot_be_is_refused_in_a_sentence),
        cmocka_unit_test(what_reaches_outside_is_unknown),
        cmocka_unit_test(time_and_memory_are_bounded),
        cmocka_unit_test(the_child_is_confined_and_dies_with_its_parent),
        cmocka_unit_test(a_file_that_is_no_text_is_refused),
        cmocka_unit_test(a_hundred_plans_take_less_than_a_second),
    };
    return cmocka_run_group_tests(tests, make_file, remove_file);
}
