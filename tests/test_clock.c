/*
 * Goal: both clocks never run backwards; the shared one runs at the slowest pace asked for by any process, forgets the
 * requests of the dead, stands still without its keeper and says so.
 * Method: a keeper in a child process, readers here and in threads; deadlines of wall time, no fixed sleeps for
 * synchronisation. Speeds are judged over the clock's own anchor, never against the scheduler of a busy machine.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"

#define UTC_NS_START INT64_C(1800000000000000000)
#define SPEED_MAX 1000.0
#define WAIT_NS (5 * NS_PER_S)

static char path[200];

static void nap(int us)
{
    struct timespec wait = {.tv_nsec = us * 1000L};
    nanosleep(&wait, NULL);
}

/* Keeps the page until it is killed; says so on the pipe when the page is there. */
static pid_t start_keeper(void)
{
    int ends[2];
    char byte;
    assert_int_equal(pipe(ends), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        struct clock *clock;
        struct err err = {0};
        if (clock_publish(&clock, path, UTC_NS_START, SPEED_MAX, &err) || write(ends[1], "r", 1) != 1)
            _exit(1);
        for (;;) {
            clock_keep(clock);
            nap(500);
        }
    }
    close(ends[1]);
    assert_int_equal(read(ends[0], &byte, 1), 1);
    close(ends[0]);
    return pid;
}

static void end_process(pid_t pid)
{
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}

static int set_up(void **state)
{
    static pid_t keeper;
    snprintf(path, sizeof path, "/tmp/test_clock_%d", (int)getpid());
    keeper = start_keeper();
    *state = &keeper;
    return 0;
}

static int tear_down(void **state)
{
    end_process(*(pid_t *)*state);
    unlink(path);
    return 0;
}

static struct clock *join(void)
{
    struct clock *clock = NULL;
    struct err err = {0};
    assert_int_equal(clock_open_shared(&clock, path, &err), 0);
    return clock;
}

static bool wait_speed(struct clock *clock, double speed)
{
    int64_t end_ns = clock_wall_ns() + WAIT_NS;
    while (clock_speed(clock) != speed && clock_wall_ns() < end_ns)
        nap(500);
    return clock_speed(clock) == speed;
}

static void the_real_clock_is_wall_time(void **state)
{
    (void)state;
    struct clock *clock;
    struct timespec utc;
    assert_int_equal(clock_open_real(&clock, NULL), 0);
    int64_t last_ns = 0;
    for (int i = 0; i < 100000; i++) {
        int64_t now_ns = clock_now_ns(clock);
        assert_true(now_ns >= last_ns);
        last_ns = now_ns;
    }
    assert_true(clock_is_real(clock) && clock_is_alive(clock) && clock_speed(clock) == 1.0);
    clock_request_pace(clock, "test", 50.0);
    assert_true(clock_speed(clock) == 1.0);
    clock_gettime(CLOCK_REALTIME, &utc);
    int64_t error_ns = clock_utc_ns(clock, clock_now_ns(clock)) - (utc.tv_sec * NS_PER_S + utc.tv_nsec);
    assert_true(error_ns > -NS_PER_S && error_ns < NS_PER_S);
    int64_t from_ns = clock_now_ns(clock);
    clock_sleep_until(clock, from_ns + 20 * NS_PER_MS, 1000);
    assert_true(clock_now_ns(clock) >= from_ns + 20 * NS_PER_MS);
    from_ns = clock_now_ns(clock);
    clock_sleep_until(clock, from_ns + 3600 * NS_PER_S, 20); /* the wall's limit is first */
    assert_true(clock_now_ns(clock) - from_ns < 2 * NS_PER_S);
    clock_close(clock);
    clock_close(NULL);
}

static void what_is_no_clock_is_refused(void **state)
{
    (void)state;
    struct clock *clock = NULL;
    struct err err = {0};
    assert_int_equal(clock_open_shared(&clock, "/nonexistent/clock", &err), ERR_IO);
    char other[256];
    snprintf(other, sizeof other, "%s.other", path);
    FILE *file = fopen(other, "w");
    assert_non_null(file);
    fputs("short", file);
    fclose(file);
    assert_int_equal(clock_open_shared(&clock, other, &err), ERR_DATA);
    file = fopen(other, "w");
    for (int i = 0; i < 4096; i++)
        fputc('x', file);
    fclose(file);
    assert_int_equal(clock_open_shared(&clock, other, &err), ERR_DATA);
    unlink(other);
    assert_int_equal(clock_publish(&clock, other, 0, 0.5, &err), ERR_ARG);
    assert_null(clock);
}

