#include "db/store.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define RING_BYTES ((uint64_t)64 << 20)
#define BATCH_ROWS_MAX 4096
#define PLAIN_WAIT_NS 250000000 /* of wall time, before plain rows are written without a durable one */
#define COLUMNS_MAX 24
#define BUSY_MS 100
#define BUSY_S_MAX 30 /* another program may lock the database this long; the queue holds the rows meanwhile */
#define HEADER_BYTES 100

/* The schema becomes part of this object by the assembler: one text, readable as SQL, and nothing to install. The path
 * is relative to the root of the project, where the compiler runs. */
__asm__(".pushsection .rodata\n"
        "store_schema_sql:\n"
        ".incbin \"db/schema.sql\"\n"
        ".byte 0\n"
        ".popsection\n");
extern const char store_schema_sql[];

static const char *const TABLES[STORE_TABLE_COUNT] = {
    [STORE_RUN] = "run",
    [STORE_STEP] = "step",
    [STORE_EVENT] = "event",
    [STORE_DECISION] = "decision",
    [STORE_INTENT] = "intent",
    [STORE_PHASE] = "phase",
    [STORE_MEMBRANE] = "membrane",
    [STORE_RUBY] = "ruby",
    [STORE_ISOBAR] = "isobar",
    [STORE_SCAN] = "scan",
    [STORE_RESULT] = "result",
    [STORE_HOLD] = "hold",
    [STORE_LOG] = "log",
    [STORE_RUN_END] = "run_end",
    [STORE_CELL_BRANCH] = "cell_branch",
    [STORE_RUBY_CALIBRATION] = "ruby_calibration",
    [STORE_RUBY_DERIVATION] = "ruby_derivation",
    [STORE_RUBY_DERIVED] = "ruby_derived",
};

/* In the ring: a row, then its values, then the bytes of its texts and blobs; 16-byte aligned and never wrapped. */
struct row {
    uint64_t n_bytes; /* with this header; the next row begins there */
    int32_t table;    /* -1: skip to the start of the ring */
    int32_t n_values;
    int64_t durable_number;
    int64_t reserved; /* keeps the values 16-byte aligned */
};

struct store {
    sqlite3 *db; /* after the start only the writer's */
    sqlite3_stmt *inserts[STORE_TABLE_COUNT];
    int n_columns[STORE_TABLE_COUNT];
    int lock_fd;
    char path[512];

    pthread_t writer;
    pthread_mutex_t mutex; /* guards what follows, held for no longer than a copy */
    pthread_cond_t wake;
    unsigned char *ring;
    uint64_t n_put, n_taken; /* bytes since the start; the rows between them are queued */
    int64_t number_put;      /* greatest durable number put */
    bool hurry;              /* a durable row is queued */
    bool closing;

    _Atomic int64_t number_durable;
    _Atomic int64_t n_dropped;
    _Atomic bool failed;
    struct err failure; /* written once, before `failed` */
};

/* ---- sqlite
 * ------------------------------------------------------------------------------------------------------------ */

static int db_fail(sqlite3 *db, const char *path, const char *deed, struct err *err)
{
    int cause = sqlite3_extended_errcode(db);
    const char *advice = (cause & 0xff) == SQLITE_FULL         ? "; the disk is full: make room, then continue the run"
                         : (cause & 0xff) == SQLITE_IOERR      ? "; check the disk, its free space and the quota"
                         : (cause & 0xff) == SQLITE_CANTOPEN   ? "; check the directory and its permissions"
                         : (cause & 0xff) == SQLITE_CONSTRAINT ? "; the row contradicts the schema"
                                                               : "";
    return err_set(err, ERR_DB, "database %s: %s failed: %s (code %d)%s", path, deed, sqlite3_errmsg(db), cause,
                   advice);
}

static int db_run(sqlite3 *db, const char *path, const char *sql, struct err *err)
{
    return sqlite3_exec(db, sql, NULL, NULL, NULL) == SQLITE_OK ? 0 : db_fail(db, path, sql, err);
}

