#include "controller/passport.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "db/store.h"
#include "sequences/record.h"
#include "sequences/sandbox.h"

#define COUNT_OF(array) ((int)(sizeof(array) / sizeof(array)[0]))

/* ---- from a run's database ----------------------------------------------------------------------------------- */

#define UTC_FORMAT "%Y-%m-%dT%H:%M:%SZ"

static void set_measured(struct cell_passport *passport, int64_t utc_ns)
{
    time_t utc_s = (time_t)(utc_ns / NS_PER_S);
    struct tm utc;
    gmtime_r(&utc_s, &utc);
    strftime(passport->measured, sizeof passport->measured, UTC_FORMAT, &utc);
    passport->measured_utc_s = utc_s;
}

/* What the run was recorded with: its cell and its ruler. */
static int read_sources(struct cell_passport *passport, const struct store_rows *rows, struct err *err)
{
    struct plan *plan = malloc(sizeof *plan);
    struct beamline *beamline = malloc(sizeof *beamline);
    int code = plan && beamline ? 0 : err_set(err, ERR_SYSTEM, "no memory for the plan of the run");
    if (code == 0)
        code = plan_read(plan, store_rows_text(rows, 4), "the recorded sequence", err);
    if (code == 0)
        code = beamline_read(beamline, store_rows_text(rows, 5), "the recorded beamline file", err);
    if (code == 0) {
        passport->cell = plan->cell;
        snprintf(passport->scale, sizeof passport->scale, "%s", beamline->ruby.scale);
        passport->lambda0_nm = beamline->ruby.lambda0_nm;
        passport->temperature_k_zero = beamline->ruby.temperature_k_zero;
        if (isfinite(store_rows_real(rows, 6)))
            passport->lambda0_nm = store_rows_real(rows, 6); /* calibrated in this run */
    }
    free(plan);
    free(beamline);
    return code;
}

static int read_run(struct cell_passport *passport, struct store_reader *reader, int64_t *ret_utc_minus_t_ns,
                    struct err *err)
{
    struct store_rows *rows;
    int code = store_rows_open(
        &rows, reader,
        "SELECT uid, clock_source, utc_minus_t_ns, started_t_ns, plan_source, beamline_source, (SELECT max(lambda0_nm) "
        "FROM ruby_calibration WHERE reason IS NULL) FROM run",
        NULL, 0, err);
    if (code < 0)
        return code;
    code = store_rows_next(rows, err);
    if (code == 0)
        code = err_set(err, ERR_DATA, "no run is recorded in this database");
    if (code > 0) {
        bool is_real = strcmp(store_rows_text(rows, 1), "real") == 0;
        snprintf(passport->run, sizeof passport->run, "%s", store_rows_text(rows, 0));
        snprintf(passport->clock, sizeof passport->clock, "%s", is_real ? "real" : "simulated");
        *ret_utc_minus_t_ns = store_rows_integer(rows, 2);
        set_measured(passport, store_rows_integer(rows, 3) + *ret_utc_minus_t_ns);
        code = read_sources(passport, rows, err);
    }
    store_rows_close(rows);
    return code;
}

static int read_branches(struct cell_passport *passport, struct store_reader *reader, int64_t utc_minus_t_ns,
                         struct err *err)
{
    struct store_rows *rows;
    int code = store_rows_open(&rows, reader,
                               "SELECT step_index, direction, pressure_gpa, membrane_bar_near_edge, "
                               "membrane_bar_far_edge, membrane_bar_centre, compliance_bar_s_per_gpa, "
                               "compliance_bar_s_per_gpa_max, edge_bar_per_gpa, half_width_bar, t_ns "
                               "FROM cell_branch ORDER BY step_index",
                               NULL, 0, err);
    if (code < 0)
        return code;
    while (passport->n_branches < CELL_BRANCHES_MAX && (code = store_rows_next(rows, err)) == 1) {
        passport->branches[passport->n_branches++] = (struct cell_branch){
            .step_index = (int32_t)store_rows_integer(rows, 0),
            .direction = (int32_t)store_rows_integer(rows, 1),
            .pressure_gpa = store_rows_real(rows, 2),
            .membrane_bar_near_edge = store_rows_real(rows, 3),
            .membrane_bar_far_edge = store_rows_real(rows, 4),
            .membrane_bar_centre = store_rows_real(rows, 5),
            .compliance_bar_s_per_gpa = store_rows_real(rows, 6),
            .compliance_bar_s_per_gpa_max = store_rows_real(rows, 7),
            .edge_bar_per_gpa = store_rows_real(rows, 8),
            .half_width_bar = store_rows_real(rows, 9),
        };
        set_measured(passport, store_rows_integer(rows, 10) + utc_minus_t_ns);
    }
    store_rows_close(rows);
    return code < 0 ? code : 0;
}

