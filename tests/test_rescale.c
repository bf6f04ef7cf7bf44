/*
 * Goal: the pressures of a recorded run on another ruler are those that the ruler gives, and what was recorded stays to
 * the last bit; what cannot be derived is refused and leaves nothing behind.
 * Method: a database of ours with readings made here; the vectors of published scales; the rows before and after.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "controller/rescale.h"
#include "db/store.h"

static char path[] = "/tmp/isobar_rescale_XXXXXX";
static struct err err;

static const struct {
    double r1_nm, temperature_k, ruby2020_gpa, mao1986_gpa, dewaele2008_gpa;
} READINGS[] = {/* lambda0 694.24 nm at 296 K, datchi2007 */
                {695.00, 296, 2.059748, 2.091971, 2.111800},
                {697.00, 300, 7.516893, 7.586642, 7.679818},
                {700.00, 290, 16.356466, 16.355630, 16.628660}};
#define N_READINGS ((int)(sizeof READINGS / sizeof READINGS[0]))

static void assert_near(double value, double expected, double tolerance)
{
    if (!(fabs(value - expected) <= tolerance))
        fail_msg("%.9g, expected %.9g within %.2g", value, expected, tolerance);
}

/* A refused reading follows the good ones. */
static void put_reading(struct store *store, int i, double lambda0_nm)
{
    const float counts[2] = {1, 2};
    int is_good = i < N_READINGS;
    struct store_value null = store_null();
    const struct store_value row[] = {store_integer(i + 1),
                                      is_good ? store_real(READINGS[i].ruby2020_gpa) : null,
                                      is_good ? store_real(0.003) : null,
                                      is_good ? store_real(0.02) : null,
                                      is_good ? store_real(READINGS[i].r1_nm) : null,
                                      is_good ? store_real(0.002) : null,
                                      is_good ? store_real(0.001) : null,
                                      is_good ? store_real(READINGS[i].r1_nm - 1.43) : null,
                                      is_good ? store_real(0.62) : null,
                                      is_good ? store_real(0.55) : null,
                                      store_real(lambda0_nm),
                                      store_real(is_good ? READINGS[i].temperature_k : 296),
                                      store_real(1),
                                      store_real(296),
                                      store_text("ruby2020"),
                                      store_text("datchi2007"),
                                      store_real(0.5),
                                      is_good ? null : store_text("no ruby line"),
                                      null,
                                      store_real(690),
                                      store_real(0.03),
                                      store_blob(counts, sizeof counts)};
    assert_int_equal(store_put(store, STORE_RUBY, row, sizeof row / sizeof row[0], 0, &err), 0);
}

static void make_night(double lambda0_nm_last)
{
    struct store *store;
    unlink(path);
    assert_int_equal(store_create(&store, path, &err), 0);
    for (int i = 0; i < N_READINGS + 1; i++)
        put_reading(store, i, i == N_READINGS - 1 ? lambda0_nm_last : 694.24);
    store_close(store);
}

static double ask(const char *select)
{
    struct store_reader *reader;
    struct store_rows *rows;
    assert_int_equal(store_reader_open(&reader, path, &err), 0);
    if (store_rows_open(&rows, reader, select, NULL, 0, &err) || store_rows_next(rows, &err) != 1)
        fail_msg("%s: %s", select, err.message);
    double value = store_rows_real(rows, 0);
    store_rows_close(rows);
    store_reader_close(reader);
    return value;
}

#define RECORDED "SELECT sum(pressure_gpa) + 10 * sum(r1_nm) + 1e6 * count(*) FROM ruby"

