/*
 * Goal: the spectrometer driver gives a whole, current spectrum or an error in bounded time, over TCP, on a serial line
 * and by EPICS, and finds its way back after any disturbance.
 * Method: the simulated spectrometer in a process of its own, and between the two a relay that disturbs what the
 * instrument sends: byte by byte, garbage, a flipped bit, silence, a cut; then two hours of random faults at each
 * spectrometer, while the pressure is never what it was before. The serial line is a pseudo terminal; two calls that
 * libserialport 0.1.1 makes and a pseudo terminal cannot answer are answered here (ioctl, realpath). Two more ways to
 * call this program serve tests/wire_spectrometer.py and tests/wire_waveforms.py, whose other ends are independent:
 *   test_spectrometer drive DRIVER ADDRESS  drives what is there; one command per line of standard input
 *   test_spectrometer serve MODEL ADDRESS   runs the simulated server until SIGTERM, a SAD500 or a USB2000
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <math.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "controller/examine.h"
#include "drivers/ocean.h"
#include "drivers/spectrometer.h"
#include "sim/spectrometer_server.h"
#include "sim/spectrum.h"
#include "tests/witness.h"

#define PRESSURE_GPA 3.3

static struct spectrum spectrum;

/* ---- a serial line without hardware -------------------------------------------------------------------------- */

int ioctl(int fd, unsigned long request, ...);
char *realpath(const char *restrict path, char *restrict ret_path);

/* A pseudo terminal has no modem lines. */
int ioctl(int fd, unsigned long request, ...)
{
    va_list arguments;
    va_start(arguments, request);
    void *argument = va_arg(arguments, void *);
    va_end(arguments);
    int code = (int)syscall(SYS_ioctl, fd, request, argument);
    if (code < 0 && errno == ENOTTY && isatty(fd)) {
        if (request == TIOCMGET)
            *(int *)argument = 0;
        return 0;
    }
    return code;
}

/* libserialport 0.1.1 finds a link of ours only by a name that leads out of /dev. */
char *realpath(const char *restrict path, char *restrict ret_path)
{
    if (strncmp(path, "/tmp/isobar_", 12) != 0)
        return NULL;
    snprintf(ret_path, PATH_MAX, "/dev/../../..%s", path);
    return ret_path;
}

/* ---- the instrument, and a relay before it ------------------------------------------------------------------- */

enum manner { CLEAR, BYTEWISE, GARBAGE, FLIPPED, SILENT, CUT, STALE };

struct relay {
    pthread_t thread;
    int listen_fd; /* -1: the near end is the pseudo terminal */
    int near_fd, far_fd;
    int stop_fds[2];
    int far_port;
    _Atomic int manner; /* disturbs the next answer that is longer than 100 bytes, and all answers if SILENT */
};

struct bench {
    char directory[40];
    struct world *world;
    struct clock *clock;
    pid_t server;
    struct relay relay;
    char address[80];
};

static void pause_ms(int ms) { nanosleep(&(struct timespec){ms / 1000, ms % 1000 * 1000000L}, NULL); }

static int listen_somewhere(int *ret_port)
{
    struct sockaddr_in place = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof place;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0 && bind(fd, (struct sockaddr *)&place, size) == 0 && listen(fd, 8) == 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&place, &size), 0);
    *ret_port = ntohs(place.sin_port);
    return fd;
}

static int connect_to(int port)
{
    struct sockaddr_in place = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (connect(fd, (struct sockaddr *)&place, sizeof place) == 0)
        return fd;
    close(fd);
    return -1;
}

static bool put(int fd, const void *bytes, size_t n) { return write(fd, bytes, n) == (ssize_t)n; }

/* Hands on what the instrument sent, in the manner of the moment. False: hang up. */
static bool disturb(struct relay *relay, uint8_t *bytes, size_t n)
{
    int manner = relay->manner;
    if (manner == SILENT)
        return true;
    if (manner == CLEAR || n < 100)
        return put(relay->near_fd, bytes, n);
    relay->manner = CLEAR;
    switch (manner) {
    case BYTEWISE:
        for (size_t i = 0; i < n; i++)
            if (!put(relay->near_fd, bytes + i, 1))
                return false;
        return true;
    case GARBAGE:
        return put(relay->near_fd, "\x15\xff\x00\x41", 4) && put(relay->near_fd, bytes, n);
    case FLIPPED:
        bytes[n / 2] ^= 0x04;
        return put(relay->near_fd, bytes, n);
    case STALE: /* scans nobody asked for, after the one that was: more than one read takes */
        for (size_t i = 1; i < 8; i++)
            memcpy(bytes + i * n, bytes, n);
        return put(relay->near_fd, bytes, 8 * n);
    default:
        put(relay->near_fd, bytes, n / 2);
        return false;
    }
}