int passport_read_db(struct cell_passport *ret_passport, const char *db_path, struct err *err)
{
    struct store_reader *reader;
    int64_t utc_minus_t_ns = 0;
    struct cell_passport *passport = calloc(1, sizeof *passport);
    if (!passport)
        return err_set(err, ERR_SYSTEM, "no memory for a passport");
    int code = store_reader_open(&reader, db_path, err);
    if (code == 0) {
        code = read_run(passport, reader, &utc_minus_t_ns, err);
        if (code == 0)
            code = read_branches(passport, reader, utc_minus_t_ns, err);
        store_reader_close(reader);
    }
    if (code == 0) {
        cell_estimate_branches(passport->branches, passport->n_branches, &passport->estimate, &passport->sigma);
        *ret_passport = *passport;
    }
    free(passport);
    return code;
}

/* ---- the file ------------------------------------------------------------------------------------------------ */

enum constructor { MAKE_CELL, MAKE_PASSPORT, MAKE_BRANCH, MAKE_COUNT };

static const char *const CONSTRUCTORS[MAKE_COUNT] = {"cell", "cell_passport", "cell_branch"};

#define TEXT(key) RECORD_FIELD(#key, RECORD_WORD, true, struct cell_passport, key, 0, 0)
#define ESTIMATE(key, min, max) RECORD_FIELD(#key, RECORD_PLAIN, false, struct cell_passport, estimate.key, min, max)
#define SIGMA(key, max) RECORD_FIELD(#key "_sigma", RECORD_PLAIN, false, struct cell_passport, sigma.key, 0, max)
#define WHOLE(key, min, max) RECORD_FIELD(#key, RECORD_COUNT, true, struct cell_branch, key, min, max)
#define BRANCH(key, min, max) RECORD_FIELD(#key, RECORD_PLAIN, false, struct cell_branch, key, min, max)

/* Ranges that refuse slips of the pen, far beyond any cell; a line drawn to no pressure may end below it. */
static const struct record_field PASSPORT_FIELDS[] = {
    TEXT(run),
    TEXT(measured),
    TEXT(clock),
    TEXT(scale),
    RECORD_FIELD("lambda0_nm", RECORD_PLAIN, true, struct cell_passport, lambda0_nm, 690, 698),
    RECORD_FIELD("temperature_k_zero", RECORD_PLAIN, true, struct cell_passport, temperature_k_zero, 4, 1000),
    RECORD_FIELD("n_branches", RECORD_COUNT, true, struct cell_passport, n_branches, 0, CELL_BRANCHES_MAX),
    ESTIMATE(takeup_bar, -250, 250),
    SIGMA(takeup_bar, 1e6),
    ESTIMATE(gpa_per_bar, 1e-4, 10),
    SIGMA(gpa_per_bar, 1e3),
    ESTIMATE(compliance_bar_s_per_gpa, 0, 1e7),
    SIGMA(compliance_bar_s_per_gpa, 1e8),
    ESTIMATE(creep_s, 0, 1e6),
    SIGMA(creep_s, 1e8),
    ESTIMATE(creep_s_max, 0, 1e6),
    ESTIMATE(half_width_bar, -250, 250),
    SIGMA(half_width_bar, 1e6),
    ESTIMATE(half_width_bar_per_gpa, -250, 250),
    SIGMA(half_width_bar_per_gpa, 1e6),
};