static uint32_t big_endian(const unsigned char *bytes)
{
    return (uint32_t)bytes[0] << 24 | (uint32_t)bytes[1] << 16 | (uint32_t)bytes[2] << 8 | bytes[3];
}

/* Looks at the header of the file without SQLite, so that what is not ours is not even opened by it. */
static int check_identity(const char *path, struct err *err)
{
    unsigned char header[HEADER_BYTES] = {0};
    struct stat about;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return err_set(err, ERR_DB, "database %s cannot be read: %s", path, strerror(errno));
    bool regular = fstat(fd, &about) == 0 && S_ISREG(about.st_mode);
    ssize_t n = regular ? pread(fd, header, sizeof header, 0) : 0;
    close(fd);
    if (n < HEADER_BYTES || memcmp(header, "SQLite format 3", 16) != 0 ||
        big_endian(header + 68) != STORE_APPLICATION_ID)
        return err_set(err, ERR_DB, "%s is not a database of isobar; it was left as it is: choose another name", path);
    if (big_endian(header + 60) != STORE_SCHEMA_VERSION)
        return err_set(err, ERR_DB, "database %s has schema version %u, expected %d; use the isobar that wrote it",
                       path, big_endian(header + 60), STORE_SCHEMA_VERSION);
    return 0;
}

/* ---- the writer's lock
 * --------------------------------------------------------------------------------------------------- */

/* On a file beside the database: closing any descriptor of the database itself would drop SQLite's own locks. The file
 * stays, and holds the number of the process that locked it last. */
static int take_lock(const char *path, int *ret_fd, struct err *err)
{
    char lock_path[600], text[32];
    snprintf(lock_path, sizeof lock_path, "%s.lock", path);
    int fd = open(lock_path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (fd < 0)
        return err_set(err, ERR_IO, "lock %s cannot be made: %s", lock_path, strerror(errno));
    if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
        ssize_t n = pread(fd, text, sizeof text - 1, 0);
        text[n > 0 ? n : 0] = '\0';
        close(fd);
        return err_set(
            err, ERR_DB,
            "database %s is being written by process %ld (its lock is %s); wait for its end or stop it first", path,
            strtol(text, NULL, 10), lock_path);
    }
    int n = snprintf(text, sizeof text, "%ld\n", (long)getpid());
    if (ftruncate(fd, 0) < 0 || pwrite(fd, text, (size_t)n, 0) != n) {
        close(fd);
        return err_set(err, ERR_IO, "lock %s cannot be written: %s", lock_path, strerror(errno));
    }
    *ret_fd = fd;
    return 0;
}

/* ---- the writer
 * ---------------------------------------------------------------------------------------------------------- */

static int bind_row(sqlite3_stmt *insert, const struct row *row)
{
    const struct store_value *values = (const void *)(row + 1);
    const char *bytes = (const char *)(values + row->n_values);
    int status = SQLITE_OK;
    for (int i = 0; i < row->n_values && status == SQLITE_OK; i++) {
        const struct store_value *v = &values[i];
        switch (v->type) {
        case STORE_NULL:
            status = sqlite3_bind_null(insert, i + 1);
            break;
        case STORE_INTEGER:
            status = sqlite3_bind_int64(insert, i + 1, v->integer);
            break;
        case STORE_REAL:
            status = sqlite3_bind_double(insert, i + 1, v->real);
            break;
        case STORE_TEXT:
            status = sqlite3_bind_text64(insert, i + 1, bytes, v->n_bytes, SQLITE_STATIC, SQLITE_UTF8);
            break;
        case STORE_BLOB: /* a blob of no bytes is not NULL: `bytes` points somewhere */
            status = sqlite3_bind_blob64(insert, i + 1, bytes, v->n_bytes, SQLITE_STATIC);
            break;
        }
        bytes += v->n_bytes;
    }
    return status;
}

