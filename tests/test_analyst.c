/*
 * Goal: every way a followed scan can go ends in the right row and event: whole, failed, aborted, with an analysis that
 * dies, ends early, hangs or cannot be run; nothing is told before the core has asked, no file of a failed attempt
 * stays, and no child outlives its purpose. Method: a shell script in the place of isobar-analyze, which does what the
 * name of the series says and leaves its process id, its files and how often it ran behind; a real store, read by a
 * second connection.
 */
#include <dirent.h>
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "controller/analyst.h"

#define WAIT_MS 10000
#define QUEUE_MAX 64 /* as in analyst.c */

/* $1 master, $3 result, $5 --follow or nothing. */
static const char script[] =
    "#!/bin/sh\n"
    "stem=${3%_results.hdf}\n"
    "echo $$ >${stem}_pid; echo run >>${stem}_runs; echo half >${stem}_events.bin.part-$$\n"
    "good() { rm ${stem}_events.bin.part-$$; echo all >$3; echo '{\"tau_s\":1.5,\"beta\":1.7,\"contrast\":0.08,"
    "\"n_photons\":42,\"reason\":null}'; exit 0; }\n"
    "case $1 in\n"
    "*early*) good \"$@\";;\n"
    "*dies*) [ \"$5\" ] && kill -9 $$; good \"$@\";;\n"
    "*refuses*) echo '{\"reason\":\"no such series\"}'; exit 1;;\n"
    "*) [ \"$5\" ] && read nothing; good \"$@\";;\n"
    "esac\n";

static struct clock *clock_real;
static struct inbox *inbox;
static struct store *store;
static struct analyst *analyst;
static char directory[100], results[150], program[150], db_path[150];
static struct err err;

static int set_up(void **state)
{
    (void)state;
    const char *parent = getenv("TMPDIR");
    snprintf(directory, sizeof directory, "%.60s/isobar-analyst-XXXXXX", parent ? parent : "/tmp");
    if (!mkdtemp(directory))
        return -1;
    snprintf(results, sizeof results, "%s/results", directory);
    snprintf(program, sizeof program, "%s/analysis.sh", directory);
    snprintf(db_path, sizeof db_path, "%s/run.db", directory);
    FILE *stream = fopen(program, "w");
    if (!stream || fputs(script, stream) < 0 || fclose(stream) || chmod(program, 0700) || mkdir(results, 0700))
        return -1;
    clock_open_real(&clock_real, NULL);
    inbox = inbox_new(clock_real);
    return store_create(&store, db_path, &err) || analyst_start(&analyst, inbox, store, program, results, &err);
}

static void empty(const char *path)
{
    DIR *folder = opendir(path);
    for (struct dirent *entry; folder && (entry = readdir(folder));)
        unlinkat(dirfd(folder), entry->d_name, 0);
    closedir(folder);
    rmdir(path);
}

static int tear_down(void **state)
{
    (void)state;
    if (analyst)
        analyst_join(analyst);
    analyst = NULL;
    store_close(store);
    inbox_free(inbox);
    clock_close(clock_real);
    empty(results);
    empty(directory);
    return 0;
}

/* ---- what is seen from outside ------------------------------------------------------------------------------- */

static const char *file_of(const char *stem, const char *what)
{
    static char path[300];
    snprintf(path, sizeof path, "%s/%s_%s", results, stem, what);
    return path;
}

static bool is_there(const char *stem, const char *what) { return access(file_of(stem, what), F_OK) == 0; }

static int count_files(const char *stem)
{
    int n = 0;
    DIR *folder = opendir(results);
    for (struct dirent *entry; (entry = readdir(folder));)
        n += strncmp(entry->d_name, stem, strlen(stem)) == 0;
    closedir(folder);
    return n;
}

/* The process of the analysis, once it has begun. */
static pid_t wait_started(const char *stem)
{
    int pid = 0;
    for (int waited_ms = 0; pid == 0 && waited_ms < WAIT_MS; waited_ms++) {
        FILE *stream = fopen(file_of(stem, "pid"), "r");
        if (!stream || fscanf(stream, "%d", &pid) != 1)
            nanosleep(&(struct timespec){.tv_nsec = NS_PER_MS}, NULL);
        if (stream)
            fclose(stream);
    }
    assert_true(pid > 0);
    return pid;
}

static struct event wait_event(enum event_kind kind)
{
    struct event event;
    assert_true(inbox_take(inbox, &event, WAIT_MS));
    assert_int_equal(event.kind, kind);
    return event;
}

static void expect_no_event(void)
{
    struct event event;
    assert_false(inbox_take(inbox, &event, 100));
}