static const struct record_field BRANCH_FIELDS[] = {
    WHOLE(step_index, 0, PLAN_STEPS_MAX - 1), WHOLE(direction, -1, 1),
    BRANCH(pressure_gpa, -10, 200),           BRANCH(membrane_bar_near_edge, -500, 500),
    BRANCH(membrane_bar_far_edge, -500, 500), BRANCH(membrane_bar_centre, -500, 500),
    BRANCH(compliance_bar_s_per_gpa, 0, 1e7), BRANCH(compliance_bar_s_per_gpa_max, 0, 1e7),
    BRANCH(edge_bar_per_gpa, 0, 1000),        BRANCH(half_width_bar, 0, 250),
};

static const struct cell_estimate UNKNOWN = {NAN, NAN, NAN, NAN, NAN, NAN, NAN};

static int read_branch(struct cell_passport *passport, const struct record_list *list, int32_t call, int n_before,
                       struct err *err)
{
    if (n_before == CELL_BRANCHES_MAX)
        return record_refuse(list, call, ERR_CONFIG, err, "more than %d branches", CELL_BRANCHES_MAX);
    struct cell_branch *branch = &passport->branches[n_before];
    *branch = (struct cell_branch){0, 0, NAN, NAN, NAN, NAN, NAN, NAN, NAN, NAN};
    return record_read(list, call, BRANCH_FIELDS, COUNT_OF(BRANCH_FIELDS), branch, err);
}

static int read_call(struct cell_passport *passport, const struct record_list *list, int32_t call, int *n_of,
                     struct err *err)
{
    int make = 0;
    while (make < MAKE_COUNT && strcmp(CONSTRUCTORS[make], list->items[call].key) != 0)
        make++;
    if (make == MAKE_COUNT)
        return record_refuse(list, call, ERR_SYSTEM, err, "not a word of a passport");
    int n_before = n_of[make]++;
    if (make == MAKE_BRANCH)
        return read_branch(passport, list, call, n_before, err);
    if (n_before > 0)
        return record_refuse(list, call, ERR_CONFIG, err, "given twice; one passport is of one cell");
    if (make == MAKE_CELL)
        return plan_read_cell(&passport->cell, list, call, err);
    return record_read(list, call, PASSPORT_FIELDS, COUNT_OF(PASSPORT_FIELDS), passport, err);
}

/* What the fields' own ranges do not say. */
static int check_passport(struct cell_passport *passport, const char *file, const int *n_of, struct err *err)
{
    struct tm utc = {0};
    if (n_of[MAKE_CELL] == 0 || n_of[MAKE_PASSPORT] == 0)
        return err_set(err, ERR_CONFIG, "%s: not a passport: expected cell { ... } and cell_passport { ... }", file);
    if (n_of[MAKE_BRANCH] != passport->n_branches)
        return err_set(err, ERR_CONFIG,
                       "%s: the passport is cut: it says n_branches = %d and holds %d; export it again", file,
                       passport->n_branches, n_of[MAKE_BRANCH]);
    if (strcmp(passport->clock, "real") != 0 && strcmp(passport->clock, "simulated") != 0)
        return err_set(err, ERR_CONFIG, "%s: cell_passport: clock = \"%s\": expected \"real\" or \"simulated\"", file,
                       passport->clock);
    const char *rest = strptime(passport->measured, UTC_FORMAT, &utc);
    if (!rest || *rest)
        return err_set(err, ERR_CONFIG,
                       "%s: cell_passport: measured = \"%s\": expected UTC, like \"2026-11-22T04:00:00Z\"", file,
                       passport->measured);
    passport->measured_utc_s = timegm(&utc);
    return 0;
}

static int build(struct cell_passport *passport, const struct record_list *list, struct err *err)
{
    int n_of[MAKE_COUNT] = {0}, code = 0;
    passport->estimate = passport->sigma = UNKNOWN;
    for (int32_t i = 0; i < list->n_items && code == 0; i++)
        if (list->items[i].type == RECORD_CALL)
            code = read_call(passport, list, i, n_of, err);
    return code ? code : check_passport(passport, list->file, n_of, err);
}

