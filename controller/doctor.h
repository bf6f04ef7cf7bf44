/*
 * What `isobar doctor` reports: one line per instrument with what was asked, what was seen, how good that is, and, when
 * it is not good, what to check. Pure: controller/examine fills it before a run, controller/loop during one.
 */
#ifndef CONTROLLER_DOCTOR_H
#define CONTROLLER_DOCTOR_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"

/* name, word, what is asked of it */
#define DOCTOR_PART_LIST(X)                                                                                            \
    X(MEMBRANE, "membrane", "identity, unit, pressure, set point")                                                     \
    X(THERMOMETER, "thermometer", "the temperature of the cell")                                                       \
    X(SPECTROMETER, "spectrometer", "identity, axis, a spectrum")                                                      \
    X(RUBY, "ruby", "R1 and R2 in that spectrum")                                                                      \
    X(OPTICS, "optics", "where the ruby's optics and the laser shutter are")                                           \
    X(DETECTOR, "detector", "its IOC, and whether it could take a scan")                                               \
    X(FILES, "files", "the detector's file_path, here and at its IOC")                                                 \
    X(RING, "ring", "the stored current")                                                                              \
    X(DISK, "disk", "room for the database and the results")                                                           \
    X(CLOCK, "clock", "whether it runs, and agrees with the world's")                                                  \
    X(DATABASE, "database", "whether its file is whole")

enum doctor_part {
#define X(name, word, asked) DOCTOR_##name,
    DOCTOR_PART_LIST(X)
#undef X
        DOCTOR_PART_COUNT
};

/* By what the part is reached. */
enum doctor_wire { DOCTOR_LINE, DOCTOR_EPICS, DOCTOR_WIRE_COUNT };

enum doctor_verdict { DOCTOR_GOOD, DOCTOR_DOUBT, DOCTOR_BAD, DOCTOR_VERDICT_COUNT };

struct doctor_line {
    enum doctor_part part;
    enum doctor_verdict verdict;
    char seen[800];
    char check[240]; /* what a person should look at; "" when good */
};

struct doctor_report {
    int n;
    struct doctor_line lines[DOCTOR_PART_COUNT]; /* at most one per part */
};

/* Adds a line; `check` "" or what to look at. */
void doctor_add(struct doctor_report *report, enum doctor_part part, enum doctor_verdict verdict, const char *check,
                const char *format, ...) __attribute__((format(printf, 5, 6)));

/* Adds a failed line: the driver's own sentence, and what the kind of its error means for this part on that wire. */
void doctor_add_failure(struct doctor_report *report, enum doctor_part part, enum doctor_wire wire,
                        const struct err *err);

/* The most serious verdict of all lines. */
enum doctor_verdict doctor_worst(const struct doctor_report *report);

/* One line each for people; or one JSON object on one line. Cut, but always whole lines (or "" as JSON), when `size`
 * is too small: 8192 is enough. */
void doctor_print(const struct doctor_report *report, bool is_json, char *ret_text, size_t size);

#endif