static void hang_up(struct relay *relay)
{
    if (relay->listen_fd >= 0) { /* a pseudo terminal stays */
        close(relay->near_fd);
        close(relay->far_fd);
        relay->near_fd = relay->far_fd = -1;
    }
}

static void *relay_run(void *argument)
{
    struct relay *relay = argument;
    for (;;) {
        struct pollfd fds[4] = {{.fd = relay->stop_fds[0], .events = POLLIN},
                                {.fd = relay->listen_fd, .events = POLLIN},
                                {.fd = relay->near_fd, .events = POLLIN},
                                {.fd = relay->far_fd, .events = POLLIN}};
        static uint8_t bytes[8 * OCEAN_SCAN_SIZE_MAX]; /* room for eight copies */
        poll(fds, 4, -1);
        if (fds[0].revents)
            return NULL;
        if (fds[1].revents) {
            hang_up(relay);
            relay->near_fd = accept(relay->listen_fd, NULL, NULL);
            relay->far_fd = connect_to(relay->far_port);
            continue;
        }
        if (fds[2].revents) {
            ssize_t n = read(relay->near_fd, bytes, OCEAN_SCAN_SIZE_MAX);
            if (n <= 0 || !put(relay->far_fd, bytes, (size_t)n))
                hang_up(relay);
        } else if (fds[3].revents) {
            size_t n = 0;
            ssize_t got; /* a whole scan at once, so that it can be disturbed as one */
            while ((got = recv(relay->far_fd, bytes + n, OCEAN_SCAN_SIZE_MAX - n, n ? MSG_DONTWAIT : 0)) > 0)
                n += (size_t)got;
            if (n == 0 || !disturb(relay, bytes, n))
                hang_up(relay);
        }
    }
}

static void world_show(struct world *world, int64_t *t_ns, double pressure_gpa)
{
    *t_ns += NS_PER_S / 2;
    struct world_state now = {.t_ns = *t_ns,
                              .pressure_gpa = pressure_gpa,
                              .temperature_k = 296,
                              .ring_current_ma = 200,
                              .ruby = {.optics = 1, .laser = 1}};
    world_append(world, &now, &(struct world_sample){.pressure_gpa = pressure_gpa, .temperature_k = 296, .beta = 1});
}

static char simulator[PATH_MAX]; /* isobar-sim */

/* EPICS base does not stand a fork: the IOC is a program of its own. */
static void become_ioc(const struct bench *bench, int port)
{
    char text[16];
    snprintf(text, sizeof text, "%d", port);
    execl(simulator, "isobar-sim", "ioc", "--dir", bench->directory, "--port", text, (char *)NULL);
    _exit(127);
}

enum wire { BY_TCP, ON_A_LINE, BY_EPICS };

static const struct spectrometer_settings SETTINGS = {.driver = "ocean-optics",
                                                      .wavelength_nm_min = 690,
                                                      .wavelength_nm_max = 705,
                                                      .wavelength_pv = "ISB:SPEC:Wavelength",
                                                      .counts_pv = "ISB:SPEC:Counts",
                                                      .exposure_pv = "ISB:SPEC:AcquireTime",
                                                      .acquire_pv = "ISB:SPEC:Acquire",
                                                      .busy_pv = "ISB:SPEC:Busy",
                                                      .counts_saturation = 65535};

static void server_begin(struct bench *bench, enum wire wire, int port, enum ocean_baud_table table)
{
    struct err err = {0};
    bench->server = fork();
    if (bench->server != 0)
        return;
    prctl(PR_SET_PDEATHSIG, SIGTERM); /* a failed check must not leave it behind */
    if (wire == BY_EPICS)
        become_ioc(bench, port);
    int code = spectrometer_server_run(bench->world, bench->clock, bench->address, table, &err);
    if (code)
        fprintf(stderr, "%s\n", err.message);
    _exit(code ? 1 : 0);
}

static void bench_begin(struct bench *bench, enum wire wire, double speed, enum ocean_baud_table table)
{
    struct err err = {0};
    char path[64];
    int port;
    int64_t t_ns = NS_PER_S / 2;
    snprintf(bench->directory, sizeof bench->directory, "/tmp/isobar_spectro_XXXXXX");
    assert_non_null(mkdtemp(bench->directory));
    assert_int_equal(world_create(&bench->world, bench->directory, 11, &err), 0);
    world_show(bench->world, &t_ns, PRESSURE_GPA);
    snprintf(path, sizeof path, "%s/clock", bench->directory);
    assert_int_equal(
        speed > 1 ? clock_publish(&bench->clock, path, 0, speed, &err) : clock_open_real(&bench->clock, &err), 0);
    close(listen_somewhere(&port));
    if (wire == ON_A_LINE)
        snprintf(bench->address, sizeof bench->address, "serial:%s/line:115200", bench->directory);
    else
        snprintf(bench->address, sizeof bench->address, wire == BY_TCP ? "tcp:127.0.0.1:%d" : "127.0.0.1:%d", port);
    bench->relay = (struct relay){.listen_fd = -1, .near_fd = -1, .far_fd = -1, .far_port = port};
    server_begin(bench, wire, port, table);
    assert_int_equal(pipe(bench->relay.stop_fds), 0); /* whose end the server must not hold open */
}

