/*
 * Goal: nothing that the store called durable is ever lost, its order is kept, it never blocks and never touches a file
 * that is not ours.
 * Method: a real SQLite file in a fresh directory; a second connection looks at it from outside; the writer is held up
 * by a lock, starved by a file size limit and killed with SIGKILL in mid-writing.
 */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "db/store.h"

static char directory[200];
static char path[260];
static struct err err;

static int set_up(void **state)
{
    (void)state;
    const char *parent = getenv("TMPDIR");
    snprintf(directory, sizeof directory, "%s/isobar-store-XXXXXX", parent ? parent : "/tmp");
    if (!mkdtemp(directory))
        return -1;
    snprintf(path, sizeof path, "%s/run.db", directory);
    err = (struct err){0};
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    static const char *const NAMES[] = {"run.db", "run.db.lock", "run.db-wal", "run.db-shm", "run.db-journal"};
    for (size_t i = 0; i < sizeof NAMES / sizeof NAMES[0]; i++) {
        char name[300];
        snprintf(name, sizeof name, "%s/%s", directory, NAMES[i]);
        unlink(name);
    }
    return rmdir(directory);
}

static void nap(void) { nanosleep(&(struct timespec){.tv_nsec = 50000}, NULL); }

static void wait_durable(struct store *store, int64_t number)
{
    int64_t deadline_ns = clock_wall_ns() + 10 * NS_PER_S;
    while (store_durable_number(store) < number) {
        if (store_failure(store, &err) < 0)
            fail_msg("%s", err.message);
        assert_true(clock_wall_ns() < deadline_ns);
        nap();
    }
}

static int put_event(struct store *store, int64_t seq, const void *payload, size_t n_bytes, int64_t number)
{
    struct store_value values[] = {store_integer(seq),          store_integer(1), store_integer(seq * 10),
                                   store_text("tick"),          store_real(0.5),  store_null(),
                                   store_blob(payload, n_bytes)};
    return store_put(store, STORE_EVENT, values, 7, number, &err);
}

static int64_t ask(struct store_reader *reader, const char *select)
{
    struct store_rows *rows;
    assert_int_equal(store_rows_open(&rows, reader, select, NULL, 0, &err), 0);
    assert_int_equal(store_rows_next(rows, &err), 1);
    int64_t answer = store_rows_integer(rows, 0);
    store_rows_close(rows);
    return answer;
}

static int64_t ask_once(const char *select)
{
    struct store_reader *reader;
    if (store_reader_open(&reader, path, &err) < 0)
        fail_msg("%s", err.message);
    int64_t answer = ask(reader, select);
    store_reader_close(reader);
    return answer;
}

static void values_come_back_as_they_went(void **state)
{
    (void)state;
    struct store *store;
    struct store_reader *reader;
    struct store_rows *rows;
    size_t n_bytes;
    assert_int_equal(store_create(&store, path, &err), 0);
    char text[] = "it's \"quoted\" \xc3\xa5";
    struct store_value values[] = {store_integer(INT64_MIN), store_integer(2), store_integer(INT64_MAX),
                                   store_text(text),         store_real(0.1),  store_null(),
                                   store_blob("\0\1\2", 3)};
    assert_int_equal(store_put(store, STORE_EVENT, values, 7, 0, &err), 0);
    memset(text, 'x', sizeof text - 1); /* the store has its own copy */
    assert_int_equal(store_put(store, STORE_MEMBRANE,
                               (struct store_value[]){store_integer(5), store_real((double)NAN), store_real(7.5)}, 3, 0,
                               &err),
                     0);
    store_close(store);

    assert_int_equal(store_reader_open(&reader, path, &err), 0);
    assert_int_equal(store_rows_open(&rows, reader,
                                     "SELECT seq, t_ns, text, kind, value, payload FROM event WHERE pass = ?1",
                                     (double[]){2}, 1, &err),
                     0);
    assert_int_equal(store_rows_next(rows, &err), 1);
    assert_true(store_rows_integer(rows, 0) == INT64_MIN && store_rows_integer(rows, 1) == INT64_MAX);
    assert_string_equal(store_rows_text(rows, 2), "");
    assert_string_equal(store_rows_text(rows, 3), "it's \"quoted\" \xc3\xa5");
    assert_true(store_rows_real(rows, 4) == 0.1);
    const void *blob = store_rows_blob(rows, 5, &n_bytes);
    assert_int_equal(n_bytes, 3);
    assert_memory_equal(blob, "\0\1\2", 3);
    assert_int_equal(store_rows_next(rows, &err), 0);
    store_rows_close(rows);
    assert_int_equal(store_rows_open(&rows, reader, "SELECT membrane_bar FROM membrane", NULL, 0, &err), 0);
    assert_int_equal(store_rows_next(rows, &err), 1);
    assert_true(isnan(store_rows_real(rows, 0)));
    store_rows_close(rows);
    assert_int_equal(ask(reader, "SELECT count(*) FROM pragma_table_list WHERE schema = 'main' AND strict = 1"),
                     STORE_TABLE_COUNT);
    store_reader_close(reader);
}