static int write_row(struct store *store, const struct row *row, struct err *err)
{
    sqlite3_stmt *insert = store->inserts[row->table];
    char deed[64];
    int status = bind_row(insert, row);
    if (status == SQLITE_OK)
        status = sqlite3_step(insert);
    if (status != SQLITE_DONE) {
        snprintf(deed, sizeof deed, "a row of %s", TABLES[row->table]);
        db_fail(store->db, store->path, deed, err);
    }
    sqlite3_reset(insert);
    return status == SQLITE_DONE ? 0 : ERR_DB;
}

/* A user's tool may hold the database for a while: that is waited for, up to BUSY_S_MAX. */
static int begin(struct store *store, struct err *err)
{
    for (int tries = 0;; tries++) {
        int status = sqlite3_exec(store->db, "BEGIN IMMEDIATE", NULL, NULL, NULL);
        if (status == SQLITE_OK)
            return 0;
        if ((status & 0xff) != SQLITE_BUSY)
            return db_fail(store->db, store->path, "BEGIN", err);
        if (tries == BUSY_S_MAX * 1000 / BUSY_MS)
            return err_set(
                err, ERR_DB,
                "database %s was locked by another program for %d s; close that program, then continue the run",
                store->path, BUSY_S_MAX);
    }
}

/* Writes and commits the queued rows from n_taken up to n_put, at most a batch of them; returns where it came to. */
static int write_batch(struct store *store, uint64_t n_taken, uint64_t n_put, uint64_t *ret_n_taken, struct err *err)
{
    int64_t number = 0;
    int code = begin(store, err);
    for (int n_rows = 0; code == 0 && n_taken < n_put && n_rows < BATCH_ROWS_MAX; n_rows++) {
        const struct row *row = (const void *)(store->ring + n_taken % RING_BYTES);
        if (row->table >= 0)
            code = write_row(store, row, err);
        if (row->durable_number > 0)
            number = row->durable_number;
        n_taken += row->n_bytes;
    }
    if (code == 0 && sqlite3_exec(store->db, "COMMIT", NULL, NULL, NULL) != SQLITE_OK)
        code = db_fail(store->db, store->path, "COMMIT", err);
    if (code < 0)
        return code;
    if (number > 0)
        atomic_store(&store->number_durable, number);
    *ret_n_taken = n_taken;
    return 0;
}

/* Waits for rows: with a durable one (or half a ring) at once, else PLAIN_WAIT_NS after the first. With the mutex. */
static void wait_for_rows(struct store *store)
{
    while (store->n_put == store->n_taken && !store->closing)
        pthread_cond_wait(&store->wake, &store->mutex);
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += PLAIN_WAIT_NS;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    while (!store->hurry && !store->closing)
        if (pthread_cond_timedwait(&store->wake, &store->mutex, &until) != 0)
            break;
}

static void *writer_main(void *argument)
{
    struct store *store = argument;
    struct err err = {0};
    pthread_mutex_lock(&store->mutex);
    for (;;) {
        wait_for_rows(store);
        uint64_t n_taken = store->n_taken, n_put = store->n_put;
        if (n_taken == n_put)
            break; /* closing, and all is written */
        store->hurry = false;
        pthread_mutex_unlock(&store->mutex);
        int code = write_batch(store, n_taken, n_put, &n_taken, &err);
        pthread_mutex_lock(&store->mutex);
        if (code < 0) {
            store->failure = err;
            atomic_store(&store->failed, true);
            break;
        }
        store->n_taken = n_taken;
        if (n_taken < n_put)
            store->hurry = true;
    }
    pthread_mutex_unlock(&store->mutex);
    if (atomic_load(&store->failed))
        sqlite3_exec(store->db, "ROLLBACK", NULL, NULL, NULL);
    return NULL;
}

/* ---- putting
 * ------------------------------------------------------------------------------------------------------------- */

