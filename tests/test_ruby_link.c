/*
 * Goal: the ruby's thread shortens the exposure of a saturated spectrum and reads on, and stores with every reading
 * what a pressure needs to be derived again. Method: the simulated spectrometer in a child, on its wire; an exposure of
 * 4 s saturates it, 2 s do not; the rows of the database afterwards.
 */
#include <arpa/inet.h>
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "controller/ruby_link.h"
#include "sim/spectrometer_server.h"
#include "sim/spectrum.h"
#include "sim/world.h"

#define PRESSURE_GPA 3.0
#define WAIT_S 30

static char directory[] = "/tmp/isobar_ruby_link_XXXXXX";
static char path[100], address[64];
static struct world *world;
static struct clock *experiment;
static pid_t server;
static struct err err;

static int free_port(void)
{
    struct sockaddr_in where = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof where;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_true(fd >= 0 && bind(fd, (void *)&where, size) == 0 && getsockname(fd, (void *)&where, &size) == 0);
    close(fd);
    return ntohs(where.sin_port);
}

static int set_up(void **state)
{
    (void)state;
    signal(SIGPIPE, SIG_IGN);
    assert_non_null(mkdtemp(directory));
    assert_int_equal(world_create(&world, directory, 11, &err), 0);
    struct world_state now = {
        .t_ns = NS_PER_S, .pressure_gpa = PRESSURE_GPA, .temperature_k = 296, .ruby = {.optics = 1, .laser = 1}};
    world_append(world, &now, &(struct world_sample){.pressure_gpa = PRESSURE_GPA, .temperature_k = 296, .beta = 1});
    assert_int_equal(clock_open_real(&experiment, &err), 0);
    snprintf(address, sizeof address, "tcp:127.0.0.1:%d", free_port());
    server = fork();
    if (server == 0) {
        prctl(PR_SET_PDEATHSIG, SIGTERM); /* a failed check must not leave it behind */
        _exit(spectrometer_server_run(world, experiment, address, &err) ? 1 : 0);
    }
    return server > 0 ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    kill(server, SIGTERM);
    waitpid(server, NULL, 0);
    world_close(world);
    clock_close(experiment);
    static const char *const NAMES[] = {"world", "truth.jsonl", "run.db", "run.db.lock", "run.db-wal", "run.db-shm"};
    for (size_t i = 0; i < sizeof NAMES / sizeof NAMES[0]; i++) {
        snprintf(path, sizeof path, "%s/%s", directory, NAMES[i]);
        unlink(path);
    }
    return rmdir(directory);
}

/* The next event of that kind; what comes before is let go. */
static struct event await(struct inbox *inbox, enum event_kind kind)
{
    struct event event;
    int64_t end_ns = clock_wall_ns() + WAIT_S * NS_PER_S;
    while (clock_wall_ns() < end_ns)
        if (inbox_take(inbox, &event, 100) && event.kind == (int32_t)kind)
            return event;
    fail_msg("no event of kind %d within %d s", kind, WAIT_S);
    return event;
}

static void check_rows(void)
{
    struct store_reader *reader;
    struct store_rows *rows;
    assert_int_equal(store_reader_open(&reader, path, &err), 0);
    const char *select = "SELECT exposure_s, reason, pressure_gpa, pressure_gpa_sigma, pressure_gpa_sigma_temperature, "
                         "r1_nm, r1_nm_sigma, r1_nm_sigma_noise, r2_nm, r1_nm_fwhm, r2_nm_fwhm, lambda0_nm, "
                         "temperature_k, temperature_k_sigma, temperature_k_zero, scale, correction, warning FROM ruby "
                         "ORDER BY t_ns LIMIT 2";
    assert_int_equal(store_rows_open(&rows, reader, select, NULL, 0, &err), 0);
    assert_int_equal(store_rows_next(rows, &err), 1);
    assert_true(store_rows_real(rows, 0) == 4.0);
    assert_non_null(strstr(store_rows_text(rows, 1), "saturated"));
    assert_true(isnan(store_rows_real(rows, 2)));
    assert_int_equal(store_rows_next(rows, &err), 1);
    assert_true(store_rows_real(rows, 0) == 2.0);
    assert_string_equal(store_rows_text(rows, 1), "");
    double sigma = store_rows_real(rows, 3), sigma_temperature = store_rows_real(rows, 4);
    assert_true(fabs(store_rows_real(rows, 2) - PRESSURE_GPA) < 0.01);
    assert_true(sigma > 0.0003 && sigma < 0.003);
    assert_true(fabs(sigma_temperature - 0.5 * 0.00705 * 2.73) < 0.0005); /* 0.5 K, Datchi's slopes, GPa per nm */
    assert_true(store_rows_real(rows, 6) >= store_rows_real(rows, 7));
    assert_true(fabs(store_rows_real(rows, 5) - store_rows_real(rows, 8) - 1.44) < 0.01);
    assert_true(fabs(store_rows_real(rows, 9) - 0.62) < 0.03 && fabs(store_rows_real(rows, 10) - 0.55) < 0.03);
    assert_true(store_rows_real(rows, 11) == 694.25 && store_rows_real(rows, 12) == 296);
    assert_true(store_rows_real(rows, 13) == 0.5 && store_rows_real(rows, 14) == 296);
    assert_string_equal(store_rows_text(rows, 15), "ruby2020");
    assert_string_equal(store_rows_text(rows, 16), "datchi2007");
    assert_string_equal(store_rows_text(rows, 17), "");
    store_rows_close(rows);
    store_reader_close(reader);
}