static void bench_make(struct bench *bench, double speed)
{
    bench_begin(bench, BY_TCP, speed, OCEAN_BAUD_USB2000);
    int fd;
    int64_t end_ns = clock_wall_ns() + 5 * NS_PER_S;
    while ((fd = connect_to(bench->relay.far_port)) < 0 && clock_wall_ns() < end_ns)
        pause_ms(2);
    assert_true(fd >= 0);
    close(fd);
}

static int bench_start(void **state)
{
    struct bench *bench = calloc(1, sizeof *bench);
    int port;
    signal(SIGPIPE, SIG_IGN);
    bench_make(bench, 1);
    bench->relay.listen_fd = listen_somewhere(&port);
    snprintf(bench->address, sizeof bench->address, "tcp:127.0.0.1:%d", port);
    *state = bench;
    return pthread_create(&bench->relay.thread, NULL, relay_run, &bench->relay);
}

static int bench_end(void **state)
{
    struct bench *bench = *state;
    char path[64];
    int status = -1;
    close(bench->relay.stop_fds[1]);
    if (bench->relay.thread)
        pthread_join(bench->relay.thread, NULL);
    hang_up(&bench->relay);
    if (bench->relay.listen_fd >= 0)
        close(bench->relay.listen_fd);
    close(bench->relay.stop_fds[0]);
    kill(bench->server, SIGTERM);
    waitpid(bench->server, &status, 0);
    world_close(bench->world);
    clock_close(bench->clock);
    const char *const files[] = {"world", "truth.jsonl", "clock", "ttyRUBY", "line"};
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        snprintf(path, sizeof path, "%s/%s", bench->directory, files[i]);
        unlink(path);
    }
    rmdir(bench->directory);
    free(bench);
    return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -1;
}

static int open_at(struct spectrometer **ret_spectrometer, const char *address, double min_nm, double max_nm,
                   struct err *err)
{
    struct spectrometer_settings settings = SETTINGS;
    settings.address = address;
    settings.wavelength_nm_min = min_nm;
    settings.wavelength_nm_max = max_nm;
    return spectrometer_open(ret_spectrometer, &settings, err);
}

static struct spectrometer *opened(const char *address)
{
    struct spectrometer *spectrometer = NULL;
    struct err err = {0};
    if (open_at(&spectrometer, address, 690, 705, &err))
        fail_msg("%s", err.message);
    return spectrometer;
}

static double top_nm(void)
{
    int top = 0;
    for (int i = 0; i < spectrum.n; i++)
        top = spectrum.counts[i] > spectrum.counts[top] ? i : top;
    return spectrum.wavelength_nm[top];
}

/* A spectrum of the world as it is, and no copy of the one before: the noise tells. */
static void acquire_good(struct spectrometer *spectrometer, double exposure_s)
{
    struct err err = {0};
    double counts_before[8];
    memcpy(counts_before, spectrum.counts, sizeof counts_before);
    if (spectrometer_acquire(spectrometer, exposure_s, &spectrum, &err))
        fail_msg("%s", err.message);
    int top = 0;
    for (int i = 0; i < spectrum.n; i++)
        top = spectrum.counts[i] > spectrum.counts[top] ? i : top;
    assert_memory_not_equal(counts_before, spectrum.counts, sizeof counts_before);
    assert_true(spectrum.n > 400 && spectrum.wavelength_nm[0] >= 690 && spectrum.wavelength_nm[spectrum.n - 1] <= 705);
    assert_true(fabs(spectrum.wavelength_nm[top] - spectrum_r1_nm(PRESSURE_GPA, 296)) < 0.2);
    assert_true(fabs(spectrum.counts[top] / (20000 * spectrum.exposure_s + 500) - 1) < 0.25);
    assert_true(spectrum.exposure_s > exposure_s - 1e-9 && spectrum.exposure_s < exposure_s + 2.5e-3);
}

/* ---- tests --------------------------------------------------------------------------------------------------- */

static void acquires(void **state)
{
    struct bench *bench = *state;
    struct spectrometer *spectrometer = opened(bench->address);
    struct err err = {0};
    acquire_good(spectrometer, 0.1);
    int64_t begin_ns = clock_wall_ns();
    acquire_good(spectrometer, 0.2);
    double took_s = s_from_ns(clock_wall_ns() - begin_ns);
    assert_true(took_s >= 0.2 && took_s < 0.4); /* the driver and the wire add little */
    const double wrong[] = {NAN, 0, -1, 66, INFINITY};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        assert_int_equal(spectrometer_acquire(spectrometer, wrong[i], &spectrum, &err), ERR_ARG);
    spectrometer_close(spectrometer);
    assert_int_equal(open_at(&spectrometer, bench->address, 500, 600, &err), ERR_DATA);
    assert_int_equal(open_at(&spectrometer, bench->address, 705, 690, &err), ERR_ARG);
    struct spectrometer_settings other = SETTINGS;
    other.driver = "ocean";
    assert_int_equal(spectrometer_open(&spectrometer, &other, &err), ERR_ARG);
}

