#include "controller/cell.h"

#include <errno.h>
#include <inttypes.h>
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

/* ---- estimates ----------------------------------------------------------------------------------------------- */

/* The edges are u = takeup + bar_per_gpa p + side (half_width + half_width_per_gpa p), side +1 upper, -1 lower: four
 * unknowns, weighted least squares over all that the branches say of them. */
enum { U_TAKEUP, U_BAR_PER_GPA, U_WIDTH, U_WIDTH_PER_GPA, U_COUNT };

/* The near edge is computed from a slide of many minutes; the far edge from the first sign of a drop, which a slip of
 * the cell can give too early; the slope of the edge comes from the slide itself. */
#define NEAR_BAR_SIGMA 1.0
#define FAR_BAR_SIGMA 3.0
#define EDGE_BAR_PER_GPA_SIGMA 0.5
/* So wide that it matters only where the branches say nothing of the dead zone. */
static const struct {
    double value, sigma;
} WIDTH_PRIOR = {5.0, 10.0}, WIDTH_PER_GPA_PRIOR = {1.0, 3.0};

struct equations {
    double m[U_COUNT][U_COUNT + 1]; /* normal matrix and right side */
};

static void equations_add(struct equations *equations, const double *x, double y, double sigma)
{
    if (isnan(y))
        return;
    double weight = 1.0 / (sigma * sigma);
    for (int i = 0; i < U_COUNT; i++) {
        for (int j = 0; j < U_COUNT; j++)
            equations->m[i][j] += weight * x[i] * x[j];
        equations->m[i][U_COUNT] += weight * x[i] * y;
    }
}

/* Gauss and Jordan on a symmetric positive matrix; false when it is singular. */
static bool equations_solve(struct equations *equations, double *ret_solution)
{
    for (int k = 0; k < U_COUNT; k++) {
        double *row = equations->m[k], pivot = row[k];
        if (!(pivot > 1e-6))
            return false;
        for (int j = 0; j <= U_COUNT; j++)
            row[j] /= pivot;
        for (int i = 0; i < U_COUNT; i++) {
            double factor = equations->m[i][k];
            for (int j = 0; j <= U_COUNT && i != k; j++)
                equations->m[i][j] -= factor * row[j];
        }
    }
    for (int i = 0; i < U_COUNT; i++)
        ret_solution[i] = equations->m[i][U_COUNT];
    return true;
}

static void add_branch(struct equations *equations, const struct cell_branch *branch)
{
    double p = branch->pressure_gpa, side = branch->direction;
    if (side == 0.0)
        return;
    equations_add(equations, (double[]){0.0, 1.0, 0.0, side}, branch->edge_bar_per_gpa, EDGE_BAR_PER_GPA_SIGMA);
    if (isnan(p))
        return;
    equations_add(equations, (double[]){1.0, p, side, side * p}, branch->membrane_bar_near_edge, NEAR_BAR_SIGMA);
    equations_add(equations, (double[]){1.0, p, -side, -side * p}, branch->membrane_bar_far_edge, FAR_BAR_SIGMA);
}

/* Mean of one member over the branches that have it; NaN: none has. */
static double mean_of(const struct cell_branch *branches, int32_t n_branches, size_t offset)
{
    double sum = 0.0, value;
    int n = 0;
    for (int32_t i = 0; i < n_branches; i++) {
        memcpy(&value, (const char *)&branches[i] + offset, sizeof value);
        if (branches[i].direction == 0 || isnan(value))
            continue;
        sum += value;
        n++;
    }
    return n ? sum / n : NAN;
}

void cell_estimate_branches(const struct cell_branch *branches, int32_t n_branches, struct cell_estimate *ret_estimate)
{
    struct equations equations = {0};
    double solution[U_COUNT];
    *ret_estimate = (struct cell_estimate){NAN, NAN, NAN, NAN, NAN, NAN};
    for (int32_t i = 0; i < n_branches; i++)
        add_branch(&equations, &branches[i]);
    equations_add(&equations, (double[]){0.0, 0.0, 1.0, 0.0}, WIDTH_PRIOR.value, WIDTH_PRIOR.sigma);
    equations_add(&equations, (double[]){0.0, 0.0, 0.0, 1.0}, WIDTH_PER_GPA_PRIOR.value, WIDTH_PER_GPA_PRIOR.sigma);
    if (!equations_solve(&equations, solution) || !(solution[U_BAR_PER_GPA] > 0.0))
        return;
    double gpa_per_bar = 1.0 / solution[U_BAR_PER_GPA];
    *ret_estimate = (struct cell_estimate){
        .takeup_bar = solution[U_TAKEUP],
        .gpa_per_bar = gpa_per_bar,
        .creep_s = gpa_per_bar * mean_of(branches, n_branches, offsetof(struct cell_branch, compliance_bar_s_per_gpa)),
        .creep_s_max =
            gpa_per_bar * mean_of(branches, n_branches, offsetof(struct cell_branch, compliance_bar_s_per_gpa_max)),
        .half_width_bar = solution[U_WIDTH],
        .half_width_bar_per_gpa = solution[U_WIDTH_PER_GPA],
    };
}

