/*
 * Goal: the membrane driver never takes a wrong, late or foreign answer for a reading, always comes back within a
 * bounded time, and moves the simulated controller as told.
 * Method: a device of raw sockets whose answers are written here byte by byte (not with the codec under test) and that
 * misbehaves in one way per test; then the simulated server in a process of its own. Two more ways to call this
 * program serve tests/wire_membrane.py, whose other end is an independent Modbus implementation:
 *   test_membrane drive DRIVER ADDRESS  drives what listens there; one command per line of standard input
 *   test_membrane serve MODEL ADDRESS   runs the simulated server until SIGTERM
 */
#include <arpa/inet.h>
#include <errno.h>
#include <limits.h>
#include <math.h>
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
#include <time.h>
#include <unistd.h>

#include <cmocka.h>
#include <modbus.h>

#include "base/clock.h"
#include "drivers/membrane.h"
#include "drivers/registers.h"
#include "sim/membrane_server.h"
#include "sim/pace_server.h"
#include "sim/random.h"
#include "tests/witness.h"

/* ---- a device of raw sockets --------------------------------------------------------------------------------- */

enum manner {
    GOOD,
    SILENT,
    LATE,
    GONE,
    GARBAGE,
    WRONG_ID,
    DRIP,
    EXCEPTION,
    OTHER_UNIT,
    LOCAL,
    ALARM_MOVES,
    ANALOG_LATER,
    NOT_A_NUMBER,
    OVERRANGE,
    DEAF,
    OTHER_CAPACITY
};

struct device {
    pthread_t thread;
    int listen_fd;
    int stop_fds[2];
    char address[40];
    _Atomic int manner;
    _Atomic int n_writes;
    uint8_t written[4]; /* value bytes of the last write of FSETPOINT */
};

/* Registers from `address` as the device shows them, high byte first. */
static const uint8_t *registers_at(const struct device *device, int address)
{
    switch (address) {
    case 0x8168:
        return (const uint8_t *)(device->manner == OTHER_CAPACITY ? "\x42\xc8\x00\x00" : "\x43\x48\x00\x00");
    case 0x81f8:
        return (const uint8_t *)(device->manner == OTHER_UNIT ? "psi     " : "bar     ");
    case 0xa100:
        return (const uint8_t *)(device->manner == NOT_A_NUMBER ? "\x7f\xc0\x00\x00"
                                 : device->manner == OVERRANGE  ? "\x44\x7a\x00\x00"
                                                                : "\x41\x45\x85\x1f");
    case 0xa118:
        return device->written;
    case 0x0022:
        return (const uint8_t *)"\x05\xdc"; /* 1500: 150 s for 200 bar */
    case 0x0024:
        return (const uint8_t *)(device->manner == LOCAL ? "\x00\x01" : "\x00\x00");
    case 0xf258:
        return (const uint8_t *)(device->manner == ANALOG_LATER ? "\x00\x47" : "\x00\x07");
    case 0x0c25:
        return (const uint8_t *)(device->manner == ALARM_MOVES ? "\x00\x01" : "\x00\x00");
    default:
        return (const uint8_t *)"\x00\x00\x00\x00";
    }
}

static void pause_ms(int ms) { nanosleep(&(struct timespec){ms / 1000, ms % 1000 * 1000000L}, NULL); }

/* Answers one request. False when the device hangs up. */
static bool device_answer(struct device *device, int fd)
{
    uint8_t q[260], a[260] = {0};
    ssize_t n = recv(fd, q, sizeof q, 0);
    if (n < 12)
        return false;
    int manner = device->manner, address = q[8] << 8 | q[9], count = q[10] << 8 | q[11];
    size_t size;
    memcpy(a, q, 8);
    if (q[7] == 16) {
        device->n_writes++;
        if (manner != DEAF)
            memcpy(device->written, q + 13, 4);
        memcpy(a + 8, q + 8, 4);
        size = 12;
    } else {
        a[8] = (uint8_t)(2 * count);
        memcpy(a + 9, registers_at(device, address), (size_t)(2 * count));
        size = 9 + (size_t)(2 * count);
    }
    if (address == 0xa100 && manner == EXCEPTION) {
        a[7] |= 0x80;
        a[8] = 2;
        size = 9;
    }
    a[5] = (uint8_t)(size - 6);
    if (address == 0xa100 && manner == LATE) {
        memcpy(a + 9, "\x42\xc6\x00\x00", 4); /* 99 bar, of long ago */
        pause_ms(1250);
        device->manner = GOOD;
    }
    a[1] = (uint8_t)(a[1] + (manner == WRONG_ID));
    if (manner == SILENT)
        return true;
    if (manner == GONE)
        return false;
    if (manner == GARBAGE)
        memset(a, 0xa5, size);
    for (size_t i = 0; manner == DRIP && i < size; i++) {
        if (send(fd, a + i, 1, MSG_NOSIGNAL) < 0)
            return false;
        pause_ms(200);
    }
    return manner == DRIP || send(fd, a, size, MSG_NOSIGNAL) == (ssize_t)size;
}