/* The reader looks at the very moment the number is reached: had it been told before the commit, the row would not be
 * there yet. */
static void a_durable_row_is_visible_when_its_number_is_reached(void **state)
{
    (void)state;
    struct store *store;
    struct store_reader *reader;
    int64_t longest_ns = 0;
    assert_int_equal(store_create(&store, path, &err), 0);
    assert_int_equal(store_reader_open(&reader, path, &err), 0);
    assert_int_equal(store_durable_number(store), 0);
    for (int64_t i = 1; i <= 200; i++) {
        assert_int_equal(put_event(store, 2 * i - 1, "p", 1, 0), 0); /* plain, goes along */
        int64_t start_ns = clock_wall_ns();
        assert_int_equal(put_event(store, 2 * i, "d", 1, i), 0);
        while (store_durable_number(store) < i)
            assert_true(clock_wall_ns() < start_ns + 10 * NS_PER_S);
        int64_t taken_ns = clock_wall_ns() - start_ns;
        longest_ns = taken_ns > longest_ns ? taken_ns : longest_ns;
        assert_int_equal(ask(reader, "SELECT count(*) FROM event"), 2 * i);
    }
    print_message("longest wait for a durable row: %.1f ms\n", (double)longest_ns * 1e-6);
    assert_int_equal(ask(reader, "SELECT count(*) FROM event WHERE seq <> rowid"), 0);
    store_reader_close(reader);
    store_close(store);
}

static void a_plain_row_follows_by_itself(void **state)
{
    (void)state;
    struct store *store;
    struct store_reader *reader;
    assert_int_equal(store_create(&store, path, &err), 0);
    assert_int_equal(store_reader_open(&reader, path, &err), 0);
    assert_int_equal(put_event(store, 1, "p", 1, 0), 0);
    int64_t deadline_ns = clock_wall_ns() + 5 * NS_PER_S;
    while (ask(reader, "SELECT count(*) FROM event") == 0)
        assert_true(clock_wall_ns() < deadline_ns);
    assert_int_equal(store_durable_number(store), 0);
    store_reader_close(reader);
    store_close(store);
}

/* More than the ring holds, in lengths that never divide it: every row must come out whole and in order. */
static void rows_survive_the_end_of_the_ring(void **state)
{
    (void)state;
    enum { ROWS = 220, LONGEST = 700001 };
    struct store *store;
    struct store_reader *reader;
    struct store_rows *rows;
    unsigned char *payload = malloc(LONGEST);
    assert_non_null(payload);
    assert_int_equal(store_create(&store, path, &err), 0);
    for (int64_t i = 1; i <= ROWS; i++) {
        size_t n_bytes = (size_t)(i * 7919 * 31 % LONGEST);
        memset(payload, (int)(i % 251), n_bytes);
        assert_int_equal(put_event(store, i, payload, n_bytes, i), 0);
        if (i % 40 == 0)
            wait_durable(store, i);
    }
    store_close(store);
    assert_int_equal(store_reader_open(&reader, path, &err), 0);
    assert_int_equal(store_rows_open(&rows, reader, "SELECT seq, payload FROM event ORDER BY rowid", NULL, 0, &err), 0);
    for (int64_t i = 1; i <= ROWS; i++) {
        size_t n_bytes;
        assert_int_equal(store_rows_next(rows, &err), 1);
        const void *blob = store_rows_blob(rows, 1, &n_bytes);
        assert_int_equal(store_rows_integer(rows, 0), i);
        assert_int_equal(n_bytes, i * 7919 * 31 % LONGEST);
        memset(payload, (int)(i % 251), n_bytes);
        assert_memory_equal(blob, payload, n_bytes);
    }
    store_rows_close(rows);
    store_reader_close(reader);
    free(payload);
}