static void is_not_disturbed(void **state)
{
    struct bench *bench = *state;
    struct spectrometer *spectrometer = opened(bench->address);
    const int manners[] = {BYTEWISE, GARBAGE, STALE, CLEAR};
    for (size_t i = 0; i < sizeof manners / sizeof manners[0]; i++) {
        bench->relay.manner = manners[i];
        acquire_good(spectrometer, 0.02);
    }
    spectrometer_close(spectrometer);
}

static void refuses_and_recovers(void **state)
{
    struct bench *bench = *state;
    struct spectrometer *spectrometer = opened(bench->address);
    const struct {
        int manner, code;
    } cases[] = {{FLIPPED, ERR_DATA}, {CUT, ERR_LINK}, {SILENT, ERR_TIMEOUT}};
    acquire_good(spectrometer, 0.02);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct err err = {0};
        spectrum.n = -7;
        bench->relay.manner = cases[i].manner;
        int64_t begin_ns = clock_wall_ns();
        int code = spectrometer_acquire(spectrometer, 0.02, &spectrum, &err);
        if (code != cases[i].code)
            fail_msg("manner %d: expected %s, got %s: %s", cases[i].manner, err_name(cases[i].code), err_name(code),
                     err.message);
        assert_true(clock_wall_ns() - begin_ns < 5 * NS_PER_S / 2);
        assert_int_equal(spectrum.n, -7);
        bench->relay.manner = CLEAR;
        acquire_good(spectrometer, 0.02);
    }
    spectrometer_close(spectrometer);
}

/* The server was left in the middle of a command by somebody else, or the line has lost a byte: any number short. */
static void synchronises(void **state)
{
    struct bench *bench = *state;
    static const struct {
        const char *bytes;
        size_t n_bytes;
    } commands[] = {{"P\0\3\1\4\1\5\0\1", 9}, {"I\0\x14", 3}, {"?x\0\1", 4}, {"bB", 2}};
    struct spectrometer_settings settings = SETTINGS;
    struct spectrometer *spectrometer = NULL;
    struct err err = {0};
    settings.address = bench->address;
    settings.answer_ms = 200; /* for what is not answered at all: most of it is waiting */
    assert_int_equal(spectrometer_open(&spectrometer, &settings, &err), 0);
    acquire_good(spectrometer, 0.02);
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++)
        for (size_t n = 1; n < commands[i].n_bytes; n++) {
            assert_true(put(bench->relay.far_fd, commands[i].bytes, n));
            spectrometer_close(spectrometer);
            if (spectrometer_open(&spectrometer, &settings, &err))
                fail_msg("%zu bytes of %c: %s", n, commands[i].bytes[0], err.message);
            acquire_good(spectrometer, 0.02);
        }
    assert_true(put(bench->relay.far_fd, "P\0\3\1", 4)); /* and with the link up */
    int code = spectrometer_acquire(spectrometer, 0.03, &spectrum, &err);
    assert_true(code == ERR_TIMEOUT || code == ERR_PROTOCOL || code == ERR_REFUSED);
    acquire_good(spectrometer, 0.03);
    spectrometer_close(spectrometer);
}

static void goes_over_a_serial_line(void **state)
{
    struct bench *bench = *state;
    char link[80], address[120];
    int peer, line = witness_line(&peer); /* the peer keeps the line up between openings */
    snprintf(link, sizeof link, "%s/ttyRUBY", bench->directory);
    assert_int_equal(symlink(ptsname(line), link), 0);
    bench->relay.near_fd = line;
    bench->relay.far_fd = connect_to(bench->relay.far_port);
    assert_int_equal(pthread_create(&bench->relay.thread, NULL, relay_run, &bench->relay), 0);
    snprintf(address, sizeof address, "serial:%s:115200", link);
    struct spectrometer *spectrometer = opened(address), *second = NULL;
    struct err err = {0};
    acquire_good(spectrometer, 0.02);
    assert_int_equal(open_at(&second, address, 690, 705, &err), ERR_LINK);
    assert_non_null(strstr(err.message, "in use"));
    bench->relay.manner = SILENT;
    assert_int_equal(spectrometer_acquire(spectrometer, 0.02, &spectrum, &err), ERR_TIMEOUT);
    bench->relay.manner = CLEAR;
    acquire_good(spectrometer, 0.02);
    close(bench->relay.stop_fds[1]); /* unplug: the relay ends, then the line goes */
    pthread_join(bench->relay.thread, NULL);
    bench->relay.thread = 0;
    bench->relay.near_fd = -1;
    close(peer);
    close(line);
    int64_t begin_ns = clock_wall_ns();
    assert_int_equal(spectrometer_acquire(spectrometer, 0.02, &spectrum, &err), ERR_LINK);
    assert_true(clock_wall_ns() - begin_ns < NS_PER_S / 2);
    spectrometer_close(spectrometer);
    close(bench->relay.far_fd);
    bench->relay.far_fd = -1;
    assert_int_equal(pipe(bench->relay.stop_fds), 0); /* for bench_end */
}