static void a_saturated_spectrum_shortens_the_exposure(void **state)
{
    (void)state;
    static struct beamline beamline;
    struct instrument_context context = {.clock = experiment, .inbox = inbox_new(experiment), .cadence_s = 0.1};
    struct store *store;
    snprintf(path, sizeof path, "%s/run.db", directory);
    assert_int_equal(store_create(&store, path, &err), 0);
    beamline.spectrometer =
        (struct beamline_spectrometer){.exposure_s = 4, .wavelength_nm_min = 690, .wavelength_nm_max = 705};
    snprintf(beamline.spectrometer.address, sizeof beamline.spectrometer.address, "%s", address);
    beamline.ruby = (struct beamline_ruby){.scale = "ruby2020",
                                           .correction = "datchi2007",
                                           .lambda0_nm = 694.25,
                                           .temperature_k_zero = 296,
                                           .temperature_k = 296,
                                           .temperature_k_sigma = 0.5};
    struct ruby_link *link = ruby_link_start(&beamline, &context, store);
    struct event event = await(context.inbox, EVENT_RUBY_REJECTED);
    assert_non_null(strstr(event.text, "saturated"));
    event = await(context.inbox, EVENT_RUBY);
    assert_true(fabs(event.value[0] - PRESSURE_GPA) < 0.01);
    context.is_ended = true;
    ruby_link_join(link);
    store_close(store);
    inbox_free(context.inbox);
    check_rows();
}

/* An axis corrected by 0.02 nm at the ruby and a stretch, and then another lambda0 while the link runs. */
static void the_axis_is_corrected_and_the_ruler_can_be_changed(void **state)
{
    (void)state;
    static struct beamline beamline;
    struct instrument_context context = {.clock = experiment, .inbox = inbox_new(experiment), .cadence_s = 0.1};
    struct store *store;
    unlink(path);
    assert_int_equal(store_create(&store, path, &err), 0);
    beamline.spectrometer = (struct beamline_spectrometer){.exposure_s = 0.5,
                                                           .wavelength_nm_min = 690,
                                                           .wavelength_nm_max = 705,
                                                           .wavelength_offset_nm = 0.02,
                                                           .wavelength_slope = 0.005};
    snprintf(beamline.spectrometer.address, sizeof beamline.spectrometer.address, "%s", address);
    beamline.ruby = (struct beamline_ruby){.scale = "ruby2020",
                                           .correction = "datchi2007",
                                           .lambda0_nm = 694.25,
                                           .temperature_k_zero = 296,
                                           .temperature_k = 296,
                                           .temperature_k_sigma = 0.5};
    struct ruby_link *link = ruby_link_start(&beamline, &context, store);
    struct event event = await(context.inbox, EVENT_RUBY);
    double r1_nm = spectrum_r1_nm(PRESSURE_GPA, 296), expected_nm = r1_nm + 0.02 + 0.005 * (r1_nm - 694.25);
    assert_int_equal(event.integer[1], 0);
    assert_true(fabs(event.value[2] - expected_nm) < 0.004);
    assert_true(event.value[3] > 0 && event.value[3] < 0.004);
    double before_gpa = event.value[0];
    ruby_link_set_lambda0(link, 694.30, 1);
    while ((event = await(context.inbox, EVENT_RUBY)).integer[1] == 0)
        ;
    assert_true(fabs(before_gpa - event.value[0] - 0.05 * 2.73) < 0.02); /* GPa per nm */
    context.is_ended = true;
    ruby_link_join(link);
    store_close(store);
    inbox_free(context.inbox);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_saturated_spectrum_shortens_the_exposure),
                                       cmocka_unit_test(the_axis_is_corrected_and_the_ruler_can_be_changed)};
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