static void *device_run(void *argument)
{
    struct device *device = argument;
    int fd = -1;
    for (;;) {
        struct pollfd fds[3] = {{.fd = device->stop_fds[0], .events = POLLIN},
                                {.fd = device->listen_fd, .events = POLLIN},
                                {.fd = fd, .events = POLLIN}};
        poll(fds, 3, -1);
        if (fds[0].revents)
            break;
        if (fd >= 0 && fds[2].revents && !device_answer(device, fd)) {
            close(fd);
            fd = -1;
        } else if (fds[1].revents) {
            if (fd >= 0)
                close(fd);
            fd = accept(device->listen_fd, NULL, NULL);
        }
    }
    if (fd >= 0)
        close(fd);
    return NULL;
}

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

static int device_start(void **state)
{
    struct device *device = calloc(1, sizeof *device);
    int port;
    device->listen_fd = listen_somewhere(&port);
    assert_int_equal(pipe(device->stop_fds), 0);
    snprintf(device->address, sizeof device->address, "tcp:127.0.0.1:%d", port);
    memcpy(device->written, "\x41\x45\x85\x1f", 4);
    *state = device;
    return pthread_create(&device->thread, NULL, device_run, device);
}

static int device_end(void **state)
{
    struct device *device = *state;
    close(device->stop_fds[1]);
    pthread_join(device->thread, NULL);
    close(device->stop_fds[0]);
    close(device->listen_fd);
    free(device);
    return 0;
}

static int open_at(struct membrane **ret_membrane, const char *driver, const char *address, int unit_id,
                   struct err *err)
{
    const struct membrane_settings settings = {
        .driver = driver, .address = address, .unit_id = unit_id, .full_scale_bar = 200, .membrane_bar_max = 150};
    return membrane_open(ret_membrane, &settings, err);
}

static struct membrane *opened(struct device *device)
{
    struct membrane *membrane = NULL;
    struct err err = {0};
    if (open_at(&membrane, "bronkhorst", device->address, 1, &err))
        fail_msg("%s", err.message);
    return membrane;
}

/* ---- what the driver makes of it ----------------------------------------------------------------------------- */

static void reads_and_writes(void **state)
{
    struct device *device = *state;
    struct membrane *membrane = opened(device);
    struct membrane_reading reading;
    struct err err = {0};
    assert_int_equal(membrane_read(membrane, &reading, &err), 0);
    assert_true(reading.membrane_bar == (double)12.345f);
    assert_true(reading.membrane_bar_setpoint == (double)12.345f);
    assert_true(reading.capacity_bar == 200);
    assert_true(fabs(reading.slew_bar_per_min - 80) < 1e-9);
    assert_int_equal(reading.control_mode, 0);
    assert_int_equal(membrane_write_setpoint(membrane, 0, &err), 0);
    assert_memory_equal(device->written, "\0\0\0\0", 4);
    assert_int_equal(membrane_write_setpoint(membrane, 12.345, &err), 0);
    assert_memory_equal(device->written, "\x41\x45\x85\x1f", 4);
    memcpy(device->written, "\x41\xa0\x00\x00", 4); /* somebody else's 20 bar */
    assert_int_equal(membrane_write_setpoint(membrane, 13, &err), ERR_STATE);
    assert_string_equal(err.message, "membrane controller: its set point was changed from 12.345 to 20 bar by somebody "
                                     "else; nothing was written");
    assert_memory_equal(device->written, "\x41\xa0\x00\x00", 4);
    assert_int_equal(membrane_read(membrane, &reading, &err), 0);
    assert_int_equal(membrane_write_setpoint(membrane, 12.345, &err), 0);
    membrane_close(membrane);
}

static void refuses_set_points(void **state)
{
    struct device *device = *state;
    struct membrane *membrane = opened(device);
    struct err err = {0};
    const double wrong[] = {NAN, -0.001, 200.001, INFINITY, -INFINITY, 1e300};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        assert_int_equal(membrane_write_setpoint(membrane, wrong[i], &err), ERR_LIMIT);
    const double wrong_slew[] = {NAN, 0, -1, INFINITY};
    for (size_t i = 0; i < sizeof wrong_slew / sizeof wrong_slew[0]; i++)
        assert_int_equal(membrane_write_slew(membrane, wrong_slew[i], &err), ERR_LIMIT);
    device->manner = LOCAL;
    assert_int_equal(membrane_write_setpoint(membrane, 10, &err), ERR_STATE);
    device->manner = OTHER_UNIT;
    assert_int_equal(membrane_write_setpoint(membrane, 10, &err), ERR_STATE);
    assert_int_equal(device->n_writes, 0);
    device->manner = DEAF;
    assert_int_equal(membrane_write_setpoint(membrane, 50, &err), ERR_REFUSED);
    assert_non_null(strstr(err.message, "12.345"));
    membrane_close(membrane);
}

