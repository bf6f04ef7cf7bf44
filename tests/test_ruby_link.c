/*
 * Goal: the ruby's thread shortens the exposure of a saturated spectrum and reads on, and stores with every reading
 * what a pressure needs to be derived again; and the temperature of each reading is the thermometer's while that can be
 * believed, and less certain, but no other, while it cannot. Method: the simulated spectrometer in a child, on its
 * wire; an exposure of 4 s saturates it, 2 s do not; the simulated IOC with its thermometer, which fails in every way
 * in turn; the events, and the rows of the database afterwards.
 */
#include <arpa/inet.h>
#include <limits.h>
#include <math.h>
#include <pthread.h>
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
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "controller/ruby_link.h"
#include "drivers/epics.h"
#include "drivers/ocean.h"
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
static pthread_t keeper;
static _Atomic bool is_kept;
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

static void world_show(double temperature_k)
{
    static int64_t t_ns;
    t_ns += NS_PER_S / 2;
    struct world_state now = {.t_ns = t_ns,
                              .pressure_gpa = PRESSURE_GPA,
                              .temperature_k = temperature_k,
                              .ring_current_ma = 200,
                              .ruby = {.optics = 1, .laser = 1}};
    const struct world_sample sample = {.pressure_gpa = PRESSURE_GPA, .temperature_k = temperature_k, .beta = 1};
    world_append(world, &now, &sample);
}