static size_t value_bytes(const struct store_value *v)
{
    assert(v->type <= STORE_BLOB && (v->bytes || (v->type != STORE_TEXT && v->n_bytes == 0)));
    return v->type == STORE_TEXT ? strlen(v->bytes) : v->type == STORE_BLOB ? v->n_bytes : 0;
}

static void copy_row(struct row *row, const struct store_value *values)
{
    struct store_value *copies = (void *)(row + 1);
    char *bytes = (char *)(copies + row->n_values);
    for (int i = 0; i < row->n_values; i++) {
        copies[i] = values[i];
        copies[i].bytes = NULL;
        copies[i].n_bytes = value_bytes(&values[i]);
        if (copies[i].n_bytes > 0)
            memcpy(bytes, values[i].bytes, copies[i].n_bytes);
        bytes += copies[i].n_bytes;
    }
}

/* Where a row of n_bytes may be written, or NULL when the ring is too full. With the mutex. */
static struct row *ring_reserve(struct store *store, uint64_t n_bytes)
{
    uint64_t to_end = RING_BYTES - store->n_put % RING_BYTES;
    uint64_t skip = to_end < n_bytes ? to_end : 0;
    if (!(skip + n_bytes <= RING_BYTES - (store->n_put - store->n_taken)))
        return NULL;
    if (skip > 0) { /* all lengths are multiples of a row's header, so the marker fits */
        *(struct row *)(void *)(store->ring + store->n_put % RING_BYTES) = (struct row){.n_bytes = skip, .table = -1};
        store->n_put += skip;
    }
    return (void *)(store->ring + store->n_put % RING_BYTES);
}

int store_put(struct store *store, enum store_table table, const struct store_value *values, int n_values,
              int64_t durable_number, struct err *err)
{
    assert(table >= 0 && table < STORE_TABLE_COUNT && n_values == store->n_columns[table]);
    uint64_t n_bytes = sizeof(struct row) + (uint64_t)n_values * sizeof *values;
    for (int i = 0; i < n_values; i++)
        n_bytes += value_bytes(&values[i]);
    n_bytes = (n_bytes + sizeof(struct row) - 1) / sizeof(struct row) * sizeof(struct row);
    if (atomic_load(&store->failed))
        return store_failure(store, err);

    pthread_mutex_lock(&store->mutex);
    assert(durable_number == 0 || durable_number > store->number_put);
    assert(!store->closing);
    struct row *row = ring_reserve(store, n_bytes);
    if (row) {
        *row = (struct row){
            .n_bytes = n_bytes, .table = (int32_t)table, .n_values = n_values, .durable_number = durable_number};
        copy_row(row, values);
        bool was_empty = store->n_put == store->n_taken;
        store->n_put += n_bytes;
        if (durable_number > 0)
            store->number_put = durable_number;
        bool hurry = durable_number > 0 || store->n_put - store->n_taken > RING_BYTES / 2;
        store->hurry = store->hurry || hurry;
        if (hurry || was_empty)
            pthread_cond_signal(&store->wake);
    }
    pthread_mutex_unlock(&store->mutex);
    if (row)
        return 0;
    atomic_fetch_add(&store->n_dropped, 1);
    return err_set(err, ERR_FULL, "database %s: the queue of %d MiB is full; a row of %s was dropped: check the disk",
                   store->path, (int)(RING_BYTES >> 20), TABLES[table]);
}

int64_t store_durable_number(const struct store *store) { return atomic_load(&store->number_durable); }

int64_t store_dropped(const struct store *store) { return atomic_load(&store->n_dropped); }

int store_failure(const struct store *store, struct err *err)
{
    if (!atomic_load(&store->failed))
        return 0;
    return err_set(err, store->failure.code, "%s", store->failure.message);
}

/* ---- opening and closing
 * --------------------------------------------------------------------------------------------------- */