/* ---- from a run's database ----------------------------------------------------------------------------------- */

static void format_utc(int64_t utc_ns, char *ret_text, size_t size)
{
    time_t utc_s = (time_t)(utc_ns / NS_PER_S);
    struct tm utc;
    gmtime_r(&utc_s, &utc);
    strftime(ret_text, size, "%Y-%m-%dT%H:%M:%SZ", &utc);
}

static int read_run(struct cell_passport *passport, struct store_reader *reader, int64_t *ret_utc_minus_t_ns,
                    struct err *err)
{
    struct store_rows *rows;
    struct plan *plan = malloc(sizeof *plan);
    if (!plan)
        return err_set(err, ERR_SYSTEM, "no memory for the plan of the run");
    int code = store_rows_open(
        &rows, reader, "SELECT uid, clock_source, utc_minus_t_ns, started_t_ns, plan_source FROM run", NULL, 0, err);
    if (code < 0) {
        free(plan);
        return code;
    }
    code = store_rows_next(rows, err);
    if (code == 0)
        code = err_set(err, ERR_DATA, "no run is recorded in this database");
    if (code > 0) {
        bool is_real = strcmp(store_rows_text(rows, 1), "real") == 0;
        snprintf(passport->run, sizeof passport->run, "%s", store_rows_text(rows, 0));
        snprintf(passport->clock, sizeof passport->clock, "%s", is_real ? "real" : "simulated");
        *ret_utc_minus_t_ns = store_rows_integer(rows, 2);
        format_utc(store_rows_integer(rows, 3) + *ret_utc_minus_t_ns, passport->measured, sizeof passport->measured);
        code = plan_read(plan, store_rows_text(rows, 4), "the recorded sequence", err);
        passport->cell = plan->cell;
    }
    store_rows_close(rows);
    free(plan);
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
        format_utc(store_rows_integer(rows, 10) + utc_minus_t_ns, passport->measured, sizeof passport->measured);
    }
    store_rows_close(rows);
    return code < 0 ? code : 0;
}

int cell_read_db(struct cell_passport *ret_passport, const char *db_path, struct err *err)
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
        cell_estimate_branches(passport->branches, passport->n_branches, &passport->estimate);
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
#define WHOLE(key, min, max) RECORD_FIELD(#key, RECORD_COUNT, true, struct cell_branch, key, min, max)
#define BRANCH(key, min, max) RECORD_FIELD(#key, RECORD_PLAIN, false, struct cell_branch, key, min, max)

/* Ranges that refuse slips of the pen, far beyond any cell; a line drawn to no pressure may end below it. */
static const struct record_field PASSPORT_FIELDS[] = {
    TEXT(run),
    TEXT(measured),
    TEXT(clock),
    ESTIMATE(takeup_bar, -250, 250),
    ESTIMATE(gpa_per_bar, 1e-4, 10),
    ESTIMATE(creep_s, 0, 1e6),
    ESTIMATE(creep_s_max, 0, 1e6),
    ESTIMATE(half_width_bar, -250, 250),
    ESTIMATE(half_width_bar_per_gpa, -250, 250),
};

static const struct record_field BRANCH_FIELDS[] = {
    WHOLE(step_index, 0, PLAN_STEPS_MAX - 1), WHOLE(direction, -1, 1),
    BRANCH(pressure_gpa, -10, 200),           BRANCH(membrane_bar_near_edge, -500, 500),
    BRANCH(membrane_bar_far_edge, -500, 500), BRANCH(membrane_bar_centre, -500, 500),
    BRANCH(compliance_bar_s_per_gpa, 0, 1e7), BRANCH(compliance_bar_s_per_gpa_max, 0, 1e7),
    BRANCH(edge_bar_per_gpa, 0, 1000),        BRANCH(half_width_bar, 0, 250),
};