static _Noreturn void write_until_killed(int report_fd, int64_t seq, bool create)
{
    struct store *store;
    if ((create ? store_create : store_open)(&store, path, &err) < 0)
        _exit(1);
    for (int64_t number = 1;; number++, seq++) {
        if (put_event(store, seq, "payload", 7, number) < 0)
            _exit(2);
        int64_t durable = seq - (number - store_durable_number(store));
        if (write(report_fd, &durable, sizeof durable) != sizeof durable)
            _exit(3);
        if (number % 16 == 0)
            wait_durable(store, number - 8); /* some rows are always under way */
    }
}

static void a_kill_loses_no_durable_row(void **state)
{
    (void)state;
    int64_t seq_last = 0;
    for (int round = 0; round < 8; round++) {
        int ends[2], status;
        assert_int_equal(pipe(ends), 0);
        pid_t pid = fork();
        if (pid == 0)
            write_until_killed(ends[1], seq_last + 1, round == 0);
        close(ends[1]);
        int64_t durable = 0;
        for (int i = 0; i < 150 + 37 * round; i++)
            assert_int_equal(read(ends[0], &durable, sizeof durable), sizeof durable);
        assert_int_equal(kill(pid, SIGKILL), 0);
        while (read(ends[0], &durable, sizeof durable) == sizeof durable)
            ; /* what it had still said */
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFSIGNALED(status));
        close(ends[0]);
        int64_t seq_max = ask_once("SELECT max(seq) FROM event");
        assert_true(seq_max >= durable && durable > seq_last);
        assert_int_equal(ask_once("SELECT count(*) FROM event"), seq_max);
        char log_path[300];
        snprintf(log_path, sizeof log_path, "%s-wal", path);
        assert_int_equal(access(log_path, F_OK), 0); /* reading has moved nothing from the log into the database */
        seq_last = seq_max;
    }
    print_message("8 kills, %d rows, none missing\n", (int)seq_last);
}

/* ---- refusals ------------------------------------------------------------------------------------------------ */

static void expect_refused(int code, const char *part)
{
    assert_int_equal(code, ERR_DB);
    if (!strstr(err.message, part))
        fail_msg("expected \"%s\" in: %s", part, err.message);
}

static void a_second_writer_is_refused(void **state)
{
    (void)state;
    struct store *store, *second = NULL;
    char process[32];
    assert_int_equal(store_create(&store, path, &err), 0);
    snprintf(process, sizeof process, "process %ld", (long)getpid());
    expect_refused(store_open(&second, path, &err), process);
    expect_refused(store_create(&second, path, &err), process);
    store_close(store);
    expect_refused(store_create(&second, path, &err), "a run is already recorded in");
    assert_null(second);
    assert_int_equal(store_open(&second, path, &err), 0);
    store_close(second);
}

static void write_file(const void *bytes, size_t n_bytes)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, bytes, n_bytes), n_bytes);
    close(fd);
}

/* Opens, creates and reads must all fail, and leave the bytes and the directory as they were. */
static void expect_left_alone(const char *part)
{
    static unsigned char before[1 << 16], after[1 << 16];
    struct store *store;
    struct store_reader *reader;
    char beside[300];
    int fd = open(path, O_RDONLY);
    ssize_t n = read(fd, before, sizeof before);
    expect_refused(store_create(&store, path, &err), part);
    expect_refused(store_open(&store, path, &err), part);
    expect_refused(store_reader_open(&reader, path, &err), part);
    assert_int_equal(pread(fd, after, sizeof after, 0), n);
    assert_memory_equal(before, after, (size_t)n);
    close(fd);
    static const char *const SUFFIXES[] = {"-wal", "-shm", "-journal", ".lock"};
    for (int i = 0; i < 4; i++) {
        snprintf(beside, sizeof beside, "%s%s", path, SUFFIXES[i]);
        assert_int_equal(access(beside, F_OK), -1);
    }
    unlink(path);
}

static void make_foreign(const char *script)
{
    sqlite3 *db;
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, script, NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(db);
}

static void a_foreign_file_is_left_alone(void **state)
{
    (void)state;
    struct store_reader *reader;
    expect_refused(store_reader_open(&reader, path, &err), "cannot be read");
    write_file("", 0);
    expect_left_alone("not a database of isobar");
    char text[300];
    memset(text, 'a', sizeof text);
    write_file(text, sizeof text);
    expect_left_alone("not a database of isobar");
    make_foreign("CREATE TABLE run (id INTEGER); INSERT INTO run VALUES (1); PRAGMA user_version = 1");
    expect_left_alone("not a database of isobar");
    make_foreign("PRAGMA application_id = 0x49534f42; PRAGMA user_version = 7; CREATE TABLE run (id INTEGER)");
    expect_left_alone("schema version 7, expected 2");
    assert_int_equal(mkdir(path, 0755), 0);
    expect_refused(store_reader_open(&reader, path, &err), "not a database of isobar");
    rmdir(path);
}

