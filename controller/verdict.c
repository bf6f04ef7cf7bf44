#include "controller/verdict.h"

#include <assert.h>
#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "controller/json.h"
#include "db/store.h"
#include "sequences/plan.h"

#define OVERSHOOT_GPA_MAX 0.05
#define LAMBDA0_NM_MAX 0.005 /* of the thermometer, 0.3 K, and three sigmas of the line */
#define LOCKED_GPA_MAX 0.05
#define TAU_RELATIVE_MAX 0.15
#define BETA_ABSOLUTE_MAX 0.2
#define TAU_PER_SCAN_MAX (1.0 / 3.0)
#define TRUE_SCANS_MAX 512

struct truth_cell {
    int64_t t_ns;
    double pressure_gpa, wall_s;
};

struct truth_scan {
    char master[256]; /* file name without folders */
    double tau_s, beta, contrast, photons_per_pixel;
    double n_frames_shadowed, n_frames_lit; /* by the ruby's optics in the beam, by its laser */
};

struct truth {
    struct truth_cell *cells;
    size_t n_cells, size_cells;
    struct truth_scan scans[TRUE_SCANS_MAX];
    int n_scans;
    double lambda0_nm; /* of the ruby, at 296 K */
};

struct isobar_row {
    int step_index;
    int64_t change_ns, start_ns, end_ns; /* when the change before it began; its own start and end */
    double target_gpa, start_gpa, end_gpa, departure_gpa, drift_gpa_max;
    bool is_loading, is_locked;
};

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

static void add_truth(struct truth *truth, const char *line)
{
    char kind[16];
    json_text(line, "kind", kind, sizeof kind);
    if (strcmp(kind, "cell") == 0) {
        if (truth->n_cells == truth->size_cells) {
            truth->size_cells = truth->size_cells ? 2 * truth->size_cells : 4096;
            truth->cells = realloc(truth->cells, truth->size_cells * sizeof *truth->cells);
            assert(truth->cells);
        }
        truth->cells[truth->n_cells++] = (struct truth_cell){.t_ns = (int64_t)json_number(line, "t_ns"),
                                                             .pressure_gpa = json_number(line, "pressure_gpa"),
                                                             .wall_s = json_number(line, "wall_s")};
    } else if (strcmp(kind, "ruby") == 0) {
        truth->lambda0_nm = json_number(line, "lambda0_nm");
    } else if (strcmp(kind, "scan") == 0 && truth->n_scans < TRUE_SCANS_MAX) {
        struct truth_scan *scan = &truth->scans[truth->n_scans++];
        char master[1024];
        json_text(line, "master", master, sizeof master);
        snprintf(scan->master, sizeof scan->master, "%s", base_name(master));
        scan->tau_s = json_number(line, "tau_s");
        scan->beta = json_number(line, "beta");
        scan->contrast = json_number(line, "contrast");
        scan->photons_per_pixel = json_number(line, "photons_per_pixel");
        scan->n_frames_shadowed = json_number(line, "n_frames_shadowed");
        scan->n_frames_lit = json_number(line, "n_frames_lit");
    }
}

static int read_truth(struct truth *truth, const char *path, struct err *err)
{
    FILE *stream = fopen(path, "r");
    if (!stream)
        return err_set(err, ERR_IO, "%s cannot be read: %s", path, strerror(errno));
    char line[8192];
    while (fgets(line, sizeof line, stream))
        add_truth(truth, line);
    fclose(stream);
    return truth->n_cells ? 0 : err_set(err, ERR_DATA, "%s holds no pressures: the simulator wrote nothing", path);
}

