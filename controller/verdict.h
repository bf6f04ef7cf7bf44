/*
 * The verdict on a rehearsal: what the daemon recorded beside what the simulator knows. Prints a table per isobar and
 * one line per check. Called when the daemon has ended; nothing here can reach a result.
 *
 * Limits: no true pressure more than 0.05 GPa beyond the target of a load before the isobar's start; drift over an
 * isobar within its own limit (true and measured); tau within 15 % and beta within 0.2 of the scan's true values where
 * tau is at most a third of the scan's length.
 */
#ifndef CONTROLLER_VERDICT_H
#define CONTROLLER_VERDICT_H

#include "base/err.h"

struct verdict {
    int n_checks;
    int n_passed;
};

int verdict_print(const char *db_path, const char *truth_path, struct verdict *ret_verdict, struct err *err);

#endif