static void a_damaged_database_is_not_continued(void **state)
{
    (void)state;
    struct store *store;
    assert_int_equal(store_create(&store, path, &err), 0);
    for (int64_t i = 1; i <= 500; i++)
        assert_int_equal(put_event(store, i, "payload", 7, 0), 0);
    store_close(store);
    int fd = open(path, O_RDWR);
    char garbage[8192];
    memset(garbage, 0x5a, sizeof garbage);
    off_t end = lseek(fd, 0, SEEK_END);
    assert_int_equal(pwrite(fd, garbage, sizeof garbage, end - (off_t)sizeof garbage), sizeof garbage);
    close(fd);
    expect_refused(store_open(&store, path, &err), "");
    assert_non_null(strstr(err.message, "malformed") ? "m" : strstr(err.message, "damaged"));
}

static void a_reader_cannot_write(void **state)
{
    (void)state;
    struct store *store;
    struct store_reader *reader;
    struct store_rows *rows;
    assert_int_equal(store_create(&store, path, &err), 0);
    store_close(store);
    assert_int_equal(store_reader_open(&reader, path, &err), 0);
    expect_refused(store_rows_open(&rows, reader, "DELETE FROM event", NULL, 0, &err), "expected one SELECT");
    expect_refused(store_rows_open(&rows, reader, "SELECT 1; DROP TABLE event", NULL, 0, &err), "expected one SELECT");
    expect_refused(store_rows_open(&rows, reader, "ATTACH 'x.db' AS x", NULL, 0, &err), "expected one SELECT");
    expect_refused(store_rows_open(&rows, reader, "", NULL, 0, &err), "expected one SELECT");
    expect_refused(store_rows_open(&rows, reader, "SELECT nobody", NULL, 0, &err), "no such column");
    expect_refused(store_rows_open(&rows, reader, "INSERT INTO log VALUES (1, 'info', 'x') RETURNING 1", NULL, 0, &err),
                   "");
    store_reader_close(reader);
}

/* ---- when the disk or a neighbour is in the way -------------------------------------------------------------- */