static void check(struct verdict *verdict, bool is_passed, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static void check(struct verdict *verdict, bool is_passed, const char *format, ...)
{
    char text[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    verdict->n_checks++;
    verdict->n_passed += is_passed;
    printf("  %s  %s\n", is_passed ? "ok  " : "FAIL", text);
}

/* Largest true pressure beyond the target (in the direction of the change) from `from_ns` to `to_ns`. */
static double true_overshoot(const struct truth *truth, const struct isobar_row *isobar)
{
    double direction = isobar->is_loading ? 1.0 : -1.0, overshoot_gpa = -INFINITY;
    for (size_t i = 0; i < truth->n_cells; i++)
        if (truth->cells[i].t_ns >= isobar->change_ns && truth->cells[i].t_ns <= isobar->start_ns)
            overshoot_gpa = fmax(overshoot_gpa, direction * (truth->cells[i].pressure_gpa - isobar->target_gpa));
    return overshoot_gpa;
}

static double true_departure(const struct truth *truth, const struct isobar_row *isobar)
{
    double start_gpa = NAN, departure_gpa = 0.0;
    for (size_t i = 0; i < truth->n_cells; i++) {
        if (truth->cells[i].t_ns < isobar->start_ns || truth->cells[i].t_ns > isobar->end_ns)
            continue;
        if (isnan(start_gpa))
            start_gpa = truth->cells[i].pressure_gpa;
        double difference_gpa = truth->cells[i].pressure_gpa - start_gpa;
        if (fabs(difference_gpa) > fabs(departure_gpa))
            departure_gpa = difference_gpa;
    }
    return departure_gpa;
}

/* Wall time between two instants, from the simulator's own record. */
static double wall_between(const struct truth *truth, int64_t from_ns, int64_t to_ns)
{
    double first_s = NAN, last_s = NAN;
    for (size_t i = 0; i < truth->n_cells; i++) {
        if (truth->cells[i].t_ns >= from_ns && isnan(first_s))
            first_s = truth->cells[i].wall_s;
        if (truth->cells[i].t_ns <= to_ns)
            last_s = truth->cells[i].wall_s;
    }
    return last_s - first_s;
}

static const struct truth_scan *find_true_scan(const struct truth *truth, const char *master_path)
{
    for (int i = 0; i < truth->n_scans; i++)
        if (strcmp(truth->scans[i].master, base_name(master_path)) == 0)
            return &truth->scans[i];
    return NULL;
}

static void judge_scan(const struct truth *truth, struct verdict *verdict, const struct store_rows *rows)
{
    int64_t scan_number = store_rows_integer(rows, 0);
    bool is_between_scans = strcmp(store_rows_text(rows, 9), "between_scans") == 0;
    double length_s = (double)store_rows_integer(rows, 2) * store_rows_real(rows, 3);
    double tau_s = store_rows_real(rows, 4), beta = store_rows_real(rows, 6);
    const struct truth_scan *scan = find_true_scan(truth, store_rows_text(rows, 1));
    if (!scan) {
        check(verdict, false, "scan %lld: the simulator knows no such scan", (long long)scan_number);
        return;
    }
    printf("      scan %lld: %lld frames of %g s, %.4f photons per pixel and frame, contrast %.4f (simulated %.4f)\n",
           (long long)scan_number, (long long)store_rows_integer(rows, 2), store_rows_real(rows, 3),
           scan->photons_per_pixel, store_rows_real(rows, 8), scan->contrast);
    if (is_between_scans)
        check(verdict, scan->n_frames_shadowed == 0.0 && scan->n_frames_lit == 0.0,
              "scan %lld: %.0f frames with the ruby optics in the beam, %.0f with the laser on (limit 0)",
              (long long)scan_number, scan->n_frames_shadowed, scan->n_frames_lit);
    if (scan->tau_s > TAU_PER_SCAN_MAX * length_s) {
        printf("      scan %lld: tau %.1f s is longer than a third of the scan: not judged\n", (long long)scan_number,
               scan->tau_s);
        return;
    }
    check(verdict, fabs(tau_s / scan->tau_s - 1.0) <= TAU_RELATIVE_MAX,
          "scan %lld: tau %.2f +- %.2f s, simulated %.2f s (%+.1f %%, limit 15 %%)", (long long)scan_number, tau_s,
          store_rows_real(rows, 5), scan->tau_s, 100.0 * (tau_s / scan->tau_s - 1.0));
    check(verdict, fabs(beta - scan->beta) <= BETA_ABSOLUTE_MAX,
          "scan %lld: beta %.3f +- %.3f, simulated %.3f (limit 0.2)", (long long)scan_number, beta,
          store_rows_real(rows, 7), scan->beta);
}

static int judge_scans(struct store_reader *reader, const struct truth *truth, struct verdict *verdict, int step_index,
                       int64_t n_planned, struct err *err)
{
    struct store_rows *rows;
    const double parameters[] = {step_index};
    int n_scans = 0;
    int code = store_rows_open(
        &rows, reader,
        "SELECT s.scan_number, s.master_path, s.n_frames, s.frame_time_s, r.tau_s, r.tau_s_sigma, "
        "r.beta, r.beta_sigma, r.contrast, i.ruby_access FROM scan s LEFT JOIN result r USING (scan_number) "
        "LEFT JOIN isobar i USING (step_index) "
        "WHERE s.step_index = ?1 AND s.state = 'complete' ORDER BY s.scan_number",
        parameters, 1, err);
    if (code)
        return code;
    while ((code = store_rows_next(rows, err)) == 1) {
        judge_scan(truth, verdict, rows);
        n_scans++;
    }
    store_rows_close(rows);
    check(verdict, n_scans == n_planned, "%d of %lld planned scans complete", n_scans, (long long)n_planned);
    return code;
}

static void judge_pressure(const struct truth *truth, struct verdict *verdict, const struct isobar_row *isobar)
{
    double overshoot_gpa = true_overshoot(truth, isobar), departure_gpa = true_departure(truth, isobar);
    if (isobar->is_locked)
        printf("      locked cell: %+.3f GPa from the pressure it was to keep\n", overshoot_gpa);
    else if (isobar->is_loading)
        check(verdict, overshoot_gpa <= OVERSHOOT_GPA_MAX,
              "largest true pressure before the start: %+.3f GPa from the target (limit +0.05)", overshoot_gpa);
    else
        printf("      unloading: largest true pressure below the target before the start: %+.3f GPa\n", overshoot_gpa);
    check(verdict, fabs(departure_gpa) <= isobar->drift_gpa_max && fabs(isobar->departure_gpa) <= isobar->drift_gpa_max,
          "largest departure from the start: true %+.3f, ruby %+.3f GPa (limit %.2f)", departure_gpa,
          isobar->departure_gpa, isobar->drift_gpa_max);
}

static void print_speed(const struct truth *truth, const struct isobar_row *isobar)
{
    double change_s = s_from_ns(isobar->start_ns - isobar->change_ns);
    double isobar_s = s_from_ns(isobar->end_ns - isobar->start_ns);
    double change_wall_s = wall_between(truth, isobar->change_ns, isobar->start_ns);
    double isobar_wall_s = wall_between(truth, isobar->start_ns, isobar->end_ns);
    printf("      clock: change %.0f min in %.1f s (%.0fx), isobar %.0f min in %.1f s (%.0fx)\n", change_s / 60.0,
           change_wall_s, change_s / change_wall_s, isobar_s / 60.0, isobar_wall_s, isobar_s / isobar_wall_s);
}

static int judge_isobars(struct store_reader *reader, const struct truth *truth, struct verdict *verdict,
                         struct err *err)
{
    struct store_rows *rows;
    int code = store_rows_open(
        &rows, reader,
        "SELECT s.step_index, s.n_scans, s.pressure_gpa_target, i.started_t_ns, i.ended_t_ns, i.pressure_gpa_start, "
        "i.pressure_gpa_end, i.pressure_gpa_departure, s.drift_gpa_max, "
        "(SELECT min(t_ns) FROM phase p WHERE p.step_index = s.step_index - 1), "
        "(SELECT kind FROM step b WHERE b.step_index = s.step_index - 1) "
        "FROM step s LEFT JOIN isobar i USING (step_index) WHERE s.kind = 'isobar' ORDER BY s.step_index",
        NULL, 0, err);
    if (code)
        return code;
    while (code >= 0 && (code = store_rows_next(rows, err)) == 1) {
        const struct isobar_row isobar = {
            .step_index = (int)store_rows_integer(rows, 0),
            .target_gpa = store_rows_real(rows, 2),
            .start_ns = store_rows_integer(rows, 3),
            .end_ns = store_rows_integer(rows, 4),
            .start_gpa = store_rows_real(rows, 5),
            .end_gpa = store_rows_real(rows, 6),
            .departure_gpa = store_rows_real(rows, 7),
            .drift_gpa_max = store_rows_real(rows, 8),
            .change_ns = store_rows_integer(rows, 9),
            .is_loading = strcmp(store_rows_text(rows, 10), plan_kind_name(PLAN_UNLOAD)) != 0,
            .is_locked = strcmp(store_rows_text(rows, 10), plan_kind_name(PLAN_DEFLATE)) == 0,
        };
        int64_t n_planned = store_rows_integer(rows, 1);
        printf("  isobar at %.2f GPa (step %d)\n", isobar.target_gpa, isobar.step_index + 1);
        check(verdict, isobar.end_ns > 0, "the isobar was held to its end");
        if (isobar.end_ns > 0) {
            judge_pressure(truth, verdict, &isobar);
            code = judge_scans(reader, truth, verdict, isobar.step_index, n_planned, err);
            print_speed(truth, &isobar);
        }
    }
    store_rows_close(rows);
    return code < 0 ? code : 0;
}

static void print_row(const struct truth *truth, const struct store_rows *rows)
{
    const struct truth_scan *scan = find_true_scan(truth, store_rows_text(rows, 8));
    int64_t n_scans = store_rows_integer(rows, 7);
    printf("  %6.2f %9.3f %9.3f %+8.3f   ", store_rows_real(rows, 0), store_rows_real(rows, 1),
           store_rows_real(rows, 2), store_rows_real(rows, 2) - store_rows_real(rows, 1));
    if (n_scans > 0)
        printf("%7.2f +- %-5.2f %9.2f   %5.3f +- %-5.3f %7.3f  ", store_rows_real(rows, 3), store_rows_real(rows, 4),
               scan ? scan->tau_s : NAN, store_rows_real(rows, 5), store_rows_real(rows, 6), scan ? scan->beta : NAN);
    else
        printf("%-54s", "-");
    printf("%5lld\n", (long long)n_scans);
}

static int print_table(struct store_reader *reader, const struct truth *truth, struct err *err)
{
    struct store_rows *rows;
    int code = store_rows_open(
        &rows, reader,
        "SELECT i.pressure_gpa_target, i.pressure_gpa_start, i.pressure_gpa_end, r.tau_s, r.tau_s_sigma, r.beta, "
        "r.beta_sigma, count(s.scan_number) OVER (PARTITION BY i.step_index), s.master_path "
        "FROM isobar i LEFT JOIN scan s ON s.step_index = i.step_index AND s.state = 'complete' "
        "LEFT JOIN result r USING (scan_number) ORDER BY i.step_index, s.scan_number",
        NULL, 0, err);
    if (code)
        return code;
    puts("\n  target      ruby pressure, GPa          tau, s           simulated   beta             simulated  scans\n"
         "  GPa       start       end    drift");
    while ((code = store_rows_next(rows, err)) == 1)
        print_row(truth, rows);
    store_rows_close(rows);
    puts("  |F|^2 = exp(-2 (t/tau)^beta); sigma by jackknife over groups of pixels\n");
    return code;
}

/* The true pressure at an instant: that of the last one known before. */
static double true_pressure(const struct truth *truth, int64_t t_ns)
{
    double pressure_gpa = NAN;
    for (size_t i = 0; i < truth->n_cells && truth->cells[i].t_ns <= t_ns; i++)
        pressure_gpa = truth->cells[i].pressure_gpa;
    return pressure_gpa;
}

/* What a free ruby gave, where the sequence has it read. */
static int judge_calibration(struct store_reader *reader, const struct truth *truth, struct verdict *verdict,
                             struct err *err)
{
    struct store_rows *rows;
    int code = store_rows_open(&rows, reader,
                               "SELECT lambda0_nm, lambda0_nm_sigma, lambda0_nm_stated FROM ruby_calibration WHERE "
                               "reason IS NULL",
                               NULL, 0, err);
    if (code)
        return code;
    while ((code = store_rows_next(rows, err)) == 1)
        check(verdict, fabs(store_rows_real(rows, 0) - truth->lambda0_nm) <= LAMBDA0_NM_MAX,
              "lambda0: calibrated %.4f +- %.4f nm, stated %.4f nm, true %.4f nm (limit %.3f apart)",
              store_rows_real(rows, 0), store_rows_real(rows, 1), store_rows_real(rows, 2), truth->lambda0_nm,
              LAMBDA0_NM_MAX);
    store_rows_close(rows);
    return code;
}

/* What was measured of the cell when its membrane was empty. */
static int judge_locked(struct store_reader *reader, const struct truth *truth, struct verdict *verdict,
                        struct err *err)
{
    struct store_rows *rows;
    int code = store_rows_open(&rows, reader,
                               "SELECT s.step_index, b.pressure_gpa, b.t_ns FROM step s "
                               "LEFT JOIN cell_branch b USING (step_index) WHERE s.kind = 'deflate'",
                               NULL, 0, err);
    if (code)
        return code;
    while ((code = store_rows_next(rows, err)) == 1) {
        double pressure_gpa = store_rows_real(rows, 1), true_gpa = true_pressure(truth, store_rows_integer(rows, 2));
        printf("  deflate (step %d)\n", (int)store_rows_integer(rows, 0) + 1);
        check(verdict, fabs(pressure_gpa - true_gpa) <= LOCKED_GPA_MAX,
              "locked cell: ruby %.3f GPa, true %.3f GPa (limit 0.05 apart)", pressure_gpa, true_gpa);
    }
    store_rows_close(rows);
    return code < 0 ? code : 0;
}

static int judge_end(struct store_reader *reader, struct verdict *verdict, struct err *err)
{
    struct store_rows *rows;
    int code = store_rows_open(&rows, reader, "SELECT exit_status FROM run_end", NULL, 0, err);
    if (code)
        return code;
    code = store_rows_next(rows, err);
    const char *status = code == 1 ? store_rows_text(rows, 0) : "no end recorded";
    check(verdict, strcmp(status, "complete") == 0, "the run's end: %s", status);
    store_rows_close(rows);
    return code < 0 ? code : 0;
}

int verdict_print(const char *db_path, const char *truth_path, struct verdict *ret_verdict, struct err *err)
{
    struct store_reader *reader;
    struct verdict verdict = {0};
    struct truth *truth = calloc(1, sizeof *truth);
    assert(truth);
    int code = read_truth(truth, truth_path, err);
    if (code == 0 && (code = store_reader_open(&reader, db_path, err)) == 0) {
        code = print_table(reader, truth, err);
        if (code == 0)
            code = judge_isobars(reader, truth, &verdict, err);
        if (code == 0)
            code = judge_locked(reader, truth, &verdict, err);
        if (code == 0)
            code = judge_calibration(reader, truth, &verdict, err);
        if (code == 0)
            code = judge_end(reader, &verdict, err);
        store_reader_close(reader);
    }
    free(truth->cells);
    free(truth);
    if (code == 0)
        *ret_verdict = verdict;
    return code;
}
