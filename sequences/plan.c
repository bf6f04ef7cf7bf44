#include "sequences/plan.h"

#include <assert.h>
#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "sequences/record.h"
#include "sequences/sandbox.h"

/* ---- the words of a sequence --------------------------------------------------------------------------------- */

enum constructor {
    MAKE_CELL,
    MAKE_PRELOADED,
    MAKE_LOAD,
    MAKE_UNLOAD,
    MAKE_ISOBAR,
    MAKE_DEFLATE,
    MAKE_CALIBRATE_RUBY,
    MAKE_COUNT
};

static const char *const CONSTRUCTORS[MAKE_COUNT] = {"cell",   "preloaded", "load",          "unload",
                                                     "isobar", "deflate",   "calibrate_ruby"};

/* The steps follow the cell in both lists. */
static enum plan_kind kind_of(enum constructor make) { return (enum plan_kind)(make - MAKE_PRELOADED); }

#define CELL(key, unit, required, min, max) RECORD_FIELD(#key, unit, required, struct plan_cell, key, min, max)
#define STEP(key, unit, required, member, min, max)                                                                    \
    RECORD_FIELD(#key, unit, required, struct plan_step, member, min, max)
#define COUNT_OF(array) ((int)(sizeof(array) / sizeof(array)[0]))

/* 100 GPa and 250 bar are beyond any cell and membrane this is meant for. */
#define PRESSURE_GPA_END 100
static const struct record_field CELL_FIELDS[] = {
    CELL(name, RECORD_WORD, false, 0, 0),
    CELL(culet_um, RECORD_PLAIN, true, 10, 5000),
    CELL(gasket, RECORD_WORD, false, 0, 0),
    CELL(medium, RECORD_WORD, true, 0, 0),
    CELL(hydrostatic_gpa_max, RECORD_PLAIN, false, 0.01, PRESSURE_GPA_END),
    CELL(pressure_gpa_max, RECORD_PLAIN, true, 0.01, PRESSURE_GPA_END),
    CELL(membrane_bar_max, RECORD_PLAIN, true, 1, 250),
};

static const struct record_field PRELOADED_FIELDS[] = {
    STEP(at, RECORD_GPA, true, pressure_gpa_target, 0, PRESSURE_GPA_END),
};

static const char *const BACK_OFFS[PLAN_BACK_OFF_COUNT] = {"calibrate", "apply", "none"};
static const char *const DRIFT_CORRECTIONS[PLAN_DRIFT_CORRECTION_COUNT] = {"none", "between_scans"};

static const struct record_field RAMP_FIELDS[] = {
    STEP(to, RECORD_GPA, true, pressure_gpa_target, 0, PRESSURE_GPA_END),
    STEP(rate, RECORD_BAR_PER_MIN, false, rate_bar_per_min, 0.01, 20),
    {RECORD_CHOICE_FIELD("back_off", struct plan_step, back_off, BACK_OFFS)},
};

/* An Eiger2 cannot frame faster than 0.5 ms; a two-time correlation of 100 000 frames would not fit a computer. */
static const struct record_field SCAN_FIELDS[] = {
    STEP(frames, RECORD_COUNT, true, n_frames, 2, 100000),
    STEP(frame_time, RECORD_S, false, frame_time_s, 0.0005, 60),
    STEP(count, RECORD_COUNT, false, n_scans, 1, 1000),
};

static const struct record_field ISOBAR_FIELDS[] = {
    STEP(duration, RECORD_S, true, duration_s, 1, 7 * 24 * 3600),
    {.key = "scan", .unit = RECORD_NESTED, .nested = SCAN_FIELDS, .n_nested = COUNT_OF(SCAN_FIELDS)},
    STEP(drift_gpa_max, RECORD_PLAIN, false, drift_gpa_max, 0.001, 10),
    {RECORD_CHOICE_FIELD("drift_correction", struct plan_step, drift_correction, DRIFT_CORRECTIONS)},
};

static const struct record_field CALIBRATE_RUBY_FIELDS[] = {
    STEP(readings, RECORD_COUNT, false, n_readings, 5, 200),
};

static const struct {
    const struct record_field *fields;
    int n_fields;
} FIELDS[MAKE_COUNT] = {
    [MAKE_PRELOADED] = {PRELOADED_FIELDS, COUNT_OF(PRELOADED_FIELDS)},
    [MAKE_LOAD] = {RAMP_FIELDS, COUNT_OF(RAMP_FIELDS)},
    [MAKE_UNLOAD] = {RAMP_FIELDS, COUNT_OF(RAMP_FIELDS)},
    [MAKE_ISOBAR] = {ISOBAR_FIELDS, COUNT_OF(ISOBAR_FIELDS)},
    [MAKE_DEFLATE] = {NULL, 0},
    [MAKE_CALIBRATE_RUBY] = {CALIBRATE_RUBY_FIELDS, COUNT_OF(CALIBRATE_RUBY_FIELDS)},
};

const char *plan_kind_name(enum plan_kind kind)
{
    assert(kind >= 0 && kind < PLAN_KIND_COUNT);
    return CONSTRUCTORS[MAKE_PRELOADED + kind];
}

/* ---- the medium ---------------------------------------------------------------------------------------------- */

static bool has_word(const char *text, const char *word)
{
    size_t n = strlen(word);
    for (const char *c = text; *c;) {
        size_t length = 0;
        while (isalpha((unsigned char)c[length]))
            length++;
        if (length == n && strncasecmp(c, word, n) == 0)
            return true;
        c += length ? length : 1;
    }
    return false;
}

double plan_hydrostatic_gpa(const char *medium)
{
    static const struct {
        const char *word, *also;
        double gpa_max;
    } MEDIA[] = {{"methanol", "ethanol", 10}, {"neon", "neon", 15}, {"argon", "argon", 9}, {"nitrogen", "nitrogen", 3}};
    for (int i = 0; i < COUNT_OF(MEDIA); i++)
        if (has_word(medium, MEDIA[i].word) && has_word(medium, MEDIA[i].also))
            return MEDIA[i].gpa_max;
    return INFINITY;
}

int32_t plan_find_nonhydrostatic(const struct plan *plan)
{
    for (int32_t i = 0; i < plan->n_steps; i++)
        if (!(plan->steps[i].pressure_gpa_target <= plan->cell.hydrostatic_gpa_max))
            return i;
    return -1;
}

const struct record_field *plan_cell_fields(int *ret_n_fields)
{
    *ret_n_fields = COUNT_OF(CELL_FIELDS);
    return CELL_FIELDS;
}

int plan_read_cell(struct plan_cell *ret_cell, const struct record_list *list, int32_t call, struct err *err)
{
    struct plan_cell cell = {.hydrostatic_gpa_max = NAN};
    int code = record_read(list, call, CELL_FIELDS, COUNT_OF(CELL_FIELDS), &cell, err);
    if (code < 0)
        return code;
    if (isnan(cell.hydrostatic_gpa_max))
        cell.hydrostatic_gpa_max = plan_hydrostatic_gpa(cell.medium);
    *ret_cell = cell;
    return 0;
}

/* ---- from records to steps ----------------------------------------------------------------------------------- */

/* Arming, last file and analysis of its start, per scan. */
#define SCAN_S_BESIDES 10.0

static int check_isobar(const struct record_list *list, int32_t call, const struct plan_step *step,
                        const struct plan_step *before, struct err *err)
{
    if (before->kind == PLAN_ISOBAR)
        return record_refuse(list, call, ERR_CONFIG, err,
                             "follows another isobar (line %d); give one isobar with the whole duration", before->line);
    if (step->drift_correction != PLAN_CORRECT_NONE && before->kind != PLAN_LOAD && before->kind != PLAN_UNLOAD)
        return record_refuse(list, call, ERR_CONFIG, err,
                             "drift_correction needs the dead zone that a load or unload finds; line %d is %s",
                             before->line, plan_kind_name(before->kind));
    double scans_s = step->n_scans * (step->n_frames * step->frame_time_s + SCAN_S_BESIDES);
    if (!(scans_s <= step->duration_s))
        return record_refuse(list, call, ERR_CONFIG, err,
                             "%d x %d frames of %g s need %.0f s with %g s per scan to arm and save, but the duration "
                             "is %g s; give fewer frames or a longer duration",
                             step->n_scans, step->n_frames, step->frame_time_s, scans_s, SCAN_S_BESIDES,
                             step->duration_s);
    return 0;
}

/* A locked cell does not follow the membrane: after deflate there may be one isobar, and nothing else. */
static int check_locked(const struct plan *plan, const struct record_list *list, int32_t call,
                        const struct plan_step *step, struct err *err)
{
    for (int32_t i = 0; i < plan->n_steps; i++)
        if (plan->steps[i].kind == PLAN_DEFLATE && step->kind != PLAN_ISOBAR)
            return record_refuse(list, call, ERR_CONFIG, err,
                                 "follows deflate (line %d): the cell is locked then and only an isobar can follow; "
                                 "unlock it and begin another sequence with preloaded",
                                 plan->steps[i].line);
    return 0;
}

static int check_step(const struct plan *plan, const struct record_list *list, int32_t call,
                      const struct plan_step *step, struct err *err)
{
    const struct plan_step *before = plan->n_steps > 0 ? &plan->steps[plan->n_steps - 1] : NULL;
    bool is_calibrated = before && before->kind == PLAN_CALIBRATE_RUBY;
    if (before && step->kind == PLAN_CALIBRATE_RUBY)
        return record_refuse(list, call, ERR_CONFIG, err,
                             "only the first step can be calibrate_ruby: later no ruby of this cell is free");
    if ((!before && step->kind != PLAN_PRELOADED && step->kind != PLAN_CALIBRATE_RUBY) ||
        (is_calibrated && step->kind != PLAN_PRELOADED))
        return record_refuse(list, call, ERR_CONFIG, err,
                             "expected preloaded { at = \"0.1 GPa\" } %s: the pressure screwed in by hand",
                             is_calibrated ? "after calibrate_ruby" : "first");
    if (before && !is_calibrated && step->kind == PLAN_PRELOADED)
        return record_refuse(list, call, ERR_CONFIG, err,
                             "only the first step, or the one after calibrate_ruby, can be preloaded");
    if (!(step->pressure_gpa_target <= plan->cell.pressure_gpa_max))
        return record_refuse(list, call, ERR_LIMIT, err,
                             "%g GPa refused: above the cell's pressure_gpa_max of %g GPa; lower the target",
                             step->pressure_gpa_target, plan->cell.pressure_gpa_max);
    if (step->kind == PLAN_LOAD && !(step->pressure_gpa_target > before->pressure_gpa_target))
        return record_refuse(list, call, ERR_CONFIG, err, "to %g GPa is not above the %g GPa before it; use unload",
                             step->pressure_gpa_target, before->pressure_gpa_target);
    if (step->kind == PLAN_UNLOAD && !(step->pressure_gpa_target < before->pressure_gpa_target))
        return record_refuse(list, call, ERR_CONFIG, err, "to %g GPa is not below the %g GPa before it; use load",
                             step->pressure_gpa_target, before->pressure_gpa_target);
    int code = check_locked(plan, list, call, step, err);
    return code == 0 && step->kind == PLAN_ISOBAR ? check_isobar(list, call, step, before, err) : code;
}

static int add_step(struct plan *plan, const struct record_list *list, int32_t call, enum constructor make,
                    struct err *err)
{
    struct plan_step step = {.kind = kind_of(make), .line = list->items[call].line};
    if (step.kind == PLAN_LOAD || step.kind == PLAN_UNLOAD)
        step.rate_bar_per_min = 2;
    if (step.kind == PLAN_ISOBAR) {
        step.drift_gpa_max = 0.12;
        step.frame_time_s = 0.1;
        step.n_scans = 1;
    }
    if (step.kind == PLAN_CALIBRATE_RUBY)
        step.n_readings = 20;
    if ((step.kind == PLAN_ISOBAR || step.kind == PLAN_DEFLATE) && plan->n_steps > 0)
        step.pressure_gpa_target = plan->steps[plan->n_steps - 1].pressure_gpa_target;
    int code = record_read(list, call, FIELDS[make].fields, FIELDS[make].n_fields, &step, err);
    if (code < 0)
        return code;
    if (step.kind == PLAN_ISOBAR && step.n_frames == 0) { /* `frames` is required in a scan: there was none */
        step.n_scans = 0;
        step.frame_time_s = 0;
    }
    if (plan->n_steps == PLAN_STEPS_MAX)
        return record_refuse(list, call, ERR_CONFIG, err, "more than %d steps", PLAN_STEPS_MAX);
    code = check_step(plan, list, call, &step, err);
    if (code < 0)
        return code;
    plan->steps[plan->n_steps++] = step;
    return 0;
}

static enum constructor constructor_of(const struct record_item *call)
{
    int make = 0;
    while (make < MAKE_COUNT && strcmp(CONSTRUCTORS[make], call->key) != 0)
        make++;
    return (enum constructor)make;
}

static int build(struct plan *plan, const struct record_list *list, struct err *err)
{
    bool have_cell = false;
    for (int32_t i = 0; i < list->n_items; i++) {
        if (list->items[i].type != RECORD_CALL)
            continue;
        enum constructor make = constructor_of(&list->items[i]);
        if (make == MAKE_COUNT)
            return record_refuse(list, i, ERR_SYSTEM, err, "not a word of a sequence");
        if ((make == MAKE_CELL) == have_cell)
            return record_refuse(list, i, ERR_CONFIG, err,
                                 have_cell ? "given twice; one sequence is for one cell"
                                           : "expected cell { ... } before the first step");
        int code = have_cell ? add_step(plan, list, i, make, err) : plan_read_cell(&plan->cell, list, i, err);
        if (code < 0)
            return code;
        have_cell = true;
    }
    if (plan->n_steps == 0)
        return err_set(err, ERR_CONFIG, "%s: no steps; expected cell { ... }, preloaded { ... } and what follows",
                       list->file);
    return 0;
}

/* ---- canonical text and hash --------------------------------------------------------------------------------- */

static void print_text(FILE *stream, const char *key, const char *text)
{
    fprintf(stream, " %s=\"", key);
    for (; *text; text++)
        fprintf(stream, *text == '"' || *text == '\\' ? "\\%c" : "%c", *text);
    fprintf(stream, "\"");
}

static void print_step(FILE *stream, int32_t step_index, const struct plan_step *step)
{
    fprintf(stream, "%d %s pressure_gpa_target=%.17g", step_index, plan_kind_name(step->kind),
            step->pressure_gpa_target);
    if (step->kind == PLAN_LOAD || step->kind == PLAN_UNLOAD)
        fprintf(stream, " rate_bar_per_min=%.17g back_off=%s", step->rate_bar_per_min, BACK_OFFS[step->back_off]);
    if (step->kind == PLAN_ISOBAR)
        fprintf(stream,
                " duration_s=%.17g n_scans=%d n_frames=%d frame_time_s=%.17g drift_gpa_max=%.17g drift_correction=%s",
                step->duration_s, step->n_scans, step->n_frames, step->frame_time_s, step->drift_gpa_max,
                DRIFT_CORRECTIONS[step->drift_correction]);
    if (step->kind == PLAN_CALIBRATE_RUBY)
        fprintf(stream, " n_readings=%d", step->n_readings);
    fprintf(stream, "\n");
}

void plan_print(const struct plan *plan, FILE *stream)
{
    const struct plan_cell *cell = &plan->cell;
    fprintf(stream, "cell");
    print_text(stream, "name", cell->name);
    fprintf(stream, " culet_um=%.17g", cell->culet_um);
    print_text(stream, "gasket", cell->gasket);
    print_text(stream, "medium", cell->medium);
    fprintf(stream, " hydrostatic_gpa_max=%.17g pressure_gpa_max=%.17g membrane_bar_max=%.17g\n",
            cell->hydrostatic_gpa_max, cell->pressure_gpa_max, cell->membrane_bar_max);
    for (int32_t i = 0; i < plan->n_steps; i++)
        print_step(stream, i, &plan->steps[i]);
}

static int hash_plan(struct plan *plan, struct err *err)
{
    char *text = NULL;
    size_t n_bytes = 0;
    FILE *stream = open_memstream(&text, &n_bytes);
    if (stream)
        plan_print(plan, stream);
    if (!stream || fclose(stream) != 0) {
        free(text);
        return err_set(err, ERR_SYSTEM, "no memory to print the plan");
    }
    plan->hash = UINT64_C(0xcbf29ce484222325);
    for (size_t i = 0; i < n_bytes; i++)
        plan->hash = (plan->hash ^ (unsigned char)text[i]) * UINT64_C(0x100000001b3);
    free(text);
    return 0;
}

int plan_read(struct plan *ret_plan, const char *text, const char *name, struct err *err)
{
    static const struct sandbox_rules RULES = {.what = "sequence",
                                               .constructors = CONSTRUCTORS,
                                               .n_constructors = MAKE_COUNT,
                                               .n_calls_max = PLAN_STEPS_MAX + 1};
    struct plan *plan = calloc(1, sizeof *plan);
    struct record_list *list = NULL;
    if (!plan)
        return err_set(err, ERR_SYSTEM, "no memory for the plan of %s", name);
    int code = 0;
    if (strlen(text) < sizeof plan->source)
        memcpy(plan->source, text, strlen(text) + 1);
    else
        code = err_set(err, ERR_CONFIG, "%s is longer than %zu bytes", name, sizeof plan->source - 1);
    if (code == 0)
        code = sandbox_evaluate(&list, plan->source, name, &RULES, err);
    if (code == 0)
        code = build(plan, list, err);
    if (code == 0)
        code = hash_plan(plan, err);
    if (code == 0)
        *ret_plan = *plan;
    free(list);
    free(plan);
    return code;
}

int plan_load(struct plan *ret_plan, const char *path, struct err *err)
{
    char *text = malloc(PLAN_TEXT_MAX);
    if (!text)
        return err_set(err, ERR_SYSTEM, "no memory for the plan of %s", path);
    int code = sandbox_read_file(text, PLAN_TEXT_MAX, path, err);
    if (code == 0)
        code = plan_read(ret_plan, text, path, err);
    free(text);
    return code;
}

/* ---- how long it takes --------------------------------------------------------------------------------------- */

/* Membranes need this much gas for a GPa; friction makes the way down as long as the way up. */
#define BAR_PER_GPA_MIN 7.0
#define BAR_PER_GPA_MAX 14.0
/* Back-off, recentring and watching after a ramp. */
#define SETTLING_S_MIN (20.0 * 60)
#define SETTLING_S_MAX (60.0 * 60)
/* A few averaged rubies to find the pressure that the hand left. */
#define PRELOADED_S_MIN 10.0
#define PRELOADED_S_MAX 300.0
/* The same for a deflated cell, and the hands that empty the membrane and lock the cell. */
#define DEFLATE_S_MIN 10.0
#define DEFLATE_S_MAX 1800.0
/* Between two readings; and the hands that close the cell and preload it after the calibration. */
#define CALIBRATE_READING_S_MIN 3.0
#define CALIBRATE_READING_S_MAX 6.0
#define CLOSE_S_MAX 3600.0

void plan_estimate_step(const struct plan *plan, int32_t step_index, double *ret_s_min, double *ret_s_max)
{
    assert(step_index >= 0 && step_index < plan->n_steps);
    const struct plan_step *step = &plan->steps[step_index];
    *ret_s_min = PRELOADED_S_MIN;
    *ret_s_max = PRELOADED_S_MAX;
    if (step->kind == PLAN_ISOBAR) {
        *ret_s_min = step->duration_s;
        *ret_s_max = step->duration_s * 1.1;
    } else if (step->kind == PLAN_CALIBRATE_RUBY) {
        *ret_s_min = step->n_readings * CALIBRATE_READING_S_MIN;
        *ret_s_max = step->n_readings * CALIBRATE_READING_S_MAX + CLOSE_S_MAX;
    } else if (step->kind == PLAN_DEFLATE) {
        *ret_s_min = DEFLATE_S_MIN;
        *ret_s_max = DEFLATE_S_MAX;
    } else if (step->kind != PLAN_PRELOADED) {
        assert(step_index > 0);
        double rise_gpa = step->pressure_gpa_target - plan->steps[step_index - 1].pressure_gpa_target;
        double s_per_bar = 60 / step->rate_bar_per_min;
        double way_gpa = rise_gpa < 0 ? -rise_gpa : rise_gpa;
        *ret_s_min = way_gpa * BAR_PER_GPA_MIN * s_per_bar + SETTLING_S_MIN;
        *ret_s_max = way_gpa * BAR_PER_GPA_MAX * s_per_bar + SETTLING_S_MAX;
    }
}

void plan_estimate(const struct plan *plan, double *ret_s_min, double *ret_s_max)
{
    *ret_s_min = *ret_s_max = 0;
    for (int32_t i = 0; i < plan->n_steps; i++) {
        double s_min, s_max;
        plan_estimate_step(plan, i, &s_min, &s_max);
        *ret_s_min += s_min;
        *ret_s_max += s_max;
    }
}