static int serial_start(void **state)
{
    struct bench *bench = calloc(1, sizeof *bench);
    bench_make(bench, 1);
    *state = bench;
    return 0;
}

static _Atomic bool is_kept;

static void *keep(void *clock)
{
    while (is_kept) {
        clock_keep(clock);
        pause_ms(1);
    }
    return NULL;
}

/* Twenty seconds of exposure on an experiment clock that runs fifty times too fast. */
static void exposes_on_the_experiment_clock(void **state)
{
    struct bench *bench = calloc(1, sizeof *bench);
    pthread_t keeper;
    *state = bench;
    bench_make(bench, 50);
    is_kept = true;
    assert_int_equal(pthread_create(&keeper, NULL, keep, bench->clock), 0);
    struct spectrometer *spectrometer = opened(bench->address);
    int64_t begin_ns = clock_wall_ns(), begin_t_ns = clock_now_ns(bench->clock);
    struct err err = {0};
    assert_int_equal(spectrometer_acquire(spectrometer, 20, &spectrum, &err), 0);
    double took_s = s_from_ns(clock_wall_ns() - begin_ns),
           took_t_s = s_from_ns(clock_now_ns(bench->clock) - begin_t_ns);
    assert_true(took_s < 2 && took_t_s >= 20);
    double top = 0;
    for (int i = 0; i < spectrum.n; i++)
        top = fmax(top, spectrum.counts[i]);
    assert_true(top == spectrum.counts_saturation); /* 400000 counts do not fit */
    spectrometer_close(spectrometer);
    is_kept = false;
    pthread_join(keeper, NULL);
    assert_int_equal(bench_end(state), 0);
}

/* ---- the rate of a line -------------------------------------------------------------------------------------- */

/* The first that answers; whoever has just been started is waited for. */
static struct spectrometer *opened_when_ready(const struct spectrometer_settings *settings)
{
    struct spectrometer *spectrometer = NULL;
    struct err err = {0};
    int64_t end_ns = clock_wall_ns() + 20 * NS_PER_S;
    while (spectrometer_open(&spectrometer, settings, &err))
        if (clock_wall_ns() > end_ns)
            fail_msg("%s", err.message);
        else
            pause_ms(2);
    return spectrometer;
}

/* The doctor, which tells the rate that was found. */
static void is_examined(const char *address, const char *words, enum doctor_verdict verdict)
{
    static struct beamline beamline;
    static struct doctor_report report;
    const struct examine_temperature temperature = {296, 1};
    beamline = (struct beamline){.spectrometer = {.driver = "ocean-optics",
                                                  .exposure_s = 0.02,
                                                  .wavelength_nm_min = 690,
                                                  .wavelength_nm_max = 705},
                                 .ruby = {.scale = "ruby2020", .lambda0_nm = 694.25, .temperature_k_zero = 296}};
    snprintf(beamline.spectrometer.address, sizeof beamline.spectrometer.address, "%s", address);
    report.n = 0;
    examine_spectrometer(&beamline, NULL, &temperature, &report);
    assert_int_equal(report.lines[0].part, DOCTOR_SPECTROMETER);
    if (!strstr(report.lines[0].seen, words) || report.lines[0].verdict != verdict)
        fail_msg("expected \"%s\", verdict %d: %s; check %s", words, verdict, report.lines[0].seen,
                 report.lines[0].check);
}