int passport_read_file(struct cell_passport *ret_passport, const char *path, struct err *err)
{
    static const struct sandbox_rules RULES = {.what = "passport",
                                               .constructors = CONSTRUCTORS,
                                               .n_constructors = MAKE_COUNT,
                                               .n_calls_max = CELL_BRANCHES_MAX + 2};
    struct record_list *list = NULL;
    struct cell_passport *passport = calloc(1, sizeof *passport);
    char *text = malloc(PLAN_TEXT_MAX);
    int code = passport && text ? 0 : err_set(err, ERR_SYSTEM, "no memory for the passport %s", path);
    if (code == 0)
        code = sandbox_read_file(text, PLAN_TEXT_MAX, path, err);
    if (code == 0)
        code = sandbox_evaluate(&list, text, path, &RULES, err);
    if (code == 0)
        code = build(passport, list, err);
    if (code == 0)
        *ret_passport = *passport;
    free(list);
    free(text);
    free(passport);
    return code;
}

int passport_read_for_run(struct cell_passport *ret_passport, const char *path, const struct plan *plan,
                          const struct beamline *beamline, struct err *err)
{
    struct cell_passport *passport = malloc(sizeof *passport);
    if (!passport)
        return err_set(err, ERR_SYSTEM, "no memory for the passport %s", path);
    int code = passport_read_file(passport, path, err);
    if (code == 0 && (code = cell_check_plan(passport, plan, err)) < 0)
        err_prefix(err, "%s", path);
    if (code == 0 && beamline && (code = cell_check_ruler(passport, beamline, err)) < 0)
        err_prefix(err, "%s", path);
    if (code == 0)
        *ret_passport = *passport;
    free(passport);
    return code;
}

/* The fewest digits that read back as the same number. */
static void write_number(FILE *stream, const char *key, double number)
{
    char text[40];
    for (int digits = 6; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, number);
        if (strtod(text, NULL) == number)
            break;
    }
    fprintf(stream, "  %s = %s,\n", key, text);
}

/* What a table of fields would read, written so that it reads back; what is not known is left out. */
static void write_fields(FILE *stream, const struct record_field *fields, int n_fields, const void *base)
{
    for (int i = 0; i < n_fields; i++) {
        const char *member = (const char *)base + fields[i].offset;
        double number;
        int32_t count;
        if (fields[i].unit == RECORD_WORD && *member) {
            fprintf(stream, "  %s = \"", fields[i].key);
            for (; *member; member++)
                fprintf(stream, *member == '"' || *member == '\\' ? "\\%c" : "%c", *member);
            fprintf(stream, "\",\n");
        } else if (fields[i].unit == RECORD_COUNT) {
            memcpy(&count, member, sizeof count);
            fprintf(stream, "  %s = %d,\n", fields[i].key, count);
        } else if (fields[i].unit == RECORD_PLAIN) {
            memcpy(&number, member, sizeof number);
            if (isfinite(number))
                write_number(stream, fields[i].key, number);
        }
    }
}

static void write_passport(const struct cell_passport *passport, FILE *stream)
{
    int n_cell_fields;
    const struct record_field *cell_fields = plan_cell_fields(&n_cell_fields);
    fprintf(stream,
            "-- Passport of a cell; `isobar run --cell FILE` starts from it. The first table is as in a sequence.\n");
    fprintf(stream, "cell {\n");
    write_fields(stream, cell_fields, n_cell_fields, &passport->cell);
    fprintf(stream, "}\n\ncell_passport {\n");
    write_fields(stream, PASSPORT_FIELDS, COUNT_OF(PASSPORT_FIELDS), passport);
    fprintf(stream, "}\n");
    for (int32_t i = 0; i < passport->n_branches; i++) {
        fprintf(stream, "\ncell_branch {\n");
        write_fields(stream, BRANCH_FIELDS, COUNT_OF(BRANCH_FIELDS), &passport->branches[i]);
        fprintf(stream, "}\n");
    }
}

