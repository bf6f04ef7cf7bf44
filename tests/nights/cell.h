/*
 * Cells drawn at random, for the loading benchmark: what an unknown cell may be. The distributions were committed
 * before the protocol was tuned on them; a change needs a reason in the commit.
 */
#ifndef TESTS_NIGHTS_CELL_H
#define TESTS_NIGHTS_CELL_H

#include "sim/plant.h"
#include "tests/nights/night.h"

struct cell {
    struct plant_law law;
    struct night_readings readings;
    double membrane_bar_max;
};

/* Uniform on every range:
 *   bar per GPa 7 to 14; take-up 5 to 20 bar; dead-zone half width 2 to 8 bar + 5 to 20 % of the load; creep time 5 to
 *   40 min; stick-slip sigma 0 to 0.03 GPa, 0.5 to 3 per hour, relaxing with 1 to 4 h; temperature 0 to 0.5 K by day
 * and 0 to 0.15 K by the hour, 0.003 to 0.007 GPa/K in truth and 0.02 GPa/K in an uncorrected ruby; ruby sigma 0.005 to
 *   0.03 GPa, 2 % outliers of up to 0.5 GPa; leak of the closed valves 0 to 0.5 bar/h; membrane limit 90 to 150 bar. */
void cell_draw(struct cell *ret_cell, enum plant_form form, struct random *random);

#endif
