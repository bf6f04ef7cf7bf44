/*
 * Goal: the detector's driver takes a scan, refuses what it must, aborts, and survives the loss of the IOC, on the real
 * wire.
 * Method: the simulated world and the real IOC in processes of their own (isobar-sim of the same build), this program
 * as the Channel Access client. Every wait is for a state, with a deadline; the processes are ended by their ids.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <ftw.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "drivers/eiger.h"
#include "drivers/ring.h"

static char directory[] = "/tmp/isobar-ioc-XXXXXX";
static char raw[64], program[4096];
static int port;
static pid_t world_pid, ioc_pid;
static struct epics *epics;
static struct eiger *eiger;
static struct err err;

static int free_port(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, size), 0);
    getsockname(fd, (struct sockaddr *)&address, &size);
    close(fd);
    return ntohs(address.sin_port);
}

/* Starts a part of isobar-sim; returns when it has written a line, if `waits`. */
static pid_t start(const char *part, bool waits)
{
    int output[2];
    assert_int_equal(pipe(output), 0);
    pid_t pid = fork();
    if (pid == 0) {
        char port_text[16];
        snprintf(port_text, sizeof port_text, "%d", port);
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        dup2(output[1], 1);
        close(output[0]);
        if (!waits) /* what an IOC says when it starts is of no interest here */
            dup2(output[1], 2);
        execl(program, "isobar-sim", part, "--dir", directory, waits ? "--seed" : "--port", waits ? "5" : port_text,
              (char *)NULL);
        _exit(127);
    }
    close(output[1]);
    char line[64];
    if (waits)
        assert_true(read(output[0], line, sizeof line) > 0); /* the pipe stays open: the part may go on talking */
    return pid;
}

static void end(pid_t pid, int signal_number)
{
    int status;
    kill(pid, signal_number);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (signal_number == SIGTERM)
        assert_int_equal(status, 0);
}

static int set_up(void **state)
{
    (void)state;
    ssize_t n = readlink("/proc/self/exe", program, sizeof program - 32);
    assert_true(n > 0);
    program[n] = '\0';
    *strrchr(program, '/') = '\0';
    char *folder = strrchr(program, '/');
    memcpy(folder, "/bin/isobar-sim", sizeof "/bin/isobar-sim");
    assert_non_null(mkdtemp(directory));
    snprintf(raw, sizeof raw, "%s/raw", directory);
    mkdir(raw, 0700);
    port = free_port();
    world_pid = start("world", true);
    ioc_pid = start("ioc", false);
    char address[32];
    snprintf(address, sizeof address, "127.0.0.1:%d", port);
    assert_int_equal(epics_open(&epics, address, &err), 0);
    assert_int_equal(eiger_open(&eiger, epics, "ISB:cam1:", &err), 0);
    return 0;
}

static int remove_entry(const char *path, const struct stat *status, int kind, struct FTW *walk)
{
    (void)status, (void)kind, (void)walk;
    return remove(path);
}

