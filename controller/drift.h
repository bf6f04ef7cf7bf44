/*
 * The drift of an isobar: from the readings so far to the pressure at its end. Pure, fixed size.
 *
 * The line through the readings since the isobar began, or since it was last corrected, says how far the pressure will
 * have gone from its start when the isobar ends. With a ruby that is read in the gaps between scans only, the line goes
 * through the gaps. A drift is believed when it is DRIFT_SIGMAS times its own uncertainty: the question is asked again
 * with every reading, and noise alone would answer yes in the end.
 */
#ifndef CONTROLLER_DRIFT_H
#define CONTROLLER_DRIFT_H

#include <stdbool.h>
#include <stdint.h>

#include "controller/trend.h"

#define DRIFT_SIGMAS 4.0

struct drift {
    double pressure_gpa_start; /* mean of the first readings; NaN before */
    double pressure_gpa_end;   /* mean of the last */
    double pressure_gpa_departure;
    struct trend trend;
};

struct drift_projection {
    double departure_gpa; /* of the end from the start */
    double departure_gpa_sigma;
    double slope_gpa_per_s;
    bool is_believed; /* the slope is no noise */
};

void drift_begin(struct drift *drift);

/* After a correction: the slope begins anew, the start stays. */
void drift_restart(struct drift *drift);

void drift_add(struct drift *drift, int64_t t_ns, double pressure_gpa, double pressure_gpa_sigma);

/* False with too few readings, or readings of too short a time. */
bool drift_project(const struct drift *drift, int64_t now_ns, int64_t end_ns, struct drift_projection *ret_projection);

#endif