static void refuses_devices(void **state)
{
    struct device *device = *state;
    const struct {
        int manner, code;
        const char *word;
    } cases[] = {
        {OTHER_UNIT, ERR_STATE, "\"psi\""}, {LOCAL, ERR_STATE, "control mode 1"}, {ALARM_MOVES, ERR_STATE, "alarm"}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct membrane *membrane = NULL;
        struct err err = {0};
        device->manner = cases[i].manner;
        assert_int_equal(open_at(&membrane, "bronkhorst", device->address, 1, &err), cases[i].code);
        assert_non_null(strstr(err.message, cases[i].word));
        assert_null(membrane);
    }
    const struct {
        int manner;
        struct membrane_settings settings;
        const char *sentence;
    } golden[] = {
        {OTHER_CAPACITY,
         {.membrane_bar_max = 150},
         "membrane controller: full scale 100 bar does not reach membrane_bar_max 150 bar; not driven; lower "
         "membrane_bar_max in the beamline file, or connect the controller that was meant"},
        {GOOD,
         {.slew_bar_per_min_max = 3},
         "membrane controller: its slowest slew is 4 bar/min, above slew_bar_per_min_max 3; not driven; raise "
         "slew_bar_per_min_max in the beamline file if the cell stands it, or use a controller of smaller range"},
        {OTHER_UNIT,
         {.unit_id = 1},
         "membrane controller works in \"psi\", expected \"bar\"; nothing was written; set its capacity unit to bar"},
        {LOCAL,
         {.unit_id = 1},
         "membrane controller is in control mode 1, expected 0 (digital); nothing was written; give it back to the bus "
         "at its panel"},
        {ALARM_MOVES,
         {.unit_id = 1},
         "membrane controller would move to a set point of its own on an alarm (alarm set point mode 1, expected 0); "
         "not "
         "driven; switch that off"},
        {ANALOG_LATER,
         {.unit_id = 1},
         "membrane controller would follow its analog input after a power cut (IO status 71, bit 6 set); not driven; "
         "make digital its default control mode"},
    };
    for (size_t i = 0; i < sizeof golden / sizeof golden[0]; i++) {
        struct membrane *refused = NULL;
        struct err why = {0};
        struct membrane_settings settings = golden[i].settings;
        settings.driver = "bronkhorst";
        settings.address = device->address;
        settings.unit_id = 1;
        device->manner = golden[i].manner;
        assert_true(membrane_open(&refused, &settings, &why) < 0);
        assert_string_equal(why.message, golden[i].sentence);
    }
    device->manner = GOOD;
    struct membrane *membrane = NULL;
    struct err err = {0};
    assert_int_equal(open_at(&membrane, "bronkhorst", "tcp:127.0.0.1", 1, &err), ERR_ARG);
    assert_int_equal(open_at(&membrane, "bronkhorst", "serial:/nowhere/ttyS0:9600", 1, &err), ERR_LINK);
    assert_int_equal(open_at(&membrane, "bronkhurst", device->address, 1, &err), ERR_ARG);
    assert_int_equal(open_at(&membrane, "bronkhorst", device->address, 0, &err), ERR_ARG);
}

/* Each fault is an error within 1.5 s, leaves the reading untouched, and the next call finds the device again. */
static void survives_faults(void **state)
{
    struct device *device = *state;
    const struct {
        int manner, code;
    } cases[] = {{SILENT, ERR_TIMEOUT},   {GONE, ERR_LINK},          {GARBAGE, ERR_PROTOCOL},  {WRONG_ID, ERR_PROTOCOL},
                 {DRIP, ERR_TIMEOUT},     {EXCEPTION, ERR_REFUSED},  {NOT_A_NUMBER, ERR_DATA}, {OVERRANGE, ERR_DATA},
                 {OTHER_UNIT, ERR_STATE}, {OTHER_CAPACITY, ERR_DATA}};
    struct membrane *membrane = opened(device);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct membrane_reading reading = {.membrane_bar = -7};
        struct err err = {0};
        device->manner = cases[i].manner;
        int64_t begin_ns = clock_wall_ns();
        int code = membrane_read(membrane, &reading, &err);
        if (code != cases[i].code)
            fail_msg("manner %d: expected %s, got %s: %s", cases[i].manner, err_name(cases[i].code), err_name(code),
                     err.message);
        assert_true(clock_wall_ns() - begin_ns < 3 * NS_PER_S / 2);
        assert_true(reading.membrane_bar == -7);
        assert_true(strlen(err.message) > 20);
        device->manner = GOOD;
        if (membrane_read(membrane, &reading, &err))
            fail_msg("after manner %d: %s", cases[i].manner, err.message);
        assert_true(reading.membrane_bar == (double)12.345f);
    }
    membrane_close(membrane);
}

static void late_answer_is_never_current(void **state)
{
    struct device *device = *state;
    struct membrane *membrane = opened(device);
    struct membrane_reading reading = {0};
    struct err err = {0};
    device->manner = LATE;
    assert_int_equal(membrane_read(membrane, &reading, &err), ERR_TIMEOUT);
    for (int i = 0; i < 5; i++) {
        if (membrane_read(membrane, &reading, &err))
            fail_msg("%s", err.message);
        assert_true(reading.membrane_bar == (double)12.345f); /* never 99 */
        assert_true(reading.capacity_bar == 200);
    }
    membrane_close(membrane);
}