static void changes_the_rate(enum ocean_baud_table table, int baud, const char *note)
{
    struct bench *bench = calloc(1, sizeof *bench);
    void *state = bench;
    char address[80];
    bench_begin(bench, ON_A_LINE, 1, table);
    snprintf(address, sizeof address, "serial:%s/line:%d", bench->directory, baud);
    struct spectrometer_settings settings = SETTINGS;
    settings.address = address;
    settings.answer_ms = 200; /* for what is not answered at all: most of it is waiting */
    char words[80];
    for (int i = 0; i < 2; i++) { /* from 9600; and then from where it was left */
        struct spectrometer *spectrometer = opened_when_ready(&settings);
        if (note[0] ? !strstr(spectrometer_terms(spectrometer)->note, note) : spectrometer_terms(spectrometer)->note[0])
            fail_msg("%d baud: note \"%s\"", baud, spectrometer_terms(spectrometer)->note);
        bool is_brought = i == 0 || note[0]; /* one that does not follow is found at 9600 each time */
        assert_int_equal(spectrometer_terms(spectrometer)->baud_found, is_brought ? OCEAN_BAUD_POWER_UP : baud);
        assert_int_equal(spectrometer_terms(spectrometer)->baud, note[0] ? OCEAN_BAUD_POWER_UP : baud);
        acquire_good(spectrometer, 0.02);
        acquire_good(spectrometer, 0.02);
        spectrometer_close(spectrometer);
    }
    snprintf(words, sizeof words, "line:%d, found at %d baud: ", baud, note[0] ? OCEAN_BAUD_POWER_UP : baud);
    is_examined(address, words, note[0] ? DOCTOR_DOUBT : DOCTOR_GOOD);
    if (baud != OCEAN_BAUD_POWER_UP && !note[0]) { /* left at a rate where nobody looks for it now */
        struct spectrometer *lost = NULL;
        struct err err = {0};
        snprintf(address, sizeof address, "serial:%s/line:19200", bench->directory);
        assert_true(spectrometer_open(&lost, &settings, &err) < 0);
        assert_non_null(strstr(err.message, "answers neither at 19200 nor at 9600 baud"));
    }
    assert_int_equal(bench_end(&state), 0);
}

static void changes_the_rate_of_a_line(void **state)
{
    (void)state;
    changes_the_rate(OCEAN_BAUD_USB2000, 115200, "");
    changes_the_rate(OCEAN_BAUD_SAD500, 115200, "");
    changes_the_rate(OCEAN_BAUD_SAD500, 57600, "");
    changes_the_rate(OCEAN_BAUD_USB2000, 9600, "");
    changes_the_rate(OCEAN_BAUD_USB2000, 57600,
                     "stays at 9600 baud and does not follow to 57600, so that each spectrum "
                     "takes longer: its table of codes has no 57600 baud");
}

/* ---- random faults ------------------------------------------------------------------------------------------- */

#define ROUND_S 8.0 /* a reading every 8 s, as a night has on average */
#define ROUNDS 900  /* two hours of them */
#define SPEED 50.0
#define EXPOSURE_S 0.1     /* 2 ms on the wall */
#define ANSWER_MS 80       /* what the driver waits */
#define FAULT_MS 350       /* more than it waits for a spectrum */
#define FAULT_FRACTION 0.3 /* of the answers in a bad round by TCP and on a line, where a round has several */
#define RECOVER_S_MAX 3.0  /* of wall time, from the end of a fault: the slowest delays its last answer by 1.4 s */
#define PRESSURE_GPA_MAX 10.0
#define R1_NM_MAX 0.25           /* what the noise does; neighbouring rounds lie 0.5 nm or more apart */
#define LATE_NS (20 * NS_PER_MS) /* of a line: a quarter of what the driver waits for an answer */
#define ROUNDS_MAX (4 * ROUNDS)  /* with those in which the line was late */

struct hours {
    struct bench *bench;
    struct spectrometer *spectrometer; /* NULL: not opened yet */
    struct spectrometer_settings settings;
    enum world_fault fault;
    bool is_now;
    double pressure_gpa; /* the truth */
    struct witness witness;
    int n_read, n_failed, n_bad;
    int n_late; /* rounds in which the line itself was late: played again */
};

/* One round, as controller/ruby_link works. False: no spectrum. */
static bool round_pass(struct hours *hours)
{
    struct err err = {0};
    int code = hours->spectrometer ? spectrometer_connect(hours->spectrometer, &err)
                                   : spectrometer_open(&hours->spectrometer, &hours->settings, &err);
    if (code == 0)
        code = spectrometer_acquire(hours->spectrometer, EXPOSURE_S, &spectrum, &err);
    if (code) {
        if (getenv("VERBOSE"))
            printf("  %s%s\n", hours->is_now ? "" : "afterwards: ", err.message);
        return false;
    }
    double off_nm = top_nm() - spectrum_r1_nm(hours->pressure_gpa, 296);
    if (!(fabs(off_nm) < R1_NM_MAX)) {
        hours->n_bad++;
        printf("bad: R1 at %.2f nm, which is off by %.2f nm\n", top_nm(), off_nm);
    }
    return true;
}