static int tear_down(void **state)
{
    (void)state;
    eiger_close(eiger);
    epics_close(epics);
    end(ioc_pid, SIGTERM);
    end(world_pid, SIGTERM);
    return nftw(directory, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
}

static struct eiger_scan scan_of(const char *name, int n_frames)
{
    struct eiger_scan scan = {.n_frames = n_frames,
                              .n_frames_per_file = 100,
                              .frame_time_s = 0.1,
                              .photon_energy_ev = 20950,
                              .beam_center_x_px = 128,
                              .beam_center_y_px = -2200,
                              .distance_m = 5};
    snprintf(scan.file_path, sizeof scan.file_path, "%s", raw);
    snprintf(scan.name, sizeof scan.name, "%s", name);
    return scan;
}

#define CHECK_OK(call)                                                                                                 \
    do {                                                                                                               \
        if ((call) != 0)                                                                                               \
            fail_msg("%s: %s", #call, err.message);                                                                    \
    } while (0)

enum until { UNTIL_DONE, UNTIL_IMAGES, UNTIL_LOST };

static struct eiger_progress watch(enum until until)
{
    int64_t deadline = clock_wall_ns() + 20 * NS_PER_S;
    uint64_t n_seen = 0;
    for (;;) {
        struct eiger_progress progress;
        eiger_poll(eiger, &progress);
        if ((until == UNTIL_DONE && progress.is_done) || (until == UNTIL_IMAGES && progress.n_images > 0) ||
            (until == UNTIL_LOST && !progress.is_connected))
            return progress;
        if (!epics_wait(epics, &n_seen, deadline))
            fail_msg("nothing in 20 s: state %s, message %s", progress.detector_state, progress.status_message);
    }
}

static void take_scan(const char *name, int n_frames)
{
    struct eiger_scan scan = scan_of(name, n_frames);
    char master[EIGER_PATH_MAX];
    CHECK_OK(eiger_wait_ready(eiger, 20, &err));
    CHECK_OK(eiger_configure(eiger, &scan, &err));
    CHECK_OK(eiger_start(eiger, &err));
    struct eiger_progress progress = watch(UNTIL_DONE);
    CHECK_OK(eiger_finish(eiger, master, &err));
    assert_string_equal(master, progress.master_path);
    assert_int_equal(access(master, R_OK), 0);
}

static void test_ring(void **state)
{
    (void)state;
    struct ring *ring;
    double current_ma = NAN;
    bool is_valid;
    CHECK_OK(ring_open(&ring, epics, "ISB:RING:Current", &err));
    CHECK_OK(epics_wait_connected(epics, "", 10, &err));
    ring_read(ring, &current_ma, &is_valid);
    assert_true(is_valid);
    assert_true(current_ma > 150 && current_ma <= 200);
    ring_close(ring);
}

static void test_scans(void **state)
{
    (void)state;
    char path[256];
    for (int i = 0; i < 5; i++) { /* back to back: the busy logic must work every time */
        snprintf(path, sizeof path, "ok%d", i);
        take_scan(path, 50 + 100 * i);
    }
    snprintf(path, sizeof path, "%s/ok4_5_data_000005.h5", raw);
    assert_int_equal(access(path, R_OK), 0);
}

static void check_refused(struct eiger_scan scan, int code, const char *word)
{
    CHECK_OK(eiger_wait_ready(eiger, 20, &err));
    assert_int_equal(eiger_configure(eiger, &scan, &err), code);
    if (!strstr(err.message, word))
        fail_msg("\"%s\" does not mention %s", err.message, word);
    assert_int_equal(eiger_start(eiger, &err), ERR_STATE);
}

static void test_refusals(void **state)
{
    (void)state;
    struct eiger_scan scan = scan_of("ok0", 100);
    check_refused(scan, ERR_REFUSED, "exists already");
    scan = scan_of("new", 100);
    snprintf(scan.file_path, sizeof scan.file_path, "%s/nowhere", raw);
    check_refused(scan, ERR_REFUSED, "does not exist");
    scan = scan_of("new", 100);
    scan.frame_time_s = 3000; /* the detector clamps to 1800 s */
    check_refused(scan, ERR_REFUSED, "AcquireTime");
    scan.frame_time_s = NAN;
    check_refused(scan, ERR_ARG, "refused");
    scan = scan_of("a/b", 100);
    check_refused(scan, ERR_ARG, "a/b");
}

static void test_abort(void **state)
{
    (void)state;
    struct eiger_scan scan = scan_of("cut", 100000);
    char master[EIGER_PATH_MAX];
    CHECK_OK(eiger_wait_ready(eiger, 20, &err));
    CHECK_OK(eiger_configure(eiger, &scan, &err));
    CHECK_OK(eiger_start(eiger, &err));
    watch(UNTIL_IMAGES);
    CHECK_OK(eiger_abort(eiger, &err));
    assert_int_equal(eiger_finish(eiger, master, &err), ERR_STATE);
    take_scan("after_abort", 60); /* at once: the driver must have waited for the end of the old series */
    CHECK_OK(eiger_abort(eiger, &err));
}

static void test_lost_ioc(void **state)
{
    (void)state;
    struct eiger_scan scan = scan_of("lost", 100000);
    char master[EIGER_PATH_MAX];
    CHECK_OK(eiger_wait_ready(eiger, 20, &err));
    CHECK_OK(eiger_configure(eiger, &scan, &err));
    CHECK_OK(eiger_start(eiger, &err));
    watch(UNTIL_IMAGES);
    int64_t wall_ns = clock_wall_ns();
    end(ioc_pid, SIGKILL);
    watch(UNTIL_LOST);
    assert_true(clock_wall_ns() - wall_ns < 2 * NS_PER_S);
    assert_int_equal(eiger_finish(eiger, master, &err), ERR_LINK);
    assert_int_equal(eiger_abort(eiger, &err), ERR_LINK);
    ioc_pid = start("ioc", false);
    CHECK_OK(eiger_wait_ready(eiger, 20, &err));
    print_message("back after %.1f s\n", s_from_ns(clock_wall_ns() - wall_ns));
    struct eiger_progress progress;
    eiger_poll(eiger, &progress);
    assert_false(progress.is_connected); /* the old scan stays lost, though the IOC is back */
    take_scan("after_loss", 60);
}

/* An IOC that hangs: the put times out, a second one is refused, and all is well when it goes on. */
static void test_hung_ioc(void **state)
{
    (void)state;
    struct epics_channel *channel;
    CHECK_OK(epics_channel_open(&channel, epics, "ISB:cam1:BeamX", &err));
    CHECK_OK(epics_channel_put_real(channel, 100, 5, &err));
    kill(ioc_pid, SIGSTOP);
    assert_int_equal(epics_channel_put_real(channel, 101, 0.2, &err), ERR_TIMEOUT);
    assert_int_equal(epics_channel_put_real(channel, 102, 0.2, &err), ERR_STATE);
    kill(ioc_pid, SIGCONT);
    uint64_t n_seen = 0;
    int64_t deadline = clock_wall_ns() + 10 * NS_PER_S;
    while (epics_channel_is_pending(channel))
        assert_true(epics_wait(epics, &n_seen, deadline));
    CHECK_OK(epics_channel_put_real(channel, 103, 5, &err));
    CHECK_OK(epics_channel_open(&channel, epics, "ISB:cam1:TriggerMode", &err));
    assert_int_equal(epics_channel_put_text(channel, "No Such Mode", 5, &err), ERR_REFUSED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_ring),     cmocka_unit_test(test_scans),
                                       cmocka_unit_test(test_refusals), cmocka_unit_test(test_abort),
                                       cmocka_unit_test(test_lost_ioc), cmocka_unit_test(test_hung_ioc)};
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