static void nobody_listens(void **state)
{
    (void)state;
    int port;
    char address[40];
    close(listen_somewhere(&port));
    snprintf(address, sizeof address, "tcp:127.0.0.1:%d", port);
    struct membrane *membrane = NULL;
    struct err err = {0};
    assert_int_equal(open_at(&membrane, "bronkhorst", address, 1, &err), ERR_LINK);
    assert_null(membrane);
}

/* ---- the simulated controller -------------------------------------------------------------------------------- */

static struct world *world_make(char *directory)
{
    struct world *world;
    struct err err = {0};
    assert_non_null(mkdtemp(directory));
    if (world_create(&world, directory, 7, &err))
        fail_msg("%s", err.message);
    struct world_state now = {
        .t_ns = NS_PER_S, .pressure_gpa = 1, .temperature_k = 296, .membrane_bar = 31.5, .supply_bar = 180};
    world_append(world, &now, &(struct world_sample){.pressure_gpa = 1, .temperature_k = 296, .beta = 1});
    world_command_membrane(world, 31.5, 4.0 / 60, true);
    return world;
}

static void world_remove(struct world *world, const char *directory)
{
    char path[64];
    world_close(world);
    snprintf(path, sizeof path, "%s/world", directory);
    unlink(path);
    snprintf(path, sizeof path, "%s/truth.jsonl", directory);
    unlink(path);
    rmdir(directory);
}

static const char *const models[] = {"bronkhorst", "alicat", "pace"};

static int serve(struct world *world, const char *model, const char *address, struct err *err)
{
    return strcmp(model, "pace") == 0 ? pace_server_run(world, address, err)
                                      : membrane_server_run(world, model, address, err);
}

/* libserialport 0.1.1 opens what it finds under /sys/class/tty and asks for modem lines, which a pseudo-terminal does
 * not have. These two stand in its way in this program: a link made here is found by a name that leads out of /dev, and
 * modem lines are answered as a cable of three wires would. Everything else goes to the system. */
int ioctl(int fd, unsigned long request, ...)
{
    va_list arguments;
    va_start(arguments, request);
    void *argument = va_arg(arguments, void *);
    va_end(arguments);
    long code = syscall(SYS_ioctl, fd, request, argument);
    if (code < 0 && errno == ENOTTY && isatty(fd)) {
        if (request == TIOCMGET)
            *(int *)argument = 0;
        return 0;
    }
    return (int)code;
}

char *realpath(const char *restrict path, char *restrict resolved)
{
    if (strncmp(path, "/tmp/isobar_", 12) != 0)
        return NULL;
    snprintf(resolved, PATH_MAX, "/dev/../../..%s", path);
    return resolved;
}

struct simulated {
    const char *model;
    bool is_line;
    double noise_bar, capacity_bar;
    double slew_bar_per_min_slow; /* what 2 bar/min becomes */
};

struct bench {
    char directory[40], address[120];
    struct world *world;
    pid_t server;
};

static void bench_start(struct bench *bench, const char *model, bool is_line)
{
    struct err err = {0};
    int port;
    snprintf(bench->directory, sizeof bench->directory, "/tmp/isobar_membrane_XXXXXX");
    bench->world = world_make(bench->directory);
    close(listen_somewhere(&port));
    if (is_line)
        snprintf(bench->address, sizeof bench->address, "serial:%s/line:115200", bench->directory);
    else
        snprintf(bench->address, sizeof bench->address, "tcp:127.0.0.1:%d", port);
    bench->server = fork();
    if (bench->server == 0) {
        prctl(PR_SET_PDEATHSIG, SIGTERM); /* a failed check below must not leave it behind */
        int code = serve(bench->world, model, bench->address, &err);
        if (code)
            fprintf(stderr, "%s\n", err.message);
        _exit(code ? 1 : 0);
    }
    struct membrane *membrane;
    int64_t end_ns = clock_wall_ns() + 5 * NS_PER_S;
    while (open_at(&membrane, model, bench->address, 1, &err)) {
        if (clock_wall_ns() > end_ns)
            fail_msg("%s", err.message);
        pause_ms(2);
    }
    membrane_close(membrane);
}