static void two_hours_of(struct hours *hours, struct random *random, int64_t *t_ns, double fraction)
{
    int left = 0;
    int64_t lost_ns = 0; /* since when there is neither a fault nor a spectrum; 0: there is */
    double lost_s_max = 0;
    for (int i = 0; hours->n_read + hours->n_failed < ROUNDS && i < ROUNDS_MAX; i++) {
        double step_gpa = 1.5 + (PRESSURE_GPA_MAX - 3) * random_uniform(random); /* never near what it was */
        hours->pressure_gpa = fmod(hours->pressure_gpa + step_gpa, PRESSURE_GPA_MAX);
        world_show(hours->bench->world, t_ns, hours->pressure_gpa);
        if (left == 0 && random_uniform(random) < 0.03)
            left = 1 + (int)(3 * random_uniform(random));
        hours->is_now = left > 0;
        world_set_fault(hours->bench->world, WORLD_SPECTROMETER, hours->is_now ? hours->fault : WORLD_FAULT_NONE,
                        FAULT_MS, fraction);
        int64_t begin_ns = clock_wall_ns();
        bool is_read = round_pass(hours), is_late = witness_was_late(&hours->witness, LATE_NS);
        lost_ns = is_read || is_late || hours->is_now ? 0 : lost_ns ? lost_ns : begin_ns;
        lost_s_max = fmax(lost_s_max, lost_ns ? s_from_ns(clock_wall_ns() - lost_ns) : 0);
        hours->n_late += is_late;
        hours->n_read += is_read && !is_late;
        hours->n_failed += !is_read && !is_late;
        left -= hours->is_now && !is_late;
    }
    world_set_fault(hours->bench->world, WORLD_SPECTROMETER, WORLD_FAULT_NONE, FAULT_MS, 1);
    if (lost_s_max > RECOVER_S_MAX) {
        hours->n_bad++;
        printf("bad: %.2f s until it recovered, expected at most %g\n", lost_s_max, RECOVER_S_MAX);
    }
    if (hours->n_read + hours->n_failed < ROUNDS) {
        hours->n_bad++;
        printf("bad: this machine's pseudo terminals were late in %d of %d rounds\n", hours->n_late, ROUNDS_MAX);
    }
}

static const char *const fault_names[WORLD_FAULT_COUNT] = {
#define X(id, text) [WORLD_FAULT_##id] = text,
    WORLD_FAULT_LIST(X)
#undef X
};

static const char *const wire_names[] = {"by TCP", "on a line", "by EPICS"};

/* Every n-th mode at one spectrometer; the number of things that went wrong. */
static int hours_of_every(int n, int first, enum wire wire, uint64_t seed)
{
    struct bench *bench = calloc(1, sizeof *bench);
    void *state = bench;
    struct random random = {.state = seed};
    int64_t t_ns = NS_PER_S;
    pthread_t keeper;
    struct err err = {0};
    int n_bad = 0;
    bench_begin(bench, wire, SPEED, OCEAN_BAUD_USB2000);
    is_kept = true;
    assert_int_equal(pthread_create(&keeper, NULL, keep, bench->clock), 0);
    struct spectrometer_settings settings = SETTINGS;
    settings.address = bench->address;
    settings.driver = wire == BY_EPICS ? "epics-waveforms" : "ocean-optics";
    if (wire == BY_EPICS)
        assert_int_equal(epics_open(&settings.epics, bench->address, &err), 0);
    settings.answer_ms = 1000;
    spectrometer_close(opened_when_ready(&settings)); /* at its wanted rate from now on */
    settings.answer_ms = ANSWER_MS;
    for (int fault = first; fault < WORLD_FAULT_COUNT; fault += n) {
        struct hours hours = {.bench = bench, .settings = settings, .fault = (enum world_fault)fault};
        if (wire == ON_A_LINE)
            witness_begin(&hours.witness);
        two_hours_of(&hours, &random, &t_ns, wire == BY_EPICS ? 1 : FAULT_FRACTION);
        if (wire == ON_A_LINE)
            witness_end(&hours.witness);
        spectrometer_close(hours.spectrometer);
        bool has_failed = hours.n_failed > 0 || fault == WORLD_FAULT_NONE;
        n_bad += hours.n_bad + !has_failed + (hours.n_read < ROUNDS * 8 / 10);
        printf("%s, %s: %d read, %d failed, %d late, %d bad\n", wire_names[wire], fault_names[fault], hours.n_read,
               hours.n_failed, hours.n_late, hours.n_bad);
    }
    epics_close(settings.epics);
    is_kept = false;
    pthread_join(keeper, NULL);
    return n_bad + (bench_end(&state) != 0);
}

struct share {
    enum wire wire;
    int n, first;
};

/* All at once, each in a process of its own: most of it is waiting. */
static void play(const struct share *shares, int n_shares, uint64_t seed)
{
    pid_t children[8];
    assert_in_range(n_shares, 1, sizeof children / sizeof children[0]);
    for (int i = 0; i < n_shares; i++) {
        fflush(stdout);
        children[i] = fork();
        if (children[i] == 0) {
            prctl(PR_SET_PDEATHSIG, SIGTERM);
            int n_bad = hours_of_every(shares[i].n, shares[i].first, shares[i].wire, seed + (uint64_t)i);
            fflush(stdout);
            _exit(n_bad > 0);
        }
    }
    for (int i = 0; i < n_shares; i++) {
        int status;
        assert_int_equal(waitpid(children[i], &status, 0), children[i]);
        if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
            fail_msg("%s: see above", wire_names[shares[i].wire]);
    }
}

