/*
 * The plain recipe that the protocol is measured against, on the plant itself: ramp until the mean of three readings,
 * one every 5 s, is at the target, then (or not) back off at 6 bar/min until that mean has dropped by 0.01 GPa from its
 * furthest value. No journal, no leash, no dead zone known.
 */
#ifndef TESTS_NIGHTS_RECIPE_H
#define TESTS_NIGHTS_RECIPE_H

#include <stdbool.h>
#include <stdint.h>

#include "sim/plant.h"
#include "tests/nights/night.h"

#define RECIPE_READING_S 5

enum recipe_state { RECIPE_RAMP, RECIPE_BACK_OFF, RECIPE_HOLD, RECIPE_REFUSED, RECIPE_STATE_COUNT };

struct recipe {
    struct plant plant;
    struct plant_input input;
    struct night_readings readings;
    struct random random;
    enum recipe_state state;
    int32_t direction;
    double target_gpa;
    bool has_back_off;
    double membrane_bar_max;
    double reading_gpa[3]; /* oldest first */
    double mean_gpa;
    double peak_gpa; /* x direction: furthest mean since the ramp or the back-off began */
    int64_t n_seconds, move_s;
};

/* The cell as `plant` stands, its membrane where it is. */
void recipe_begin(struct recipe *ret_recipe, const struct plant *plant, const struct night_readings *readings,
                  struct random random, double membrane_bar_max);

/* The next change: up (direction +1) or down (-1) to the target. */
void recipe_start(struct recipe *recipe, int32_t direction, double target_gpa, bool has_back_off);

/* One second of the present state; in REFUSED, at the membrane's limit or after a day of one move, nothing happens. */
void recipe_step(struct recipe *recipe);

#endif