static void pressures_are_derived_beside_the_old_ones(void **state)
{
    (void)state;
    struct rescale_report report;
    struct rescale_request request = {.scale = "dewaele2008", .utc_ns = 7};
    make_night(694.24);
    double recorded = ask(RECORDED);
    assert_int_equal(rescale_run(path, &request, &report, &err), 0);
    assert_int_equal(report.number, 1);
    assert_int_equal(report.n_readings, N_READINGS);
    assert_near(report.gpa_difference_max, READINGS[2].dewaele2008_gpa - READINGS[2].ruby2020_gpa, 1e-5);
    request.scale = "mao1986";
    assert_int_equal(rescale_run(path, &request, &report, &err), 0);
    assert_int_equal(report.number, 2);
    for (int i = 0; i < N_READINGS; i++) {
        char select[200];
        snprintf(select, sizeof select, "SELECT pressure_gpa FROM ruby_derived WHERE number = 1 AND t_ns = %d", i + 1);
        assert_near(ask(select), READINGS[i].dewaele2008_gpa, 1e-6);
        snprintf(select, sizeof select, "SELECT pressure_gpa FROM ruby_derived WHERE number = 2 AND t_ns = %d", i + 1);
        assert_near(ask(select), READINGS[i].mao1986_gpa, 1e-6);
    }
    assert_near(ask("SELECT pressure_gpa_sigma FROM ruby_derived WHERE number = 2 AND t_ns = 1"), 0.00276, 2e-5);
    assert_near(ask("SELECT pressure_gpa_sigma_temperature FROM ruby_derived WHERE number = 2 AND t_ns = 1"), 0.0195,
                2e-4);
    assert_near(ask("SELECT n_readings FROM ruby_derivation WHERE number = 2"), N_READINGS, 0);
    assert_true(ask(RECORDED) == recorded);
}

static void another_lambda0_and_correction(void **state)
{
    (void)state;
    struct rescale_report report;
    struct rescale_request request = {.scale = "ruby2020", .correction = "vos1991", .lambda0_nm = 694.25};
    make_night(694.24);
    assert_int_equal(rescale_run(path, &request, &report, &err), 0);
    assert_near(ask("SELECT pressure_gpa FROM ruby_derived WHERE t_ns = 1"), 2.032453, 1e-6);
    assert_true(report.gpa_difference_max < 0);
}

static void expect_refused(const struct rescale_request *request, int code, const char *word)
{
    struct rescale_report report = {.number = -7};
    int got = rescale_run(path, request, &report, &err);
    if (got != code || !strstr(err.message, word))
        fail_msg("expected a refusal with \"%s\", got %s: %s", word, err_name(got), err.message);
    assert_int_equal(report.number, -7);
}

static void refusals_leave_nothing_behind(void **state)
{
    (void)state;
    struct rescale_report report;
    struct rescale_request request = {.scale = "mao1986"};
    make_night(694.24);
    assert_int_equal(rescale_run(path, &request, &report, &err), 0);
    expect_refused(&request, ERR_DB, "already, as derivation 1");
    expect_refused(&(struct rescale_request){.scale = "mao1987"}, ERR_ARG, "no scale of ruby");
    expect_refused(&(struct rescale_request){.scale = "samarium_datchi2007"}, ERR_ARG, "no scale of ruby");
    expect_refused(&(struct rescale_request){.scale = "mao1978", .correction = "x"}, ERR_ARG,
                   "no temperature correction");
    struct store *store;
    assert_int_equal(store_open(&store, path, &err), 0); /* as the daemon of a run that goes on */
    expect_refused(&(struct rescale_request){.scale = "mao1978"}, ERR_DB, "is being written by process");
    store_close(store);
    assert_near(ask("SELECT count(*) FROM ruby_derivation"), 1, 0);
    make_night(694.26);
    expect_refused(&request, ERR_DATA, "2 different rulers");
    unlink(path);
    assert_int_equal(store_create(&store, path, &err), 0);
    store_close(store);
    expect_refused(&request, ERR_DATA, "no ruby reading");
    unlink(path);
    expect_refused(&request, ERR_DB, "");
}

int main(void)
{
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    const struct CMUnitTest tests[] = {cmocka_unit_test(pressures_are_derived_beside_the_old_ones),
                                       cmocka_unit_test(another_lambda0_and_correction),
                                       cmocka_unit_test(refusals_leave_nothing_behind)};
    int failures = cmocka_run_group_tests(tests, NULL, NULL);
    char lock[64];
    snprintf(lock, sizeof lock, "%s.lock", path);
    unlink(path);
    unlink(lock);
    return failures;
}