static void the_slowest_request_of_all_processes_rules(void **state)
{
    (void)state;
    struct clock *mine = join();
    assert_true(wait_speed(mine, SPEED_MAX));
    clock_request_pace(mine, "one", 100.0);
    clock_request_pace(mine, "two", 300.0); /* two parties in one process */
    assert_true(wait_speed(mine, 100.0));
    pid_t other = fork();
    assert_true(other >= 0);
    if (other == 0) {
        struct clock *its = NULL;
        if (clock_open_shared(&its, path, NULL))
            _exit(1);
        clock_request_pace(its, "one", 7.0); /* the same name in another process is another party */
        for (;;)
            pause();
    }
    bool is_slow = wait_speed(mine, 7.0);
    clock_request_pace(mine, "one", 1000.0);
    clock_request_pace(mine, "two", 1000.0);
    bool is_still_slow = wait_speed(mine, 7.0);
    end_process(other);
    assert_true(is_slow && is_still_slow);
    assert_true(wait_speed(mine, SPEED_MAX)); /* the request has ended with its process */
    clock_request_pace(mine, "one", 0.001);
    assert_true(wait_speed(mine, 1.0)); /* never slower than the wall */
    clock_request_pace(mine, "one", 1e9);
    assert_true(wait_speed(mine, SPEED_MAX));
    clock_close(mine);
}

static void utc_follows_the_clock(void **state)
{
    (void)state;
    struct clock *clock = join();
    assert_false(clock_is_real(clock));
    assert_true(clock_is_alive(clock));
    int64_t t_ns = clock_now_ns(clock);
    assert_true(clock_utc_ns(clock, t_ns + NS_PER_S) - clock_utc_ns(clock, t_ns) == NS_PER_S);
    assert_true(clock_utc_ns(clock, t_ns) >= UTC_NS_START);
    int64_t from_ns = clock_now_ns(clock);
    clock_sleep_until(clock, from_ns + 20 * NS_PER_S, 5000);
    assert_true(clock_now_ns(clock) >= from_ns + 20 * NS_PER_S);
    clock_close(clock);
}

static _Atomic bool is_over;
static _Atomic int64_t worst_back_ns;

static void *watch(void *argument)
{
    const struct clock *clock = argument;
    int64_t last_ns = 0;
    while (!is_over) {
        int64_t now_ns = clock_now_ns(clock);
        if (last_ns - now_ns > worst_back_ns)
            worst_back_ns = last_ns - now_ns;
        last_ns = now_ns > last_ns ? now_ns : last_ns;
    }
    return NULL;
}

/* The pace changes all the time, and there are more threads than processors, so that the keeper is interrupted too. */
static void time_never_runs_backwards(void **state)
{
    (void)state;
    struct clock *clock = join();
    pthread_t threads[3];
    is_over = false;
    worst_back_ns = 0;
    for (int i = 0; i < 3; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, watch, clock), 0);
    int64_t end_ns = clock_wall_ns() + 2 * NS_PER_S;
    for (int i = 0; clock_wall_ns() < end_ns; i++) {
        clock_request_pace(clock, "one", i % 2 ? 1.0 : 1e9);
        nap(2000);
    }
    is_over = true;
    for (int i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
    clock_request_pace(clock, "one", 1e9);
    clock_close(clock);
    if (worst_back_ns > 0)
        fail_msg("time ran backwards by up to %.3f s", s_from_ns(worst_back_ns));
}

static void without_its_keeper_time_stands_still(void **state)
{
    pid_t *keeper = *state;
    struct clock *clock = join();
    int64_t before_ns = clock_now_ns(clock), killed_wall_ns = clock_wall_ns();
    end_process(*keeper);
    int64_t now_ns = clock_now_ns(clock), last_ns;
    do { /* within the grace it still runs */
        last_ns = now_ns;
        nap(150000);
        now_ns = clock_now_ns(clock);
    } while (now_ns != last_ns && clock_wall_ns() - killed_wall_ns < WAIT_NS);
    assert_true(now_ns == last_ns && now_ns >= before_ns);
    while (clock_is_alive(clock) && clock_wall_ns() - killed_wall_ns < WAIT_NS)
        nap(1000);
    double lost_s = s_from_ns(clock_wall_ns() - killed_wall_ns);
    assert_false(clock_is_alive(clock));
    assert_true(lost_s > 1.5 && lost_s < 4.0);
    assert_true(clock_now_ns(clock) == now_ns);
    int64_t from_wall_ns = clock_wall_ns();
    clock_sleep_until(clock, now_ns + NS_PER_S, 50); /* comes back by the wall */
    assert_true(clock_wall_ns() - from_wall_ns < 2 * NS_PER_S);
    clock_close(clock);
    *keeper = start_keeper();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_real_clock_is_wall_time),
        cmocka_unit_test(what_is_no_clock_is_refused),
        cmocka_unit_test(the_slowest_request_of_all_processes_rules),
        cmocka_unit_test(utc_follows_the_clock),
        cmocka_unit_test(time_never_runs_backwards),
        cmocka_unit_test(without_its_keeper_time_stands_still),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