int passport_write_file(const struct cell_passport *passport, const char *path, struct err *err)
{
    FILE *stream = fopen(path, "wx");
    if (!stream)
        return err_set(err, ERR_IO, "passport %s cannot be written: %s%s", path, strerror(errno),
                       errno == EEXIST ? "; choose another name" : "");
    write_passport(passport, stream);
    bool is_bad = fflush(stream) != 0 || ferror(stream) != 0 || fsync(fileno(stream)) != 0;
    int cause = errno;
    is_bad = fclose(stream) != 0 || is_bad;
    if (!is_bad)
        return 0;
    unlink(path); /* ours: "wx" has just made it */
    return err_set(err, ERR_IO, "passport %s cannot be written: %s; check the disk", path, strerror(cause));
}

/* ---- for people ---------------------------------------------------------------------------------------------- */

/* A number in a column, or a dash where nothing is known. */
static void print_number(FILE *stream, int width, int decimals, double value)
{
    if (isnan(value))
        fprintf(stream, "%*s", width, "-");
    else
        fprintf(stream, "%*.*f", width, decimals, value);
}

static void print_branch(FILE *stream, const struct cell_branch *branch)
{
    static const char *const changes[] = {"unload", "deflate", "load"};
    bool is_load = branch->direction > 0;
    double upper_bar = is_load ? branch->membrane_bar_near_edge : branch->membrane_bar_far_edge;
    double lower_bar = is_load ? branch->membrane_bar_far_edge : branch->membrane_bar_near_edge;
    fprintf(stream, "  %4d  %-7s", branch->step_index + 1, changes[branch->direction + 1]);
    print_number(stream, 9, 3, branch->pressure_gpa);
    print_number(stream, 9, 1, lower_bar);
    print_number(stream, 9, 1, upper_bar);
    print_number(stream, 9, 1, branch->half_width_bar);
    print_number(stream, 9, 1, branch->membrane_bar_centre);
    print_number(stream, 11, 0, branch->compliance_bar_s_per_gpa);
    print_number(stream, 10, 0, branch->compliance_bar_s_per_gpa_max);
    print_number(stream, 9, 1, branch->edge_bar_per_gpa);
    fprintf(stream, "\n");
}

struct column {
    const char *label;
    struct cell_estimate sigma;
};

/* One line per estimate: the value and its sigma in each column. */
static void print_estimates(FILE *stream, const struct cell_estimate *estimate, const struct column *columns,
                            int n_columns)
{
    static const struct {
        const char *label, *unit;
        size_t offset;
        double scale;
        int decimals;
    } LINES[] = {
        {"take-up", "bar", offsetof(struct cell_estimate, takeup_bar), 1.0, 1},
        {"stiffness", "GPa per bar", offsetof(struct cell_estimate, gpa_per_bar), 1.0, 4},
        {"compliance", "bar s/GPa", offsetof(struct cell_estimate, compliance_bar_s_per_gpa), 1.0, 0},
        {"creep time", "min", offsetof(struct cell_estimate, creep_s), 1.0 / 60.0, 1},
        {"  cautiously", "min", offsetof(struct cell_estimate, creep_s_max), 1.0 / 60.0, 1},
        {"dead zone, half width", "bar at no pressure", offsetof(struct cell_estimate, half_width_bar), 1.0, 1},
        {"  growing by", "bar per GPa", offsetof(struct cell_estimate, half_width_bar_per_gpa), 1.0, 2},
    };
    fprintf(stream, "%55s", "");
    for (int c = 0; c < n_columns; c++)
        fprintf(stream, "%17s", columns[c].label);
    fprintf(stream, "\n");
    for (int i = 0; i < COUNT_OF(LINES); i++) {
        double value, sigma;
        memcpy(&value, (const char *)estimate + LINES[i].offset, sizeof value);
        fprintf(stream, "  %-22s", LINES[i].label);
        print_number(stream, 10, LINES[i].decimals, value * LINES[i].scale);
        fprintf(stream, " %-19s", LINES[i].unit);
        for (int c = 0; c < n_columns; c++) {
            memcpy(&sigma, (const char *)&columns[c].sigma + LINES[i].offset, sizeof sigma);
            print_number(stream, 17, LINES[i].decimals, sigma * LINES[i].scale);
        }
        fprintf(stream, "\n");
    }
}

