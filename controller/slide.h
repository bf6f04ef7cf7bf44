/*
 * The slide of the sample under a membrane that moves: pressure, speed, and how the gasket carries the speed. Pure,
 * fixed size.
 *
 * A slope of readings is noisy, late, and blind for minutes after a slip of the cell. But the membrane is known
 * exactly, and what it does to the speed v is known as well: with G, the bar by which the dead zone's edge moves per
 * GPa,
 *
 *     dp/dt = v,      dv/dt = v (du/dt / G - v) / b          a gasket that yields like an activated solid (Eyring):
 *                                                            its excess grows with the logarithm of the speed
 *                     dv/dt =   (du/dt / G - v) / theta      one that flows: its excess grows with the speed
 *
 * So a filter (extended Kalman: Gelb, Applied Optimal Estimation, 1974, table 6.1-1) of three states takes all readings
 * of a slide together. The third is b as a share of the dead zone's half width, or theta in seconds: what the curve of
 * a slide tells of it no slope does. Of two filters side by side, chi2 tells which law the gasket obeys.
 * Pressures in the direction of the change.
 */
#ifndef CONTROLLER_SLIDE_H
#define CONTROLLER_SLIDE_H

#include <stdbool.h>
#include <stdint.h>

enum { SLIDE_YIELDS, SLIDE_FLOWS, SLIDE_LAWS };
enum { SLIDE_LEVEL, SLIDE_SPEED, SLIDE_FLOW, SLIDE_STATES };

struct slide {
    bool is_begun;
    bool is_viscous;
    double state[SLIDE_STATES]; /* GPa; GPa/s; b G / half width, or theta in s */
    double covariance[SLIDE_STATES][SLIDE_STATES];
    double flow_begun;
    double membrane_bar;
    double slipped_gpa; /* what readings have moved the level by, of late: slips, which come back */
    double chi2;        /* of the readings so far, by the sigma that the filter expected */
    int32_t n_refused;  /* readings in a row, far from what was expected */
};

struct slide_cell {
    double edge_bar_per_gpa; /* G */
    double half_width_bar;   /* at this pressure */
};

/* A slide is seen: by a line through readings, with its sigmas. */
void slide_begin(struct slide *slide, bool is_viscous, const double state[SLIDE_STATES],
                 const double sigma[SLIDE_STATES], double membrane_bar);

/* Time passes and the membrane moves; since_s at most a few seconds. Before a slide has begun: nothing. */
void slide_move(struct slide *slide, const struct slide_cell *cell, double membrane_bar, double since_s);

/* A reading. One that is far off is left out; the fourth in a row is believed. */
void slide_read(struct slide *slide, double pressure_gpa, double pressure_gpa_sigma);

#endif