static int prepare_inserts(struct store *store, struct err *err)
{
    for (int table = 0; table < STORE_TABLE_COUNT; table++) {
        char sql[200];
        sqlite3_stmt *all;
        snprintf(sql, sizeof sql, "SELECT * FROM %s", TABLES[table]);
        if (sqlite3_prepare_v2(store->db, sql, -1, &all, NULL) != SQLITE_OK)
            return db_fail(store->db, store->path, sql, err);
        store->n_columns[table] = sqlite3_column_count(all);
        sqlite3_finalize(all);
        assert(store->n_columns[table] <= COLUMNS_MAX);
        /* A scan has one result: that of its last attempt takes the place of what was said of the one before. */
        int used = snprintf(sql, sizeof sql, "INSERT %sINTO %s VALUES (?", table == STORE_RESULT ? "OR REPLACE " : "",
                            TABLES[table]);
        for (int i = 1; i < store->n_columns[table]; i++)
            used += snprintf(sql + used, sizeof sql - (size_t)used, ", ?");
        snprintf(sql + used, sizeof sql - (size_t)used, ")");
        if (sqlite3_prepare_v3(store->db, sql, -1, SQLITE_PREPARE_PERSISTENT, &store->inserts[table], NULL) !=
            SQLITE_OK)
            return db_fail(store->db, store->path, sql, err);
    }
    return 0;
}

/* Identity and schema go into the main file before the write-ahead log begins, so that check_identity finds them there
 * whatever becomes of the log. */
static int make_schema(struct store *store, struct err *err)
{
    char identity[120];
    snprintf(identity, sizeof identity, "PRAGMA application_id = %d; PRAGMA user_version = %d", STORE_APPLICATION_ID,
             STORE_SCHEMA_VERSION);
    const char *const script[] = {"PRAGMA synchronous = FULL", "BEGIN", store_schema_sql, identity, "COMMIT"};
    for (size_t i = 0; i < sizeof script / sizeof script[0]; i++)
        if (sqlite3_exec(store->db, script[i], NULL, NULL, NULL) != SQLITE_OK)
            return db_fail(store->db, store->path, script[i] == store_schema_sql ? "the schema" : script[i], err);
    return 0;
}

/* A run goes on only in a database that is whole. */
static int check_whole(struct store *store, struct err *err)
{
    sqlite3_stmt *check = NULL;
    if (sqlite3_prepare_v2(store->db, "PRAGMA quick_check(1)", -1, &check, NULL) != SQLITE_OK ||
        sqlite3_step(check) != SQLITE_ROW) {
        int code = db_fail(store->db, store->path, "quick_check", err);
        sqlite3_finalize(check);
        return code;
    }
    const char *finding = (const char *)sqlite3_column_text(check, 0);
    int code = 0;
    if (!finding || strcmp(finding, "ok") != 0)
        code = err_set(err, ERR_DB, "database %s is damaged: %s; copy it away and begin another run", store->path,
                       finding ? finding : "no answer");
    sqlite3_finalize(check);
    return code;
}

static int open_database(struct store *store, bool create, struct err *err)
{
    if (sqlite3_open_v2(store->path, &store->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, NULL) != SQLITE_OK)
        return db_fail(store->db, store->path, "opening", err);
    sqlite3_extended_result_codes(store->db, 1);
    sqlite3_busy_timeout(store->db, BUSY_MS);
    int code = create ? make_schema(store, err) : check_whole(store, err);
    if (code == 0)
        code = db_run(store->db, store->path,
                      "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;"
                      "PRAGMA trusted_schema = OFF; PRAGMA cell_size_check = ON",
                      err);
    return code < 0 ? code : prepare_inserts(store, err);
}