static void server_end(struct bench *bench)
{
    int status;
    assert_int_equal(kill(bench->server, SIGTERM), 0);
    assert_int_equal(waitpid(bench->server, &status, 0), bench->server);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void drives_the_simulated(const struct simulated *simulated)
{
    struct bench bench;
    struct membrane *membrane = NULL;
    struct membrane_reading reading;
    struct world_state now;
    struct err err = {0};
    bench_start(&bench, simulated->model, simulated->is_line);
    if (open_at(&membrane, simulated->model, bench.address, 1, &err))
        fail_msg("%s", err.message);
    double sum = 0, sum2 = 0, noise_bar = simulated->noise_bar;
    for (int i = 0; i < 100; i++) {
        if (membrane_read(membrane, &reading, &err))
            fail_msg("%s", err.message);
        sum += reading.membrane_bar - 31.5;
        sum2 += (reading.membrane_bar - 31.5) * (reading.membrane_bar - 31.5);
    }
    assert_true(fabs(sum / 100) < 0.5 * noise_bar); /* five standard errors */
    assert_true(sqrt(sum2 / 100) > 0.75 * noise_bar && sqrt(sum2 / 100) < 1.25 * noise_bar);
    assert_true(reading.capacity_bar == simulated->capacity_bar);
    assert_true(reading.is_following);
    if (membrane_write_slew(membrane, 6, &err) || membrane_write_setpoint(membrane, 33.25, &err))
        fail_msg("%s", err.message);
    world_read(bench.world, &now);
    assert_true(now.membrane_bar_setpoint == 33.25);
    assert_true(now.output_on);
    if (isfinite(simulated->slew_bar_per_min_slow))
        assert_true(fabs(now.slew_bar_per_s - 0.1) < 1e-12);
    assert_int_equal(membrane_write_slew(membrane, 2, &err), 0);
    assert_int_equal(membrane_read(membrane, &reading, &err), 0);
    double slow = simulated->slew_bar_per_min_slow;
    assert_true(isinf(slow) ? isinf(reading.slew_bar_per_min) : fabs(reading.slew_bar_per_min - slow) < 1e-4);
    assert_true(reading.membrane_bar_setpoint == 33.25);
    if (membrane_shut(membrane, &err))
        fail_msg("%s", err.message);
    world_read(bench.world, &now);
    assert_false(now.output_on);
    assert_true(fabs(now.membrane_bar_setpoint - 31.5) < 6 * noise_bar); /* where the membrane stands */
    assert_int_equal(membrane_read(membrane, &reading, &err), 0);
    assert_false(reading.is_following);
    assert_int_equal(membrane_write_setpoint(membrane, 20, &err), ERR_STATE);
    server_end(&bench);
    assert_int_equal(membrane_read(membrane, &reading, &err), ERR_LINK);
    assert_int_equal(membrane_read(membrane, &reading, &err), ERR_LINK);
    membrane_close(membrane);
    world_remove(bench.world, bench.directory);
}

static void drives_every_simulated_server(void **state)
{
    (void)state;
    static const struct simulated all[] = {
        {"bronkhorst", false, 0.002, 200, 4},    {"bronkhorst", true, 0.002, 200, 4},
        {"alicat", false, 0.002, 200, INFINITY}, {"alicat", true, 0.002, 200, INFINITY},
        {"pace", false, 0.001, 210, 2},          {"pace", true, 0.001, 210, 2},
    };
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        print_message("%s %s\n", all[i].model, all[i].is_line ? "on a serial line" : "by TCP");
        drives_the_simulated(&all[i]);
    }
}

#define ANSWER_MS 60
#define FAULT_MS 90

/* ---- what libmodbus does by itself --------------------------------------------------------------------------------
 */

/* Reads registers 0x8168 and 0xa100 in turn by libmodbus alone, going on after an error; how many pressures were wrong.
 */
static int naive_wrong(const char *line)
{
    uint16_t words[2];
    int n_wrong = 0;
    modbus_t *modbus = modbus_new_rtu(line, 19200, 'N', 8, 1);
    modbus_set_slave(modbus, 1);
    modbus_set_response_timeout(modbus, 0, 1000 * ANSWER_MS);
    assert_int_equal(modbus_connect(modbus), 0);
    for (int i = 0; i < 20; i++) {
        modbus_read_registers(modbus, 0x8168, 2, words);
        if (modbus_read_registers(modbus, 0xa100, 2, words) == 2)
            n_wrong += fabs(registers_unpack_float(words, REGISTERS_HIGH_FIRST) - 31.5) > 1;
    }
    modbus_close(modbus);
    modbus_free(modbus);
    return n_wrong;
}

/* One late answer, and the naive code takes each pressure from the request before it, for ever; ours never does. */
static void a_stale_answer_is_the_trap_that_it_is_said_to_be(void **state)
{
    (void)state;
    struct bench bench;
    struct membrane_reading reading;
    char line[80];
    bench_start(&bench, "bronkhorst", true);
    snprintf(line, sizeof line, "%s/line", bench.directory);
    assert_int_equal(naive_wrong(line), 0);
    world_set_fault(bench.world, WORLD_MEMBRANE, WORLD_FAULT_DELAYED, FAULT_MS, 1);
    pid_t healer = fork();
    if (healer == 0) {
        pause_ms(FAULT_MS / 2); /* the fault lasts for one answer */
        world_set_fault(bench.world, WORLD_MEMBRANE, WORLD_FAULT_NONE, 0, 1);
        _exit(0);
    }
    assert_true(naive_wrong(line) > 10);
    waitpid(healer, NULL, 0);
    struct membrane_settings settings = {
        .driver = "bronkhorst", .address = bench.address, .unit_id = 1, .answer_ms = ANSWER_MS};
    struct membrane *membrane;
    struct err err = {0};
    assert_int_equal(membrane_open(&membrane, &settings, &err), 0);
    world_set_fault(bench.world, WORLD_MEMBRANE, WORLD_FAULT_DELAYED, FAULT_MS, 1);
    assert_int_equal(membrane_read(membrane, &reading, &err), ERR_TIMEOUT);
    world_set_fault(bench.world, WORLD_MEMBRANE, WORLD_FAULT_NONE, 0, 1);
    int n_read = 0;
    for (int i = 0; i < 20; i++)
        if (membrane_read(membrane, &reading, &err) == 0) {
            assert_true(fabs(reading.membrane_bar - 31.5) < 0.02);
            n_read++;
        }
    assert_true(n_read >= 18);
    membrane_close(membrane);
    server_end(&bench);
    world_remove(bench.world, bench.directory);
}