static void *keep(void *unused)
{
    while (is_kept) {
        clock_keep(experiment);
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
    return unused;
}

static int set_up(void **state)
{
    (void)state;
    signal(SIGPIPE, SIG_IGN);
    assert_non_null(mkdtemp(directory));
    assert_int_equal(world_create(&world, directory, 11, &err), 0);
    world_show(296);
    snprintf(path, sizeof path, "%s/clock", directory);
    assert_int_equal(clock_publish(&experiment, path, 0, 1, &err), 0);
    is_kept = true;
    assert_int_equal(pthread_create(&keeper, NULL, keep, NULL), 0);
    snprintf(address, sizeof address, "tcp:127.0.0.1:%d", free_port());
    server = fork();
    if (server == 0) {
        prctl(PR_SET_PDEATHSIG, SIGTERM); /* a failed check must not leave it behind */
        _exit(spectrometer_server_run(world, experiment, address, OCEAN_BAUD_USB2000, &err) ? 1 : 0);
    }
    return server > 0 ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    kill(server, SIGTERM);
    waitpid(server, NULL, 0);
    is_kept = false;
    pthread_join(keeper, NULL);
    world_close(world);
    clock_close(experiment);
    static const char *const NAMES[] = {"world",      "truth.jsonl", "run.db", "run.db.lock",
                                        "run.db-wal", "run.db-shm",  "clock"};
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
    assert_true(fabs(store_rows_real(rows, 0) - 4.0) < 0.0025); /* a driver may add 2 ms, and says so */
    assert_non_null(strstr(store_rows_text(rows, 1), "saturated"));
    assert_true(isnan(store_rows_real(rows, 2)));
    assert_int_equal(store_rows_next(rows, &err), 1);
    assert_true(fabs(store_rows_real(rows, 0) - 2.0) < 0.0025);
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
    beamline.spectrometer = (struct beamline_spectrometer){
        .driver = "ocean-optics", .exposure_s = 4, .wavelength_nm_min = 690, .wavelength_nm_max = 705};
    snprintf(beamline.spectrometer.address, sizeof beamline.spectrometer.address, "%s", address);
    beamline.ruby = (struct beamline_ruby){.scale = "ruby2020",
                                           .correction = "datchi2007",
                                           .lambda0_nm = 694.25,
                                           .temperature_k_zero = 296,
                                           .temperature_k = 296,
                                           .temperature_k_sigma = 0.5};
    struct ruby_link *link;
    assert_int_equal(ruby_link_start(&link, &beamline, NULL, &context, store, &err), 0);
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

/* ---- the thermometer ----------------------------------------------------------------------------------------- */

#define SIGMA_K 0.3
#define LOST_K 3.0

static char simulator[PATH_MAX]; /* isobar-sim */

static pid_t start_ioc(int port)
{
    pid_t pid = fork();
    if (pid == 0) {
        char text[16];
        snprintf(text, sizeof text, "%d", port);
        prctl(PR_SET_PDEATHSIG, SIGTERM);
        execl(simulator, "isobar-sim", "ioc", "--dir", directory, "--port", text, (char *)NULL);
        _exit(127);
    }
    return pid;
}

/* Readings until one carries a text with `words`, or `n` have come without (words NULL). */
static struct event await_text(struct inbox *inbox, const char *words, int n)
{
    for (int i = 0; i < 200; i++) {
        struct event event = await(inbox, EVENT_RUBY);
        if (words ? strstr(event.text, words) != NULL : i + 1 >= n)
            return event;
        if (event.text[0])
            fail_msg("expected \"%s\", got: %s", words ? words : "nothing", event.text);
    }
    fail_msg("no reading says \"%s\"", words);
    return (struct event){0};
}

static void thermometer_fails(struct inbox *inbox, enum world_fault fault, const char *words)
{
    await_text(inbox, NULL, 4);
    world_set_fault(world, WORLD_THERMOMETER, fault, 0, 1);
    struct event event = await_text(inbox, words, 0);
    assert_int_equal(event.integer[2], 1); /* a warning */
    assert_non_null(strstr(event.text, "ruby readings go on with the last that was believed, 29"));
    assert_non_null(strstr(event.text, "known to 3 K; check the sensor"));
    assert_true(fabs(event.value[0] - PRESSURE_GPA) < 0.02);
    await_text(inbox, NULL, 3); /* said once */
    world_set_fault(world, WORLD_THERMOMETER, WORLD_FAULT_NONE, 0, 1);
}

static void check_temperatures(const char *db)
{
    struct store_reader *reader;
    struct store_rows *rows;
    assert_int_equal(store_reader_open(&reader, db, &err), 0);
    assert_int_equal(store_rows_open(&rows, reader,
                                     "SELECT temperature_k, temperature_k_sigma, pressure_gpa, "
                                     "pressure_gpa_sigma_temperature FROM ruby WHERE reason IS NULL ORDER BY t_ns",
                                     NULL, 0, &err),
                     0);
    int n_believed = 0, n_lost = 0;
    while (store_rows_next(rows, &err) == 1) {
        double kelvin = store_rows_real(rows, 0), sigma_k = store_rows_real(rows, 1);
        bool is_believed = sigma_k == SIGMA_K;
        assert_true(is_believed || sigma_k == LOST_K);
        n_believed += is_believed;
        n_lost += !is_believed;
        assert_true(fabs(kelvin - 296) < 1.2); /* the world's, and the sensor's own offset; never garbage */
        assert_true(fabs(store_rows_real(rows, 2) - PRESSURE_GPA) < 0.03);
        assert_true(fabs(store_rows_real(rows, 3) / (sigma_k * 0.00705 * 2.73) - 1) < 0.1);
    }
    assert_true(n_believed > 10 && n_lost > 10);
    store_rows_close(rows);
    store_reader_close(reader);
}

/* A night's thread, from its first reading on: each begins anew to believe. */
struct warm {
    struct beamline beamline;
    struct instrument_context context;
    struct epics *epics;
    struct store *store;
    struct ruby_link *link;
};

static void warm_begin(struct warm *warm)
{
    warm->context.is_ended = false;
    assert_int_equal(ruby_link_start(&warm->link, &warm->beamline, warm->epics, &warm->context, warm->store, &err), 0);
}

static void warm_end(struct warm *warm)
{
    warm->context.is_ended = true;
    ruby_link_join(warm->link);
}

static void warm_make(struct warm *warm, const char *db, int port)
{
    char ca_address[40];
    snprintf(ca_address, sizeof ca_address, "127.0.0.1:%d", port);
    assert_int_equal(store_create(&warm->store, db, &err), 0);
    assert_int_equal(epics_open(&warm->epics, ca_address, &err), 0);
    warm->context = (struct instrument_context){.clock = experiment, .inbox = inbox_new(experiment), .cadence_s = 0.05};
    warm->beamline.spectrometer = (struct beamline_spectrometer){
        .driver = "ocean-optics", .exposure_s = 0.1, .wavelength_nm_min = 690, .wavelength_nm_max = 705};
    snprintf(warm->beamline.spectrometer.address, sizeof warm->beamline.spectrometer.address, "%s", address);
    warm->beamline.ruby = (struct beamline_ruby){.scale = "ruby2020",
                                                 .correction = "datchi2007",
                                                 .lambda0_nm = 694.25,
                                                 .temperature_k_zero = 296,
                                                 .temperature_k = 296,
                                                 .temperature_k_sigma = SIGMA_K,
                                                 .temperature_k_sigma_lost = LOST_K,
                                                 .temperature_pv = "ISB:CELL:Temperature"};
    warm_begin(warm);
    struct event event = await(warm->context.inbox, EVENT_RUBY);
    if (strstr(event.text, "not read")) /* the IOC starts more slowly than the spectrometer */
        await_text(warm->context.inbox, NULL, 40);
    warm_end(warm);
}

static void warm_free(struct warm *warm, const char *db)
{
    static const char *const parts[] = {"", ".lock", "-wal", "-shm"};
    inbox_free(warm->context.inbox);
    epics_close(warm->epics);
    for (int i = 0; i < 4; i++) {
        snprintf(path, sizeof path, "%s%s", db, parts[i]);
        unlink(path);
    }
}

static void a_thermometer_that_fails_is_not_believed(void **state)
{
    (void)state;
    static struct warm warm;
    static const struct {
        enum world_fault fault;
        const char *words;
    } faults[] = {{WORLD_FAULT_OFF, "not read (ISB:CELL:Temperature has the severity INVALID)"},
                  {WORLD_FAULT_WRONG, "absurd: 2"},
                  {WORLD_FAULT_GARBAGE, "check the sensor"}};
    char db[100];
    int port = free_port();
    pid_t ioc = start_ioc(port);
    snprintf(db, sizeof db, "%s/warm.db", directory);
    warm_make(&warm, db, port);
    for (size_t i = 0; i < sizeof faults / sizeof faults[0]; i++) {
        warm_begin(&warm);
        await_text(warm.context.inbox, "is believed: 29", 0);
        thermometer_fails(warm.context.inbox, faults[i].fault, faults[i].words);
        warm_end(&warm);
    }
    warm_begin(&warm);
    await_text(warm.context.inbox, "is believed: 29", 0);
    world_show(296.9); /* and so is the ruby: no pressure moves, but it is said what the temperature does to it */
    struct event event = await_text(warm.context.inbox, "+0.9", 0);
    assert_int_equal(event.integer[2], 1);
    assert_non_null(strstr(event.text, "K: the pressure moves by -0.01"));
    kill(ioc, SIGKILL);
    waitpid(ioc, NULL, 0);
    await_text(warm.context.inbox, "not read (ISB:CELL:Temperature", 0);
    warm_end(&warm);
    world_show(296);
    store_close(warm.store);
    check_temperatures(db);
    warm_free(&warm, db);
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
    beamline.spectrometer = (struct beamline_spectrometer){.driver = "ocean-optics",
                                                           .exposure_s = 0.5,
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
    struct ruby_link *link;
    assert_int_equal(ruby_link_start(&link, &beamline, NULL, &context, store, &err), 0);
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

int main(int argc, char **argv)
{
    (void)argc;
    snprintf(simulator, sizeof simulator, "%.*s/../bin/isobar-sim", (int)(strrchr(argv[0], '/') - argv[0]), argv[0]);
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_saturated_spectrum_shortens_the_exposure),
                                       cmocka_unit_test(the_axis_is_corrected_and_the_ruler_can_be_changed),
                                       cmocka_unit_test(a_thermometer_that_fails_is_not_believed)};
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