static int start_writer(struct store *store, struct err *err)
{
    store->ring = mmap(NULL, RING_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (store->ring == MAP_FAILED)
        return err_set(err, ERR_SYSTEM, "no memory for the queue of the database (%d MiB)", (int)(RING_BYTES >> 20));
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&store->wake, &monotonic);
    pthread_condattr_destroy(&monotonic);
    pthread_mutex_init(&store->mutex, NULL);
    /* The writer takes no signals: they are the main thread's, and a file size limit is to be an error, not the end. */
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int status = pthread_create(&store->writer, NULL, writer_main, store);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (status == 0)
        return 0;
    munmap(store->ring, RING_BYTES);
    return err_set(err, ERR_SYSTEM, "no thread to write the database: %s", strerror(status));
}

static void release(struct store *store)
{
    for (int table = 0; table < STORE_TABLE_COUNT; table++)
        sqlite3_finalize(store->inserts[table]);
    sqlite3_close(store->db);
    if (store->lock_fd >= 0)
        close(store->lock_fd);
    free(store);
}

static int start(struct store **ret_store, const char *path, int lock_fd, bool create, struct err *err)
{
    struct store *store = calloc(1, sizeof *store);
    if (!store) {
        close(lock_fd);
        return err_set(err, ERR_SYSTEM, "no memory for the database");
    }
    store->lock_fd = lock_fd;
    snprintf(store->path, sizeof store->path, "%s", path);
    int code = open_database(store, create, err);
    if (code == 0)
        code = start_writer(store, err);
    if (code < 0) {
        release(store);
        return code;
    }
    *ret_store = store;
    return 0;
}

/* Makes the empty file and its name last. Errors: ERR_IO; ERR_DB when it exists. */
static int make_file(const char *path, struct err *err)
{
    char directory[512];
    const char *slash = strrchr(path, '/');
    snprintf(directory, sizeof directory, "%.*s", slash ? (int)(slash - path) + 1 : 1, slash ? path : ".");
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (fd < 0)
        return err_set(err, errno == EEXIST ? ERR_DB : ERR_IO, "database %s cannot be made: %s", path, strerror(errno));
    close(fd);
    fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0) {
        fsync(fd);
        close(fd);
    }
    return 0;
}

static int check_path(const char *path, struct err *err)
{
    if (strlen(path) < sizeof((struct store *)0)->path)
        return 0;
    return err_set(err, ERR_IO, "database %.80s...: the path is longer than %zu bytes", path,
                   sizeof((struct store *)0)->path - 1);
}

int store_create(struct store **ret_store, const char *path, struct err *err)
{
    int lock_fd;
    int code = check_path(path, err);
    if (code < 0)
        return code;
    if (access(path, F_OK) == 0) {
        code = check_identity(path, err);
        if (code == 0)
            code = take_lock(path, &lock_fd, err);
        if (code < 0)
            return code;
        close(lock_fd);
        return err_set(err, ERR_DB, "a run is already recorded in %s; continue it, or choose another name", path);
    }
    code = take_lock(path, &lock_fd, err);
    if (code < 0)
        return code;
    code = make_file(path, err);
    if (code < 0) {
        close(lock_fd);
        return code;
    }
    code = start(ret_store, path, lock_fd, true, err);
    if (code < 0)
        unlink(path);
    return code;
}

int store_open(struct store **ret_store, const char *path, struct err *err)
{
    int lock_fd;
    int code = check_path(path, err);
    if (code == 0)
        code = check_identity(path, err);
    if (code == 0)
        code = take_lock(path, &lock_fd, err);
    return code < 0 ? code : start(ret_store, path, lock_fd, false, err);
}

void store_close(struct store *store)
{
    if (!store)
        return;
    pthread_mutex_lock(&store->mutex);
    store->closing = true;
    pthread_cond_signal(&store->wake);
    pthread_mutex_unlock(&store->mutex);
    pthread_join(store->writer, NULL);
    pthread_mutex_destroy(&store->mutex);
    pthread_cond_destroy(&store->wake);
    munmap(store->ring, RING_BYTES);
    release(store);
}

/* ---- reading
 * --------------------------------------------------------------------------------------------------------------- */