/* With its own recovery on, libmodbus never comes back from a server that has gone; ours does at once. */
static void recovery_by_libmodbus_hangs(void **state)
{
    (void)state;
    struct bench bench;
    struct membrane *membrane;
    struct membrane_reading reading;
    struct err err = {0};
    bench_start(&bench, "bronkhorst", false);
    assert_int_equal(open_at(&membrane, "bronkhorst", bench.address, 1, &err), 0);
    char service[8];
    snprintf(service, sizeof service, "%s", strrchr(bench.address, ':') + 1);
    int pipe_fds[2];
    assert_int_equal(pipe(pipe_fds), 0);
    pid_t naive = fork();
    if (naive == 0) {
        uint16_t words[2];
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        modbus_t *modbus = modbus_new_tcp_pi("127.0.0.1", service);
        modbus_set_slave(modbus, 1);
        modbus_set_error_recovery(modbus, MODBUS_ERROR_RECOVERY_LINK);
        modbus_set_response_timeout(modbus, 0, 100000);
        int is_read = modbus_connect(modbus) == 0 && modbus_read_registers(modbus, 0xa100, 2, words) == 2;
        if (write(pipe_fds[1], is_read ? "r" : "-", 1) != 1)
            _exit(1);
        for (int n_failed = 0; n_failed < 20;)
            n_failed += modbus_read_registers(modbus, 0xa100, 2, words) != 2;
        _exit(0); /* it came back, as it should */
    }
    char word;
    assert_int_equal(read(pipe_fds[0], &word, 1), 1);
    assert_int_equal(word, 'r');
    server_end(&bench);
    int64_t begin_ns = clock_wall_ns();
    assert_int_equal(membrane_read(membrane, &reading, &err), ERR_LINK);
    assert_true(clock_wall_ns() - begin_ns < NS_PER_S / 2);
    pause_ms(1500); /* fifteen times what it was allowed to wait */
    int status = 0;
    if (waitpid(naive, &status, WNOHANG) != 0)
        fail_msg("libmodbus came back (status %x)", (unsigned)status);
    kill(naive, SIGKILL);
    waitpid(naive, NULL, 0);
    close(pipe_fds[0]);
    close(pipe_fds[1]);
    membrane_close(membrane);
    world_remove(bench.world, bench.directory);
}

/* ---- random faults ------------------------------------------------------------------------------------------------
 */

#define ROUND_S 6.0             /* one reading per 6 s, as in an isobar */
#define ROUNDS 1200             /* two hours of them */
#define FAULT_FRACTION 0.15     /* of the answers in a bad round: the first of a round is not always the one */
#define ROUNDS_TO_RECOVER 4     /* a busy machine may answer late once more */
#define ROUNDS_MAX (4 * ROUNDS) /* with those in which the line itself was late */
#define LATE_NS (ANSWER_MS * NS_PER_MS / 4) /* of a line */

static void tell_world(struct world *world, int64_t *t_ns, double membrane_bar)
{
    *t_ns += NS_PER_S / 2;
    world_append(
        world,
        &(struct world_state){
            .t_ns = *t_ns, .pressure_gpa = 1, .temperature_k = 296, .membrane_bar = membrane_bar, .supply_bar = 180},
        &(struct world_sample){.pressure_gpa = 1, .temperature_k = 296, .beta = 1});
}

struct hours {
    struct bench *bench;
    struct membrane *membrane; /* NULL: closed, as the thread's harness does after a failure */
    struct membrane_settings settings;
    enum world_fault fault;
    bool is_now;
    double membrane_bar; /* the truth */
    struct witness witness;
    int n_read, n_failed, n_asked, n_written, n_bad;
    int n_late; /* rounds in which the line itself was late: played again */
};

static void count_bad(struct hours *hours, bool is_bad, const char *what, double seen, double expected)
{
    hours->n_bad += is_bad;
    if (is_bad)
        printf("bad: %s: %g, expected %g\n", what, seen, expected);
}

/* One round, as controller/membrane_link works: open, perhaps write, read; closed after a failure. False: no reading.
 */
