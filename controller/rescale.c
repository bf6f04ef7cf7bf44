#include "controller/rescale.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "analysis/ruby.h"
#include "db/store.h"

#define NAME_MAX 32
#define COMMIT_S_MAX 60

/* What the readings have in common; a run has one ruler. */
struct ruler_row {
    char correction[NAME_MAX];
    double lambda0_nm, temperature_k_zero;
    int64_t n_readings, n_rulers, number; /* of the derivations that are there */
};

static int look(struct store_reader *reader, const char *db_path, struct ruler_row *ret_row, struct err *err)
{
    static const char SELECT[] =
        "SELECT count(*), count(DISTINCT correction || '|' || lambda0_nm || '|' || temperature_k_zero), "
        "max(correction), "
        "max(lambda0_nm), max(temperature_k_zero), (SELECT ifnull(max(number), 0) FROM ruby_derivation) "
        "FROM ruby WHERE pressure_gpa IS NOT NULL AND t_ns > (SELECT ifnull(max(t_ns), -1) FROM ruby_calibration "
        "WHERE reason IS NULL)";
    struct store_rows *rows;
    int code = store_rows_open(&rows, reader, SELECT, NULL, 0, err);
    if (code < 0)
        return code;
    code = store_rows_next(rows, err);
    if (code > 0) {
        *ret_row = (struct ruler_row){.n_readings = store_rows_integer(rows, 0),
                                      .n_rulers = store_rows_integer(rows, 1),
                                      .lambda0_nm = store_rows_real(rows, 3),
                                      .temperature_k_zero = store_rows_real(rows, 4),
                                      .number = store_rows_integer(rows, 5)};
        snprintf(ret_row->correction, sizeof ret_row->correction, "%s", store_rows_text(rows, 2));
    }
    store_rows_close(rows);
    if (code < 0)
        return code;
    if (ret_row->n_readings == 0)
        return err_set(err, ERR_DATA, "%s holds no ruby reading that was believed: there is nothing to derive",
                       db_path);
    if (ret_row->n_rulers != 1)
        return err_set(err, ERR_DATA, "%s holds readings with %lld different rulers; expected those of one run",
                       db_path, (long long)ret_row->n_rulers);
    return 0;
}

static int refuse_twice(struct store_reader *reader, const char *db_path, const struct ruby_ruler *ruler,
                        struct err *err)
{
    struct store_rows *rows;
    const double parameters[] = {ruler->lambda0_nm, ruler->temperature_k_zero};
    int code = store_rows_open(&rows, reader,
                               "SELECT number, scale, correction FROM ruby_derivation WHERE lambda0_nm = ?1 AND "
                               "temperature_k_zero = ?2",
                               parameters, 2, err);
    if (code < 0)
        return code;
    while ((code = store_rows_next(rows, err)) > 0)
        if (strcmp(store_rows_text(rows, 1), ruler->scale->name) == 0 &&
            strcmp(store_rows_text(rows, 2), ruler->correction->name) == 0) {
            code =
                err_set(err, ERR_DB, "%s holds the pressures on this ruler already, as derivation %lld of ruby_derived",
                        db_path, (long long)store_rows_integer(rows, 0));
            break;
        }
    store_rows_close(rows);
    return code;
}

static int choose_ruler(const struct rescale_request *request, const struct ruler_row *row,
                        struct ruby_ruler *ret_ruler, struct err *err)
{
    const char *correction = request->correction ? request->correction : row->correction;
    *ret_ruler = (struct ruby_ruler){.scale = ruby_scale_by_name(request->scale),
                                     .correction = ruby_correction_by_name(correction),
                                     .lambda0_nm = request->lambda0_nm > 0 ? request->lambda0_nm : row->lambda0_nm,
                                     .temperature_k_zero = row->temperature_k_zero};
    if (!ret_ruler->scale || ret_ruler->scale->gauge != RUBY_GAUGE_R1)
        return err_set(err, ERR_ARG, "'%s' is no scale of ruby; isobar ruby --scales lists them", request->scale);
    if (!ret_ruler->correction || ret_ruler->correction->gauge != RUBY_GAUGE_R1)
        return err_set(err, ERR_ARG, "'%s' is no temperature correction of ruby; isobar ruby --scales lists them",
                       correction);
    return 0;
}