struct store_reader {
    sqlite3 *db;
    char path[512];
};

struct store_rows {
    struct store_reader *reader;
    sqlite3_stmt *statement;
};

int store_reader_open(struct store_reader **ret_reader, const char *path, struct err *err)
{
    int code = check_path(path, err);
    if (code == 0)
        code = check_identity(path, err);
    if (code < 0)
        return code;
    struct store_reader *reader = calloc(1, sizeof *reader);
    if (!reader)
        return err_set(err, ERR_SYSTEM, "no memory to read %s", path);
    snprintf(reader->path, sizeof reader->path, "%s", path);
    if (sqlite3_open_v2(path, &reader->db, SQLITE_OPEN_READONLY | SQLITE_OPEN_NOMUTEX, NULL) != SQLITE_OK ||
        sqlite3_busy_timeout(reader->db, 1000) != SQLITE_OK ||
        sqlite3_exec(reader->db, "PRAGMA query_only = ON; PRAGMA trusted_schema = OFF", NULL, NULL, NULL) != SQLITE_OK)
        code = db_fail(reader->db, path, "opening to read", err);
    if (code < 0) {
        store_reader_close(reader);
        return code;
    }
    *ret_reader = reader;
    return 0;
}

void store_reader_close(struct store_reader *reader)
{
    if (!reader)
        return;
    sqlite3_close(reader->db);
    free(reader);
}

int store_rows_open(struct store_rows **ret_rows, struct store_reader *reader, const char *select,
                    const double *parameters, int n_parameters, struct err *err)
{
    assert(n_parameters >= 0 && n_parameters <= 4);
    const char *rest = "";
    sqlite3_stmt *statement = NULL;
    if (sqlite3_prepare_v2(reader->db, select, -1, &statement, &rest) != SQLITE_OK)
        return db_fail(reader->db, reader->path, select, err);
    if (!statement || !sqlite3_stmt_readonly(statement) || sqlite3_column_count(statement) == 0 || *rest) {
        sqlite3_finalize(statement);
        return err_set(err, ERR_DB, "database %s: expected one SELECT, not \"%s\"", reader->path, select);
    }
    for (int i = 0; i < n_parameters; i++)
        sqlite3_bind_double(statement, i + 1, parameters[i]);
    struct store_rows *rows = calloc(1, sizeof *rows);
    if (!rows) {
        sqlite3_finalize(statement);
        return err_set(err, ERR_SYSTEM, "no memory to read %s", reader->path);
    }
    *rows = (struct store_rows){.reader = reader, .statement = statement};
    *ret_rows = rows;
    return 0;
}

int store_rows_next(struct store_rows *rows, struct err *err)
{
    int status = sqlite3_step(rows->statement);
    if (status == SQLITE_ROW || status == SQLITE_DONE)
        return status == SQLITE_ROW;
    return db_fail(rows->reader->db, rows->reader->path, "reading", err);
}

double store_rows_real(const struct store_rows *rows, int column)
{
    if (sqlite3_column_type(rows->statement, column) == SQLITE_NULL)
        return __builtin_nan("");
    return sqlite3_column_double(rows->statement, column);
}

int64_t store_rows_integer(const struct store_rows *rows, int column)
{
    return sqlite3_column_int64(rows->statement, column);
}

const char *store_rows_text(const struct store_rows *rows, int column)
{
    const unsigned char *text = sqlite3_column_text(rows->statement, column);
    return text ? (const char *)text : "";
}

const void *store_rows_blob(const struct store_rows *rows, int column, size_t *ret_n_bytes)
{
    const void *bytes = sqlite3_column_blob(rows->statement, column);
    *ret_n_bytes = (size_t)sqlite3_column_bytes(rows->statement, column);
    return bytes;
}

void store_rows_close(struct store_rows *rows)
{
    if (!rows)
        return;
    sqlite3_finalize(rows->statement);
    free(rows);
}