static void print_cell(const struct cell_passport *passport, FILE *stream)
{
    const struct plan_cell *cell = &passport->cell;
    fprintf(stream, "cell %s: culet %g um, gasket %s, medium %s, at most %g GPa and %g bar\n",
            cell->name[0] ? cell->name : "without a name", cell->culet_um, cell->gasket[0] ? cell->gasket : "not given",
            cell->medium, cell->pressure_gpa_max, cell->membrane_bar_max);
    if (isfinite(cell->hydrostatic_gpa_max))
        fprintf(stream, "hydrostatic to %g GPa\n", cell->hydrostatic_gpa_max);
    else
        fprintf(stream, "no hydrostatic limit known for this medium\n");
    fprintf(stream, "run %s, measured %s, %s\n", passport->run, passport->measured,
            strcmp(passport->clock, "real") == 0 ? "on instruments" : "SIMULATED: no property of any real cell");
    fprintf(stream, "ruby scale %s, lambda0 %.3f nm at %g K\n", passport->scale, passport->lambda0_nm,
            passport->temperature_k_zero);
}

void passport_print(const struct cell_passport *passport, int64_t utc_s, FILE *stream)
{
    print_cell(passport, stream);
    if (passport->n_branches == 0) {
        fprintf(stream, "no pressure change is complete: nothing is known yet\n");
        return;
    }
    fprintf(stream, "\n                 ruby        dead zone, bar              membrane  compliance            edge\n"
                    "  step  change        GPa    lower    upper   half w.      bar  bar s/GPa  cautious  bar/GPa\n");
    for (int32_t i = 0; i < passport->n_branches; i++)
        print_branch(stream, &passport->branches[i]);
    fprintf(stream, "\n");
    double days = fmax(0.0, (double)(utc_s - passport->measured_utc_s) / 86400.0);
    struct column columns[] = {
        {.label = "+- as measured", .sigma = passport->sigma}, {.label = "+- now"}, {.label = "+- loaded anew"}};
    cell_grow_sigma(passport, &(struct cell_age){.days = days}, &columns[1].sigma);
    cell_grow_sigma(passport, &(struct cell_age){.days = days, .n_reloadings = 1}, &columns[2].sigma);
    print_estimates(stream, &passport->estimate, columns, COUNT_OF(columns));
}

void passport_print_known(const struct cell_passport *passport, const struct cell_age *age, FILE *stream)
{
    print_cell(passport, stream);
    fprintf(stream, "for this run %.1f days old and %s\n", age->days,
            age->n_reloadings ? "loaded anew since" : "not loaded anew since");
    struct column columns[] = {{.label = "+- as measured", .sigma = passport->sigma}, {.label = "+- for this run"}};
    cell_grow_sigma(passport, age, &columns[1].sigma);
    print_estimates(stream, &passport->estimate, columns, COUNT_OF(columns));
}

void passport_describe(const struct cell_passport *passport, const char *path, const struct cell_age *age, bool is_real,
                       char *ret_text, size_t size)
{
    struct loading_cell cell;
    char known[256] = "it does not tell enough: the run begins as with an unknown cell";
    cell_know(passport, age, &cell);
    if (cell.is_known)
        snprintf(
            known, sizeof known,
            "compliance %.0f +- %.0f bar s/GPa, take-up %.1f +- %.1f bar and %.1f +- %.1f bar/GPa, dead zone's half "
            "width %.1f +- %.1f bar and %.2f +- %.2f bar/GPa",
            cell.compliance_bar_s_per_gpa, cell.compliance_bar_s_per_gpa_sigma, cell.takeup_bar, cell.takeup_bar_sigma,
            cell.bar_per_gpa, cell.bar_per_gpa_sigma, cell.half_width_bar, cell.half_width_bar_sigma,
            cell.half_width_bar_per_gpa, cell.half_width_bar_per_gpa_sigma);
    bool is_foreign = !is_real && strcmp(passport->clock, "real") == 0;
    snprintf(ret_text, size, "cell's passport %s, run %s, measured %s, %.1f days old, %s: %s%s", path, passport->run,
             passport->measured, age->days, age->n_reloadings ? "loaded anew since" : "not loaded anew since", known,
             is_foreign ? "; note: it is of a real cell, and this run is simulated" : "");
}
