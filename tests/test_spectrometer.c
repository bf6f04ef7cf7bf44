/*
 * Goal: the spectrometer driver gives a whole, current spectrum or an error in bounded time, over TCP and over a serial
 * line, and finds its way back after any disturbance.
 * Method: the simulated spectrometer in a process of its own, and between the two a relay that disturbs what the
 * instrument sends: byte by byte, garbage, a flipped bit, silence, a cut. The serial line is a pseudo terminal; two
 * calls that libserialport 0.1.1 makes and a pseudo terminal cannot answer are answered here (ioctl, realpath).
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
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
#include "drivers/ocean.h"
#include "drivers/spectrometer.h"
#include "drivers/transport.h"
#include "sim/spectrometer_server.h"
#include "sim/spectrum.h"

#define PRESSURE_GPA 3.3

static struct spectrum spectrum;

/* ---- a serial line without hardware -------------------------------------------------------------------------- */

int ioctl(int fd, unsigned long request, ...);
char *realpath(const char *path, char *ret_path);

/* A pseudo terminal has no modem lines. */
int ioctl(int fd, unsigned long request, ...)
{
    va_list arguments;
    va_start(arguments, request);
    void *argument = va_arg(arguments, void *);
    va_end(arguments);
    int code = (int)syscall(SYS_ioctl, fd, request, argument);
    if (code < 0 && errno == ENOTTY && request >= TIOCMGET && request <= TIOCMSET) { /* and TIOCMBIS, TIOCMBIC */
        if (request == TIOCMGET)
            *(int *)argument = 0;
        return 0;
    }
    return code;
}

/* libserialport 0.1.1 accepts a link of ours under /sys/class/tty/../../.. only by the name it was given. */
char *realpath(const char *path, char *ret_path) { return memcpy(ret_path, path, strlen(path) + 1); }

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
    char address[40];
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

static void bench_make(struct bench *bench, double speed)
{
    struct err err = {0};
    char path[64];
    int port;
    snprintf(bench->directory, sizeof bench->directory, "/tmp/isobar_spectro_XXXXXX");
    assert_non_null(mkdtemp(bench->directory));
    assert_int_equal(world_create(&bench->world, bench->directory, 11, &err), 0);
    struct world_state now = {
        .t_ns = NS_PER_S, .pressure_gpa = PRESSURE_GPA, .temperature_k = 296, .ruby = {.optics = 1, .laser = 1}};
    world_append(bench->world, &now,
                 &(struct world_sample){.pressure_gpa = PRESSURE_GPA, .temperature_k = 296, .beta = 1});
    snprintf(path, sizeof path, "%s/clock", bench->directory);
    assert_int_equal(
        speed > 1 ? clock_publish(&bench->clock, path, 0, speed, &err) : clock_open_real(&bench->clock, &err), 0);
    close(listen_somewhere(&port));
    snprintf(bench->address, sizeof bench->address, "tcp:127.0.0.1:%d", port);
    bench->server = fork();
    if (bench->server == 0) {
        prctl(PR_SET_PDEATHSIG, SIGTERM); /* a failed check must not leave it behind */
        _exit(spectrometer_server_run(bench->world, bench->clock, bench->address, &err) ? 1 : 0);
    }
    int fd;
    int64_t end_ns = clock_wall_ns() + 5 * NS_PER_S;
    while ((fd = connect_to(port)) < 0 && clock_wall_ns() < end_ns)
        pause_ms(2);
    assert_true(fd >= 0);
    close(fd);
    bench->relay = (struct relay){.listen_fd = -1, .near_fd = -1, .far_fd = -1, .far_port = port};
    assert_int_equal(pipe(bench->relay.stop_fds), 0);
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
    const char *const files[] = {"world", "truth.jsonl", "clock", "ttyRUBY"};
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        snprintf(path, sizeof path, "%s/%s", bench->directory, files[i]);
        unlink(path);
    }
    rmdir(bench->directory);
    free(bench);
    return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -1;
}

static struct spectrometer *opened(const char *address)
{
    struct spectrometer *spectrometer = NULL;
    struct err err = {0};
    if (spectrometer_open(&spectrometer, address, 690, 705, &err))
        fail_msg("%s", err.message);
    return spectrometer;
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
    assert_true(fabs(spectrum.counts[top] / (20000 * exposure_s + 500) - 1) < 0.25);
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
    assert_true(spectrum.exposure_s == 0.2);
    const double wrong[] = {NAN, 0, -1, 66, INFINITY};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        assert_int_equal(spectrometer_acquire(spectrometer, wrong[i], &spectrum, &err), ERR_ARG);
    spectrometer_close(spectrometer);
    assert_int_equal(spectrometer_open(&spectrometer, bench->address, 500, 600, &err), ERR_DATA);
    assert_int_equal(spectrometer_open(&spectrometer, bench->address, 705, 690, &err), ERR_ARG);
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

/* The server was left in the middle of a command by somebody else. */
static void synchronises(void **state)
{
    struct bench *bench = *state;
    struct spectrometer *spectrometer = opened(bench->address);
    acquire_good(spectrometer, 0.02);
    assert_int_equal(write(bench->relay.far_fd, "P\0\3\1", 4), 4); /* five bytes short */
    struct err err = {0};
    int code = spectrometer_acquire(spectrometer, 0.03, &spectrum, &err);
    assert_true(code == ERR_TIMEOUT || code == ERR_PROTOCOL || code == ERR_REFUSED);
    acquire_good(spectrometer, 0.03);
    spectrometer_close(spectrometer);
}

static void goes_over_a_serial_line(void **state)
{
    struct bench *bench = *state;
    char link[80], address[120];
    int line = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
    assert_true(line >= 0 && grantpt(line) == 0 && unlockpt(line) == 0);
    int peer = open(ptsname(line), O_RDWR | O_NOCTTY | O_CLOEXEC); /* keeps the line up between openings */
    struct termios raw;
    tcgetattr(peer, &raw);
    cfmakeraw(&raw);
    tcsetattr(peer, TCSANOW, &raw);
    snprintf(link, sizeof link, "%s/ttyRUBY", bench->directory);
    assert_int_equal(symlink(ptsname(line), link), 0);
    bench->relay.near_fd = line;
    bench->relay.far_fd = connect_to(bench->relay.far_port);
    assert_int_equal(pthread_create(&bench->relay.thread, NULL, relay_run, &bench->relay), 0);
    snprintf(address, sizeof address, "serial:/dev/../../..%s:115200", link);
    struct spectrometer *spectrometer = opened(address), *second = NULL;
    struct err err = {0};
    acquire_good(spectrometer, 0.02);
    assert_int_equal(spectrometer_open(&second, address, 690, 705, &err), ERR_LINK);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(acquires, bench_start, bench_end),
        cmocka_unit_test_setup_teardown(is_not_disturbed, bench_start, bench_end),
        cmocka_unit_test_setup_teardown(refuses_and_recovers, bench_start, bench_end),
        cmocka_unit_test_setup_teardown(synchronises, bench_start, bench_end),
        cmocka_unit_test_setup_teardown(goes_over_a_serial_line, serial_start, bench_end),
        cmocka_unit_test(exposes_on_the_experiment_clock),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