/* The lines after the rest, for the sake of those who carry their bytes (struct witness). */
static void two_hours_of_random_faults(void **state)
{
    (void)state;
    const char *given = getenv("SEED");
    uint64_t seed = given ? strtoull(given, NULL, 10) : 1;
    print_message("seed %llu\n", (unsigned long long)seed);
    static const struct share rest[] = {{BY_TCP, 2, 0}, {BY_TCP, 2, 1}, {BY_EPICS, 2, 0}, {BY_EPICS, 2, 1}};
    static const struct share lines[] = {{ON_A_LINE, 4, 0}, {ON_A_LINE, 4, 1}, {ON_A_LINE, 4, 2}, {ON_A_LINE, 4, 3}};
    play(rest, sizeof rest / sizeof rest[0], seed);
    play(lines, sizeof lines / sizeof lines[0], seed);
}

/* ---- for the wire tests -------------------------------------------------------------------------------------- */

static int drive(const char *driver, const char *address)
{
    struct spectrometer *spectrometer = NULL;
    struct spectrometer_settings settings = SETTINGS;
    struct err err = {0};
    char line[80];
    double exposure_s;
    settings.driver = driver;
    settings.address = address;
    if (strcmp(driver, "epics-waveforms") == 0 && epics_open(&settings.epics, address, &err))
        return 1;
    int code = spectrometer_open(&spectrometer, &settings, &err);
    for (;;) {
        printf("%s %s\n", err_name(code), code ? err.message : "");
        fflush(stdout);
        if (!spectrometer || !fgets(line, sizeof line, stdin))
            break;
        double sum = 0;
        if (strcmp(line, "note\n") == 0)
            printf("%s ", spectrometer_terms(spectrometer)->note);
        else if (sscanf(line, "acquire %lf", &exposure_s) == 1)
            code = spectrometer_acquire(spectrometer, exposure_s, &spectrum, &err);
        for (int i = 0; i < spectrum.n && code == 0; i++)
            sum += spectrum.counts[i];
        if (code == 0 && line[0] == 'a')
            printf("%d %.4f %.4f %.0f %.0f %.0f %.3f ", spectrum.n, spectrum.wavelength_nm[0],
                   spectrum.wavelength_nm[spectrum.n - 1], spectrum.counts[0], spectrum.counts[spectrum.n - 1], sum,
                   spectrum.exposure_s);
    }
    spectrometer_close(spectrometer);
    epics_close(settings.epics);
    return 0;
}

static int serve_alone(const char *model, const char *address)
{
    struct err err = {0};
    struct world *world;
    struct clock *clock;
    int64_t t_ns = NS_PER_S / 2;
    char directory[] = "/tmp/isobar_spectro_XXXXXX", path[64];
    enum ocean_baud_table table = strcmp(model, "SAD500") == 0 ? OCEAN_BAUD_SAD500 : OCEAN_BAUD_USB2000;
    if (!mkdtemp(directory) || world_create(&world, directory, 11, &err) || clock_open_real(&clock, &err))
        return 1;
    world_show(world, &t_ns, PRESSURE_GPA);
    int code = spectrometer_server_run(world, clock, address, table, &err);
    if (code)
        fprintf(stderr, "%s\n", err.message);
    world_close(world);
    clock_close(clock);
    snprintf(path, sizeof path, "%s/world", directory);
    unlink(path);
    snprintf(path, sizeof path, "%s/truth.jsonl", directory);
    unlink(path);
    rmdir(directory);
    return code ? 1 : 0;
}

int main(int argc, char **argv)
{
    signal(SIGPIPE, SIG_IGN);
    snprintf(simulator, sizeof simulator, "%.*s/../bin/isobar-sim", (int)(strrchr(argv[0], '/') - argv[0]), argv[0]);
    if (argc == 4 && strcmp(argv[1], "drive") == 0)
        return drive(argv[2], argv[3]);
    if (argc == 4 && strcmp(argv[1], "serve") == 0)
        return serve_alone(argv[2], argv[3]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(acquires, bench_start, bench_end),
        cmocka_unit_test_setup_teardown(is_not_disturbed, bench_start, bench_end),
        cmocka_unit_test_setup_teardown(refuses_and_recovers, bench_start, bench_end),
        cmocka_unit_test_setup_teardown(synchronises, bench_start, bench_end),
        cmocka_unit_test_setup_teardown(goes_over_a_serial_line, serial_start, bench_end),
        cmocka_unit_test(changes_the_rate_of_a_line),
        cmocka_unit_test(exposes_on_the_experiment_clock),
        cmocka_unit_test(two_hours_of_random_faults),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