static int read_call(struct cell_passport *passport, const struct record_list *list, int32_t call, int *n_of,
                     struct err *err)
{
    int make = 0;
    while (make < MAKE_COUNT && strcmp(CONSTRUCTORS[make], list->items[call].key) != 0)
        make++;
    if (make == MAKE_COUNT)
        return record_refuse(list, call, ERR_SYSTEM, err, "not a word of a passport");
    if (n_of[make]++ > 0 && make != MAKE_BRANCH)
        return record_refuse(list, call, ERR_CONFIG, err, "given twice; one passport is of one cell");
    if (make == MAKE_CELL)
        return plan_read_cell(&passport->cell, list, call, err);
    if (make == MAKE_PASSPORT)
        return record_read(list, call, PASSPORT_FIELDS, COUNT_OF(PASSPORT_FIELDS), passport, err);
    if (passport->n_branches == CELL_BRANCHES_MAX)
        return record_refuse(list, call, ERR_CONFIG, err, "more than %d branches", CELL_BRANCHES_MAX);
    struct cell_branch branch = {0, 0, NAN, NAN, NAN, NAN, NAN, NAN, NAN, NAN};
    int code = record_read(list, call, BRANCH_FIELDS, COUNT_OF(BRANCH_FIELDS), &branch, err);
    passport->branches[passport->n_branches++] = branch;
    return code;
}

static int build(struct cell_passport *passport, const struct record_list *list, struct err *err)
{
    int n_of[MAKE_COUNT] = {0}, code = 0;
    passport->estimate = (struct cell_estimate){NAN, NAN, NAN, NAN, NAN, NAN};
    for (int32_t i = 0; i < list->n_items && code == 0; i++)
        if (list->items[i].type == RECORD_CALL)
            code = read_call(passport, list, i, n_of, err);
    if (code == 0 && (n_of[MAKE_CELL] == 0 || n_of[MAKE_PASSPORT] == 0))
        code =
            err_set(err, ERR_CONFIG, "%s: not a passport: expected cell { ... } and cell_passport { ... }", list->file);
    if (code == 0 && strcmp(passport->clock, "real") != 0 && strcmp(passport->clock, "simulated") != 0)
        code = err_set(err, ERR_CONFIG, "%s: cell_passport: clock = \"%s\": expected \"real\" or \"simulated\"",
                       list->file, passport->clock);
    return code;
}

int cell_read_file(struct cell_passport *ret_passport, const char *path, struct err *err)
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
            "-- Passport of a cell; read it with `isobar cell --import FILE`. The first table is as in a sequence.\n");
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

int cell_write_file(const struct cell_passport *passport, const char *path, struct err *err)
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

static void print_quantity(FILE *stream, const char *label, int decimals, double value, const char *unit)
{
    fprintf(stream, "%s", label);
    if (isnan(value))
        fprintf(stream, "not known");
    else
        fprintf(stream, "%.*f %s", decimals, value, unit);
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

static void print_estimate(FILE *stream, const struct cell_estimate *estimate)
{
    print_quantity(stream, "take-up ", 1, estimate->takeup_bar, "bar");
    print_quantity(stream, "; ", 4, estimate->gpa_per_bar, "GPa per bar");
    print_quantity(stream, "; creep time ", 1, estimate->creep_s / 60.0, "min");
    print_quantity(stream, ", cautiously ", 1, estimate->creep_s_max / 60.0, "min");
    print_quantity(stream, "\ndead zone: half width ", 1, estimate->half_width_bar, "bar at no pressure");
    print_quantity(stream, ", growing by ", 2, estimate->half_width_bar_per_gpa, "bar per GPa");
    fprintf(stream, "\n");
}

void cell_print(const struct cell_passport *passport, FILE *stream)
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
    if (passport->n_branches == 0)
        fprintf(stream, "no pressure change is complete: nothing is known yet\n");
    else
        fprintf(stream,
                "\n                 ruby        dead zone, bar              membrane  compliance            edge\n"
                "  step  change        GPa    lower    upper   half w.      bar  bar s/GPa  cautious  bar/GPa\n");
    for (int32_t i = 0; i < passport->n_branches; i++)
        print_branch(stream, &passport->branches[i]);
    if (passport->n_branches > 0) {
        fprintf(stream, "\n");
        print_estimate(stream, &passport->estimate);
    }
}