static bool round_pass(struct hours *hours, double setpoint_bar)
{
    struct membrane_reading reading;
    struct world_state after;
    struct err err = {0};
    int code = hours->membrane ? 0 : membrane_open(&hours->membrane, &hours->settings, &err);
    if (code == 0 && setpoint_bar > 0)
        code = membrane_write_setpoint(hours->membrane, setpoint_bar, &err);
    bool is_written = code == 0 && setpoint_bar > 0;
    world_read(hours->bench->world, &after);
    hours->n_asked += setpoint_bar > 0;
    count_bad(hours, is_written && fabs(after.membrane_bar_setpoint - setpoint_bar) > 1e-6,
              "set point not the one written", after.membrane_bar_setpoint, setpoint_bar);
    hours->n_written += is_written;
    if (code == 0)
        code = membrane_read(hours->membrane, &reading, &err);
    if (code) {
        membrane_close(hours->membrane);
        hours->membrane = NULL;
        return false;
    }
    bool is_true = fabs(reading.membrane_bar - hours->membrane_bar) < 0.02;
    count_bad(hours, !is_true && !(hours->is_now && hours->fault == WORLD_FAULT_STUCK), /* the device's own word */
              "wrong reading", reading.membrane_bar, hours->membrane_bar);
    struct world_state later; /* a command that was late may have arrived only now */
    world_read(hours->bench->world, &later);
    count_bad(hours,
              fabs(reading.membrane_bar_setpoint - after.membrane_bar_setpoint) > 1e-4 &&
                  fabs(reading.membrane_bar_setpoint - later.membrane_bar_setpoint) > 1e-4,
              "wrong set point read", reading.membrane_bar_setpoint, later.membrane_bar_setpoint);
    return true;
}

static void two_hours_of(struct hours *hours, struct random *random, int64_t *t_ns)
{
    struct world_state begin, end;
    world_read(hours->bench->world, &begin);
    int left = 0, n_lost = 0, n_lost_max = 0;
    for (int i = 0; hours->n_read + hours->n_failed < ROUNDS && i < ROUNDS_MAX; i++) {
        hours->membrane_bar = 30 + 20 * random_uniform(random); /* never what it was before */
        tell_world(hours->bench->world, t_ns, hours->membrane_bar);
        if (left == 0 && random_uniform(random) < 0.03)
            left = 1 + (int)(3 * random_uniform(random));
        hours->is_now = left > 0;
        world_set_fault(hours->bench->world, WORLD_MEMBRANE, hours->is_now ? hours->fault : WORLD_FAULT_NONE, FAULT_MS,
                        FAULT_FRACTION);
        double setpoint_bar = i % 5 == 0 ? 20 + floor(163840.0 * i / ROUNDS) / 8192 : 0;
        bool is_read = round_pass(hours, setpoint_bar), is_late = witness_was_late(&hours->witness, LATE_NS);
        n_lost = is_read || is_late || hours->is_now ? 0 : n_lost + 1;
        n_lost_max = n_lost > n_lost_max ? n_lost : n_lost_max;
        hours->n_late += is_late;
        hours->n_read += is_read && !is_late;
        hours->n_failed += !is_read && !is_late;
        left -= hours->is_now && !is_late;
    }
    world_set_fault(hours->bench->world, WORLD_MEMBRANE, WORLD_FAULT_NONE, FAULT_MS, 1);
    world_read(hours->bench->world, &end);
    int64_t n_told = end.n_membrane_told - begin.n_membrane_told;
    double n_repeated = (double)(end.n_membrane_repeated - begin.n_membrane_repeated); /* no two asked for are equal */
    count_bad(hours, n_told > hours->n_asked, "more set points told than asked for", (double)n_told, hours->n_asked);
    count_bad(hours, n_repeated > 0, "set points told twice", n_repeated, 0);
    count_bad(hours, n_told < hours->n_written, "set points written and not told", (double)n_told, hours->n_written);
    count_bad(hours, n_lost_max > ROUNDS_TO_RECOVER, "rounds until it recovered", n_lost_max, ROUNDS_TO_RECOVER);
    count_bad(hours, hours->n_read + hours->n_failed < ROUNDS, "rounds, but for the late ones",
              hours->n_read + hours->n_failed, ROUNDS);
}

static const char *const fault_names[WORLD_FAULT_COUNT] = {
#define X(id, text) [WORLD_FAULT_##id] = text,
    WORLD_FAULT_LIST(X)
#undef X
};

/* Every mode at one instrument; the number of things that went wrong. */
static int all_hours(const char *model, bool is_line, uint64_t seed)
{
    struct bench bench;
    struct random random = {.state = seed};
    int64_t t_ns = NS_PER_S;
    int n_bad = 0;
    bench_start(&bench, model, is_line);
    struct membrane_settings settings = {.driver = model,
                                         .address = bench.address,
                                         .unit_id = 1,
                                         .full_scale_bar = 200,
                                         .membrane_bar_max = 150,
                                         .answer_ms = ANSWER_MS};
    for (int fault = WORLD_FAULT_NONE; fault < WORLD_FAULT_COUNT; fault++) {
        struct hours hours = {.bench = &bench, .settings = settings, .fault = (enum world_fault)fault};
        if (is_line)
            witness_begin(&hours.witness);
        two_hours_of(&hours, &random, &t_ns);
        if (is_line)
            witness_end(&hours.witness);
        membrane_close(hours.membrane);
        bool has_failed = hours.n_failed > 0 || fault == WORLD_FAULT_NONE || fault == WORLD_FAULT_STUCK;
        n_bad += hours.n_bad + !has_failed + (hours.n_read < ROUNDS * 8 / 10);
        printf("%s %s, %s: %d read, %d failed, %d late, %d set points, %d bad\n", model,
               is_line ? "on a line" : "by TCP", fault_names[fault], hours.n_read, hours.n_failed, hours.n_late,
               hours.n_written, hours.n_bad);
    }
    server_end(&bench);
    world_remove(bench.world, bench.directory);
    return n_bad;
}