static void a_full_queue_drops_and_counts_and_never_blocks(void **state)
{
    (void)state;
    enum { BLOB = 1 << 20 };
    struct store *store;
    sqlite3 *neighbour;
    char *payload = calloc(1, BLOB);
    int64_t n_kept = 0, longest_ns = 0;
    assert_int_equal(store_create(&store, path, &err), 0);
    assert_int_equal(sqlite3_open(path, &neighbour), SQLITE_OK);
    assert_int_equal(sqlite3_exec(neighbour, "BEGIN IMMEDIATE", NULL, NULL, NULL), SQLITE_OK);
    int64_t locked_ns = clock_wall_ns();
    for (int code = 0; code == 0; n_kept += code == 0) {
        int64_t start_ns = clock_wall_ns();
        code = put_event(store, n_kept + 1, payload, BLOB, n_kept + 1);
        int64_t taken_ns = clock_wall_ns() - start_ns;
        longest_ns = taken_ns > longest_ns ? taken_ns : longest_ns;
        assert_true(n_kept <= 64);
        if (code < 0)
            assert_int_equal(code, ERR_FULL);
    }
    assert_non_null(strstr(err.message, "the queue of 64 MiB is full; a row of event was dropped"));
    assert_int_equal(store_dropped(store), 1);
    assert_int_equal(store_durable_number(store), 0);
    while (clock_wall_ns() < locked_ns + NS_PER_S / 2) /* longer than the writer waits at a time */
        nap();
    assert_int_equal(store_failure(store, &err), 0);
    print_message("%d rows of 1 MiB queued behind a lock, longest put %.2f ms\n", (int)n_kept,
                  (double)longest_ns * 1e-6);
    assert_true(longest_ns < NS_PER_S / 2); /* a copy of 1 MiB takes 0.3 ms; the rest is for a busy machine */
    assert_int_equal(sqlite3_exec(neighbour, "ROLLBACK", NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(neighbour);
    wait_durable(store, n_kept);
    store_close(store);
    assert_int_equal(ask_once("SELECT count(*) FROM event"), n_kept);
    free(payload);
}

/* Puts rows one by one until the writer has failed; returns the last number that became durable. */
static int64_t put_until_failure(struct store *store, int64_t *ret_seq)
{
    static char payload[100000];
    int64_t number = 0, deadline_ns = clock_wall_ns() + 10 * NS_PER_S;
    while (put_event(store, number + 1, payload, sizeof payload, number + 1) == 0 && clock_wall_ns() < deadline_ns) {
        number++;
        while (store_durable_number(store) < number && store_failure(store, &err) == 0)
            nap();
    }
    *ret_seq = number;
    return store_durable_number(store);
}

static void a_failing_disk_is_said_once_and_for_all(void **state)
{
    (void)state;
    struct store *store;
    struct rlimit before;
    int64_t seq;
    assert_int_equal(store_create(&store, path, &err), 0);
    getrlimit(RLIMIT_FSIZE, &before);
    setrlimit(RLIMIT_FSIZE, &(struct rlimit){.rlim_cur = 3 << 20, .rlim_max = before.rlim_max});
    int64_t durable = put_until_failure(store, &seq);
    setrlimit(RLIMIT_FSIZE, &before);
    assert_int_equal(put_event(store, seq + 1, "", 0, seq + 1), ERR_DB);
    assert_int_equal(store_failure(store, &err), ERR_DB);
    if (!strstr(err.message, "disk I/O error") || !strstr(err.message, "check the disk, its free space and the quota"))
        fail_msg("%s", err.message);
    assert_true(durable > 0 && durable < seq);
    store_close(store);
    assert_int_equal(store_open(&store, path, &err), 0); /* there is room again */
    assert_int_equal(put_event(store, seq + 1, "x", 1, 1), 0);
    wait_durable(store, 1);
    store_close(store);
    assert_true(ask_once("SELECT count(*) FROM event") >= durable + 1);
}

/* In a mount namespace of its own, on a real file system of 4 MB; 77 where that is not allowed. */
static int full_disk_main(void)
{
    struct store *store;
    int64_t seq;
    if (unshare(CLONE_NEWNS) < 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
        mount("none", directory, "tmpfs", 0, "size=4m") < 0)
        return 77;
    if (store_create(&store, path, &err) < 0)
        return 1;
    int64_t durable = put_until_failure(store, &seq);
    if (durable == 0 || durable >= seq || !strstr(err.message, "the disk is full: make room"))
        return 2;
    store_close(store);
    return ask_once("SELECT count(*) FROM event") >= durable ? 0 : 3;
}

static void a_full_disk_is_named(void **state)
{
    (void)state;
    int status;
    pid_t pid = fork();
    if (pid == 0)
        _exit(full_disk_main());
    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
        skip();
    assert_int_equal(status, 0);
}

static void a_row_against_the_schema_stops_the_writer(void **state)
{
    (void)state;
    struct store *store;
    assert_int_equal(store_create(&store, path, &err), 0);
    struct store_value orphan[] = {store_integer(99), store_integer(0), store_text("hold"),
                                   store_null(),      store_null(),     store_blob("", 0)};
    assert_int_equal(put_event(store, 1, "e", 1, 1), 0);
    wait_durable(store, 1);
    assert_int_equal(store_put(store, STORE_DECISION, orphan, 6, 2, &err), 0);
    int64_t deadline_ns = clock_wall_ns() + 10 * NS_PER_S;
    while (store_failure(store, &err) == 0 && clock_wall_ns() < deadline_ns)
        nap();
    assert_non_null(strstr(err.message, "a row of decision failed: FOREIGN KEY constraint failed"));
    assert_int_equal(store_durable_number(store), 1);
    store_close(store);
    assert_int_equal(ask_once("SELECT count(*) FROM event"), 1);
    assert_int_equal(ask_once("SELECT count(*) FROM decision"), 0);
}

int main(void)
{
#define TEST(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(values_come_back_as_they_went),
        TEST(a_durable_row_is_visible_when_its_number_is_reached),
        TEST(a_plain_row_follows_by_itself),
        TEST(rows_survive_the_end_of_the_ring),
        TEST(a_kill_loses_no_durable_row),
        TEST(a_second_writer_is_refused),
        TEST(a_foreign_file_is_left_alone),
        TEST(a_damaged_database_is_not_continued),
        TEST(a_reader_cannot_write),
        TEST(a_full_queue_drops_and_counts_and_never_blocks),
        TEST(a_failing_disk_is_said_once_and_for_all),
        TEST(a_full_disk_is_named),
        TEST(a_row_against_the_schema_stops_the_writer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