/* The row of a scan, once the store has written it: its reason ("" for none), its photons (-1 for none). */
static void expect_row(int64_t scan_number, const char *reason_words, int64_t n_photons, const char *stem)
{
    char path[300] = "";
    const double parameters[] = {(double)scan_number};
    if (stem)
        snprintf(path, sizeof path, "%s", file_of(stem, "results.hdf"));
    for (int waited_ms = 0;; waited_ms += 10) {
        struct store_reader *reader;
        struct store_rows *rows;
        assert_int_equal(store_reader_open(&reader, db_path, &err), 0);
        assert_int_equal(store_rows_open(&rows, reader,
                                         "SELECT coalesce(reason, ''), coalesce(n_photons, -1), result_path, "
                                         "tau_s IS NULL FROM result WHERE scan_number = ?1",
                                         parameters, 1, &err),
                         0);
        bool has_row = store_rows_next(rows, &err) == 1;
        bool is_right = has_row &&
                        (reason_words[0] ? strstr(store_rows_text(rows, 0), reason_words) != NULL
                                         : store_rows_text(rows, 0)[0] == '\0') &&
                        store_rows_integer(rows, 1) == n_photons && strcmp(store_rows_text(rows, 2), path) == 0 &&
                        store_rows_integer(rows, 3) == (n_photons < 0);
        if (!is_right && waited_ms > WAIT_MS)
            fail_msg("scan %d: %s, expected '%s' and %s", (int)scan_number,
                     has_row ? store_rows_text(rows, 0) : "no row", reason_words, path);
        store_rows_close(rows);
        store_reader_close(reader);
        if (is_right)
            return;
        nanosleep(&(struct timespec){.tv_nsec = 10 * NS_PER_MS}, NULL);
    }
}

static void add(int64_t scan_number, int64_t attempt, const char *master)
{
    assert_int_equal(analyst_add(analyst, scan_number, attempt, master, &err), 0);
    assert_false(analyst_is_idle(analyst));
}

static void wait_idle(void)
{
    for (int waited_ms = 0; !analyst_is_idle(analyst); waited_ms++) {
        assert_true(waited_ms < WAIT_MS);
        nanosleep(&(struct timespec){.tv_nsec = NS_PER_MS}, NULL);
    }
}

static void expect_good(int64_t scan_number, const char *stem)
{
    struct event event = wait_event(EVENT_RESULT);
    assert_int_equal(event.integer[0], scan_number);
    assert_int_equal(event.integer[1], 1);
    assert_true(event.value[0] == 1.5 && event.value[1] == 1.7 && event.value[2] == 0.08);
    expect_row(scan_number, "", 42, stem);
    assert_true(is_there(stem, "results.hdf"));
    wait_idle();
}

/* ---- the ways it can go -------------------------------------------------------------------------------------- */

static void a_whole_scan_gives_its_row_when_it_is_whole(void **state)
{
    (void)state;
    analyst_follow(analyst, 1, 1, "/raw/a_1_master.h5");
    pid_t pid = wait_started("a_1");
    assert_true(analyst_is_idle(analyst)); /* nothing is owed yet */
    expect_no_event();
    add(1, 1, "/raw/a_1_master.h5");
    expect_good(1, "a_1");
    assert_true(kill(pid, 0) != 0 && errno == ESRCH);
}

static void an_analysis_that_is_early_waits_for_the_scan(void **state)
{
    (void)state;
    analyst_follow(analyst, 1, 1, "/raw/early_1_master.h5");
    wait_started("early_1");
    expect_no_event();
    add(1, 1, "/raw/early_1_master.h5");
    expect_good(1, "early_1");
    analyst_follow(analyst, 2, 1, "/raw/early_2_master.h5");
    wait_started("early_2");
    expect_no_event();
    analyst_drop(analyst, 2, 1, "4000 of 6000 images");
    expect_row(2, "attempt 1 is not whole, nothing of it is used: 4000 of 6000 images", -1, NULL);
    wait_idle();
    expect_no_event();
    assert_int_equal(count_files("early_2"), 0);
    assert_int_equal(count_files("early_1"), 3);
}

static void a_failed_attempt_leaves_its_reason_until_one_is_whole(void **state)
{
    (void)state;
    analyst_follow(analyst, 3, 1, "/raw/c_1_master.h5");
    pid_t pid = wait_started("c_1");
    analyst_drop(analyst, 3, 2, "another attempt");
    analyst_drop(analyst, 4, 1, "another scan");
    assert_int_equal(kill(pid, 0), 0);
    analyst_drop(analyst, 3, 1, "no beam");
    analyst_drop(analyst, 3, 1, "and said once more");
    expect_row(3, "used: no beam", -1, NULL);
    wait_idle();
    assert_true(kill(pid, 0) != 0 && errno == ESRCH);
    assert_int_equal(count_files("c_1"), 0);
    expect_no_event();
    analyst_follow(analyst, 3, 2, "/raw/c_2_master.h5");
    wait_started("c_2");
    add(3, 2, "/raw/c_2_master.h5");
    analyst_drop(analyst, 3, 2, "too late: it is whole");
    expect_good(3, "c_2");
}