/* The rows are put after the head; a queue that is full for a moment is waited for. */
static int put(struct store *store, enum store_table table, const struct store_value *row, int n, int64_t durable,
               struct err *err)
{
    for (int tries = 0; tries < COMMIT_S_MAX * 100; tries++) {
        int code = store_put(store, table, row, n, durable, err);
        if (code != ERR_FULL)
            return code;
        nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
    }
    return ERR_FULL;
}

static int derive(struct store *store, struct store_reader *reader, const struct ruby_ruler *ruler, int64_t n_readings,
                  struct rescale_report *report, struct err *err)
{
    struct store_rows *rows;
    int code =
        store_rows_open(&rows, reader,
                        "SELECT t_ns, r1_nm, r1_nm_sigma_noise, temperature_k, temperature_k_sigma, pressure_gpa "
                        "FROM ruby WHERE pressure_gpa IS NOT NULL ORDER BY t_ns",
                        NULL, 0, err);
    if (code < 0)
        return code;
    report->gpa_difference_min = INFINITY;
    report->gpa_difference_max = -INFINITY;
    while ((code = store_rows_next(rows, err)) > 0) {
        struct ruby_pressure pressure = ruby_ruler_derive(ruler, store_rows_real(rows, 1), store_rows_real(rows, 2),
                                                          store_rows_real(rows, 3), store_rows_real(rows, 4));
        const struct store_value row[] = {store_integer(report->number), store_integer(store_rows_integer(rows, 0)),
                                          store_real(pressure.gpa), store_real(pressure.gpa_sigma_fit),
                                          store_real(pressure.gpa_sigma_temperature)};
        if ((code = put(store, STORE_RUBY_DERIVED, row, 5, report->n_readings + 1 == n_readings, err)) < 0)
            break;
        double difference = pressure.gpa - store_rows_real(rows, 5);
        report->gpa_difference_min = fmin(report->gpa_difference_min, difference);
        report->gpa_difference_max = fmax(report->gpa_difference_max, difference);
        report->n_readings++;
    }
    store_rows_close(rows);
    return code;
}

static int wait_durable(const struct store *store, struct err *err)
{
    for (int tries = 0; store_durable_number(store) < 1; tries++) {
        int code = store_failure(store, err);
        if (code < 0)
            return code;
        if (tries == COMMIT_S_MAX * 100)
            return err_set(err, ERR_DB, "the pressures were not on the disk after %d s; check the disk", COMMIT_S_MAX);
        nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
    }
    return 0;
}

static int write_all(const char *db_path, struct store_reader *reader, const struct ruby_ruler *ruler, int64_t utc_ns,
                     int64_t n_readings, struct rescale_report *report, struct err *err)
{
    struct store *store;
    int code = store_open(&store, db_path, err);
    if (code < 0)
        return code;
    const struct store_value head[] = {store_integer(report->number),  store_integer(utc_ns),
                                       store_text(ruler->scale->name), store_text(ruler->correction->name),
                                       store_real(ruler->lambda0_nm),  store_real(ruler->temperature_k_zero),
                                       store_integer(n_readings)};
    code = put(store, STORE_RUBY_DERIVATION, head, 7, 0, err);
    if (code == 0)
        code = derive(store, reader, ruler, n_readings, report, err);
    if (code == 0)
        code = wait_durable(store, err);
    store_close(store);
    return code;
}

int rescale_run(const char *db_path, const struct rescale_request *request, struct rescale_report *ret_report,
                struct err *err)
{
    struct store_reader *reader;
    struct ruler_row row = {0};
    struct ruby_ruler ruler;
    int code = store_reader_open(&reader, db_path, err);
    if (code < 0)
        return code;
    struct rescale_report report = {0};
    if ((code = look(reader, db_path, &row, err)) == 0 && (code = choose_ruler(request, &row, &ruler, err)) == 0 &&
        (code = refuse_twice(reader, db_path, &ruler, err)) == 0) {
        report.number = row.number + 1;
        report.scale = ruler.scale->name;
        code = write_all(db_path, reader, &ruler, request->utc_ns, row.n_readings, &report, err);
    }
    store_reader_close(reader);
    if (code == 0)
        *ret_report = report;
    return code;
}
