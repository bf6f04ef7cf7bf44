/*
 * Looks at instruments for `isobar doctor`, through their drivers: reads, and nothing else. No set point, no slew, no
 * valve, no put on a record; but a spectrometer, by whichever wire, is told its own communication and exposure, as at
 * every connection, and to take one spectrum. All waits are bounded; a beamline of which nothing answers is examined in
 * less than half a minute.
 */
#ifndef CONTROLLER_EXAMINE_H
#define CONTROLLER_EXAMINE_H

#include "base/clock.h"
#include "controller/doctor.h"
#include "drivers/epics.h"
#include "sequences/beamline.h"

/* Everything, on connections of its own: before a run only, because an instrument has one master. `db_path` may name a
 * database that does not exist yet. */
void examine_beamline(const struct beamline *beamline, const struct clock *clock, const char *db_path,
                      struct doctor_report *report);

/* Of the ruby: measured, or stated. */
struct examine_temperature {
    double k, k_sigma;
};

/* The spectrometer and the ruby that it sees. `epics`: NULL when Channel Access is not to be had. */
void examine_spectrometer(const struct beamline *beamline, struct epics *epics,
                          const struct examine_temperature *temperature, struct doctor_report *report);

/* The parts that can be looked at beside a run as well. */
void examine_files(const struct beamline_detector *detector, struct epics *epics, struct doctor_report *report);
void examine_disk(const char *db_path, struct doctor_report *report);
void examine_clock(const struct clock *clock, struct doctor_report *report);
void examine_database(const char *db_path, struct doctor_report *report);

#endif