static void a_follower_that_dies_costs_a_second_reading(void **state)
{
    (void)state;
    for (int64_t k = 1; k <= 2; k++) {
        char stem[20], master[60];
        snprintf(stem, sizeof stem, "dies_%d", (int)k);
        snprintf(master, sizeof master, "/raw/%s_master.h5", stem);
        analyst_follow(analyst, k, 1, master);
        struct event event = wait_event(EVENT_FOLLOWER_LOST);
        assert_true(event.integer[0] == k && event.integer[1] == 1 && event.integer[2] == k);
        assert_string_equal(event.text, "the analysis ended by signal 9");
        expect_no_event();
        add(k, 1, master);
        expect_good(k, stem);
        assert_int_equal(count_files(stem), 3); /* result, pid and runs of the second: the first's part is gone */
    }
    analyst_follow(analyst, 3, 1, "/raw/dies_3_master.h5");
    wait_event(EVENT_FOLLOWER_LOST);
    analyst_drop(analyst, 3, 1, "no beam");
    expect_row(3, "no beam", -1, NULL);
    wait_idle();
    assert_int_equal(count_files("dies_3"), 0);
}

static void without_a_follower_it_is_analysed_as_well(void **state)
{
    (void)state;
    add(7, 1, "/raw/late_1_master.h5");
    expect_good(7, "late_1");
}

static void what_gives_no_result_has_its_reason(void **state)
{
    (void)state;
    analyst_follow(analyst, 1, 1, "/raw/refuses_1_master.h5");
    assert_string_equal(wait_event(EVENT_FOLLOWER_LOST).text, "no such series");
    add(1, 1, "/raw/refuses_1_master.h5");
    struct event event = wait_event(EVENT_RESULT);
    assert_true(event.integer[1] == 0 && strcmp(event.text, "no such series") == 0);
    expect_row(1, "no such series", -1, "refuses_1");
    unlink(program);
    add(2, 1, "/raw/gone_1_master.h5");
    event = wait_event(EVENT_RESULT);
    assert_int_equal(event.integer[1], 0);
    expect_row(2, "cannot be run; it belongs beside isobard", -1, "gone_1");
}

/* One at a time, in their order; what was dropped before its turn is never begun. */
static void scans_wait_for_each_other(void **state)
{
    (void)state;
    analyst_follow(analyst, 1, 1, "/raw/w_1_master.h5");
    wait_started("w_1");
    analyst_follow(analyst, 2, 1, "/raw/w_2_master.h5");
    analyst_follow(analyst, 3, 1, "/raw/w_3_master.h5");
    analyst_drop(analyst, 2, 1, "no beam");
    add(3, 1, "/raw/w_3_master.h5");
    expect_no_event();
    assert_int_equal(count_files("w_2") + count_files("w_3"), 0);
    add(1, 1, "/raw/w_1_master.h5");
    assert_int_equal(wait_event(EVENT_RESULT).integer[0], 1);
    expect_good(3, "w_3");
    expect_row(2, "no beam", -1, NULL);
    assert_int_equal(count_files("w_2"), 0);
}

static void the_queue_is_bounded(void **state)
{
    (void)state;
    char master[60];
    for (int k = 0; k < QUEUE_MAX + 2; k++) {
        snprintf(master, sizeof master, "/raw/q_%d_master.h5", k);
        analyst_follow(analyst, k, 1, master);
    }
    assert_int_equal(analyst_add(analyst, QUEUE_MAX, 1, master, &err), ERR_FULL);
    assert_non_null(strstr(err.message, "run isobar-analyze on its master file by hand"));
    assert_int_equal(analyst_add(analyst, QUEUE_MAX - 1, 1, master, &err), 0);
}

static void the_end_ends_what_is_not_whole(void **state)
{
    (void)state;
    analyst_follow(analyst, 1, 1, "/raw/e_1_master.h5");
    pid_t pid = wait_started("e_1");
    analyst_join(analyst);
    analyst = NULL;
    assert_true(kill(pid, 0) != 0 && errno == ESRCH);
    assert_int_equal(count_files("e_1"), 0);
    expect_no_event();
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_whole_scan_gives_its_row_when_it_is_whole),
        TEST(an_analysis_that_is_early_waits_for_the_scan),
        TEST(a_failed_attempt_leaves_its_reason_until_one_is_whole),
        TEST(a_follower_that_dies_costs_a_second_reading),
        TEST(without_a_follower_it_is_analysed_as_well),
        TEST(what_gives_no_result_has_its_reason),
        TEST(scans_wait_for_each_other),
        TEST(the_queue_is_bounded),
        TEST(the_end_ends_what_is_not_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
