/*
 * The passport of a cell: what a run's database says of it, and the file that carries it to the next run.
 *
 * The file is Lua that the same sandbox reads as a sequence: cell { ... } exactly as a sequence has it, cell_passport
 * { ... } with the run, its clock, its ruler and the estimates, and one cell_branch { ... } per change. What it means
 * is in controller/cell.h. Times are UTC.
 */
#ifndef CONTROLLER_PASSPORT_H
#define CONTROLLER_PASSPORT_H

#include <stdio.h>

#include "controller/cell.h"

/* From a run's database, while it runs or later. Errors: ERR_DB, ERR_DATA (no run in it), those of plan_read and of
 * beamline_read. */
int passport_read_db(struct cell_passport *ret_passport, const char *db_path, struct err *err);

/* From a passport's file. Errors as for plan_load; ERR_CONFIG when it is cut: it says how many branches it holds. */
int passport_read_file(struct cell_passport *ret_passport, const char *path, struct err *err);

/* The same for a run of this plan at this beamline (NULL: not known yet), which must be its own: errors also those of
 * cell_check_plan and cell_check_ruler, with the file's name before them. */
int passport_read_for_run(struct cell_passport *ret_passport, const char *path, const struct plan *plan,
                          const struct beamline *beamline, struct err *err);

/* Writes a new file; never over another. Errors: ERR_IO. */
int passport_write_file(const struct cell_passport *passport, const char *path, struct err *err);

/* For people: the table of branches, and the estimates with their sigmas as measured, at this UTC, and with the cell
 * loaded anew. */
void passport_print(const struct cell_passport *passport, int64_t utc_s, FILE *stream);

/* The estimates with their sigmas for a run that begins at this age. */
void passport_print_known(const struct cell_passport *passport, const struct cell_age *age, FILE *stream);

/* The same in one line, for the log: what is known, from which file, measured when. */
void passport_describe(const struct cell_passport *passport, const char *path, const struct cell_age *age, bool is_real,
                       char *ret_text, size_t size);

#endif
