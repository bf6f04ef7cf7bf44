/*
 * `isobar ruby --rescale`: the pressures of a recorded night on another ruler, from the lines that were read. Rows of
 * the table ruby are left as they are; what is derived goes into ruby_derivation and ruby_derived, beside them. Needs
 * the night's database for itself: while its daemon runs, that is refused.
 */
#ifndef CONTROLLER_RESCALE_H
#define CONTROLLER_RESCALE_H

#include <stdint.h>

#include "base/err.h"

struct rescale_request {
    const char *scale;      /* a scale of ruby */
    const char *correction; /* NULL: that of each reading */
    double lambda0_nm;      /* 0: that of each reading */
    int64_t utc_ns;
};

struct rescale_report {
    int64_t number; /* of the derivation */
    int64_t n_readings;
    double gpa_difference_min, gpa_difference_max; /* to the pressures of the run */
    const char *scale;
};

/* Errors: ERR_ARG (unknown scale or correction, not of ruby), ERR_DB (not a database of ours, in use, this derivation
 * is there already: the sentence says its number), ERR_DATA (no believed reading, or readings of several rulers). */
int rescale_run(const char *db_path, const struct rescale_request *request, struct rescale_report *ret_report,
                struct err *err);

#endif