/* All at once, each in a process of its own: most of it is waiting. */
static void two_hours_of_random_faults(void **state)
{
    (void)state;
    const char *given = getenv("SEED");
    uint64_t seed = given ? strtoull(given, NULL, 10) : 1;
    print_message("seed %llu\n", (unsigned long long)seed);
    pid_t children[6];
    for (int i = 0; i < 6; i++) {
        fflush(stdout);
        children[i] = fork();
        if (children[i] == 0) {
            prctl(PR_SET_PDEATHSIG, SIGTERM);
            int n_bad = all_hours(models[i / 2], i % 2, seed + (uint64_t)i);
            fflush(stdout);
            _exit(n_bad > 0);
        }
    }
    for (int i = 0; i < 6; i++) {
        int status;
        assert_int_equal(waitpid(children[i], &status, 0), children[i]);
        if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
            fail_msg("%s: see above", models[i / 2]);
    }
}

static void server_stays_on_loopback(void **state)
{
    (void)state;
    struct err err = {0};
    char directory[] = "/tmp/isobar_membrane_XXXXXX";
    struct world *world = world_make(directory);
    for (size_t i = 0; i < sizeof models / sizeof models[0]; i++) {
        assert_int_equal(serve(world, models[i], "tcp:0.0.0.0:1502", &err), ERR_ARG);
        assert_int_equal(serve(world, models[i], "tcp:192.0.2.1:1502", &err), ERR_ARG);
    }
    assert_int_equal(membrane_server_run(world, "other", "tcp:127.0.0.1:1", &err), ERR_ARG);
    world_remove(world, directory);
}

/* ---- for the wire test --------------------------------------------------------------------------------------- */

static int drive(const char *driver, const char *address)
{
    struct membrane *membrane = NULL;
    struct membrane_reading reading;
    struct err err = {0};
    char line[80];
    double value;
    int code = open_at(&membrane, driver, address, 1, &err);
    for (;;) {
        printf("%s %s\n", err_name(code), code ? err.message : "");
        fflush(stdout);
        if (!membrane || !fgets(line, sizeof line, stdin))
            break;
        if (sscanf(line, "setpoint %lf", &value) == 1)
            code = membrane_write_setpoint(membrane, value, &err);
        else if (strcmp(line, "shut\n") == 0)
            code = membrane_shut(membrane, &err);
        else if (sscanf(line, "slew %lf", &value) == 1)
            code = membrane_write_slew(membrane, value, &err);
        else if ((code = membrane_read(membrane, &reading, &err)) == 0)
            printf("%.9g %.9g %.9g %.9g %d %u %.9g %d ", reading.membrane_bar, reading.membrane_bar_setpoint,
                   reading.capacity_bar, reading.slew_bar_per_min, reading.control_mode, reading.alarm,
                   reading.supply_bar, reading.is_following);
    }
    membrane_close(membrane);
    return 0;
}

static int serve_alone(const char *model, const char *address)
{
    struct err err = {0};
    char directory[] = "/tmp/isobar_membrane_XXXXXX";
    struct world *world = world_make(directory);
    int code = serve(world, model, address, &err);
    if (code)
        fprintf(stderr, "%s\n", err.message);
    world_remove(world, directory);
    return code ? 1 : 0;
}

int main(int argc, char **argv)
{
    if (argc == 4 && strcmp(argv[1], "drive") == 0)
        return drive(argv[2], argv[3]);
    if (argc == 4 && strcmp(argv[1], "serve") == 0)
        return serve_alone(argv[2], argv[3]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(reads_and_writes, device_start, device_end),
        cmocka_unit_test_setup_teardown(refuses_set_points, device_start, device_end),
        cmocka_unit_test_setup_teardown(refuses_devices, device_start, device_end),
        cmocka_unit_test_setup_teardown(survives_faults, device_start, device_end),
        cmocka_unit_test_setup_teardown(late_answer_is_never_current, device_start, device_end),
        cmocka_unit_test(nobody_listens),
        cmocka_unit_test(drives_every_simulated_server),
        cmocka_unit_test(a_stale_answer_is_the_trap_that_it_is_said_to_be),
        cmocka_unit_test(recovery_by_libmodbus_hangs),
        cmocka_unit_test(two_hours_of_random_faults),
        cmocka_unit_test(server_stays_on_loopback),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
