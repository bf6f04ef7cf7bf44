/*
 * The run's database: one SQLite file per run, one writer.
 *
 * Rows are put into a bounded queue (no allocation, no wait, any thread) and written by one writer thread in the order
 * in which they were put, in transactions committed with synchronous=FULL. A durable row carries a number; when its
 * transaction is committed, store_durable_number reaches that number. A plain row follows within 0.25 s of wall time or
 * with the next durable one. The control thread polls; nothing calls back.
 */
#ifndef DB_STORE_H
#define DB_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define STORE_APPLICATION_ID 0x49534f42 /* "ISOB" */
#define STORE_SCHEMA_VERSION 2

enum store_type { STORE_NULL, STORE_INTEGER, STORE_REAL, STORE_TEXT, STORE_BLOB };

struct store_value {
    enum store_type type;
    int64_t integer;
    double real;       /* NaN is stored as NULL by SQLite: say so with a reason column */
    const void *bytes; /* text (NUL terminated) or blob; copied before store_put returns */
    size_t n_bytes;    /* blob only */
};

static inline struct store_value store_integer(int64_t v)
{
    return (struct store_value){.type = STORE_INTEGER, .integer = v};
}
static inline struct store_value store_real(double v) { return (struct store_value){.type = STORE_REAL, .real = v}; }
static inline struct store_value store_text(const char *v)
{
    return (struct store_value){.type = STORE_TEXT, .bytes = v};
}
static inline struct store_value store_null(void) { return (struct store_value){.type = STORE_NULL}; }
static inline struct store_value store_blob(const void *v, size_t n)
{
    return (struct store_value){.type = STORE_BLOB, .bytes = v, .n_bytes = n};
}

/* One per table of schema.sql; store_put takes its columns in the order of the schema. */
enum store_table {
    STORE_RUN,
    STORE_STEP,
    STORE_EVENT,
    STORE_DECISION,
    STORE_INTENT,
    STORE_PHASE,
    STORE_MEMBRANE,
    STORE_RUBY,
    STORE_RUBY_CALIBRATION,
    STORE_RUBY_DERIVATION,
    STORE_RUBY_DERIVED,
    STORE_ISOBAR,
    STORE_CELL_BRANCH,
    STORE_SCAN,
    STORE_RESULT,
    STORE_HOLD,
    STORE_LOG,
    STORE_RUN_END,
    STORE_TABLE_COUNT
};

struct store;

/* Creates the database and takes its writer lock (a lock of the operating system on "PATH.lock", which stays behind
 * and matters to nobody when its process is gone). What is not ours is not touched. Errors: ERR_DB when the file exists
 * (ours: "a run is already recorded in ..."; foreign: "not a database of isobar ..."; locked: a second daemon), ERR_IO.
 */
int store_create(struct store **ret_store, const char *path, struct err *err);

/* Opens an existing database of ours for writing (to continue a run). Errors as above, and ERR_DB for another schema
 * or a damaged file. Durable numbers begin anew: store_durable_number is 0. */
int store_open(struct store **ret_store, const char *path, struct err *err);

/* Puts one row; the number of values is the number of columns. `durable_number` 0: plain; else greater than every
 * number before. Errors: ERR_FULL (the queue is full: counted, row dropped; never blocks), ERR_DB (the writer has
 * failed: store_failure tells why). */
int store_put(struct store *store, enum store_table table, const struct store_value *values, int n_values,
              int64_t durable_number, struct err *err);

/* The greatest durable number whose row is committed; 0 before the first. */
int64_t store_durable_number(const struct store *store);

/* 0, or the code and sentence of the failure that stopped the writer for good: disk full, I/O error, another program
 * that locked the database for 30 s, or a row that contradicts the schema (a NaN in a NOT NULL column is one). */
int store_failure(const struct store *store, struct err *err);

/* Rows dropped because the queue was full. */
int64_t store_dropped(const struct store *store);

/* Writes what is queued, commits, ends the writer; frees `store`. To know that the last row is there, put it with a
 * number and wait for that first. */
void store_close(struct store *store);

/* ---- reading: own connection, read only, any process --------------------------------------------------------- */

struct store_reader;
struct store_rows;

/* Errors: ERR_DB (missing, not a database, not ours, another schema version). */
int store_reader_open(struct store_reader **ret_reader, const char *path, struct err *err);
void store_reader_close(struct store_reader *reader);

/* Prepares one SELECT with up to four numeric parameters (?1..?4). Errors: ERR_DB (not SQL, not a SELECT, more than
 * one). */
int store_rows_open(struct store_rows **ret_rows, struct store_reader *reader, const char *select,
                    const double *parameters, int n_parameters, struct err *err);
/* 1 with a row, 0 at the end, negative on error. */
int store_rows_next(struct store_rows *rows, struct err *err);
double store_rows_real(const struct store_rows *rows, int column); /* NULL gives NaN */
int64_t store_rows_integer(const struct store_rows *rows, int column);
const char *store_rows_text(const struct store_rows *rows, int column); /* "" for NULL; valid until the next row */
const void *store_rows_blob(const struct store_rows *rows, int column, size_t *ret_n_bytes);
void store_rows_close(struct store_rows *rows);

#endif
