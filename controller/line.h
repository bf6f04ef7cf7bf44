/*
 * A property of the cell that grows with the sample pressure: value = offset + slope x pressure. Pure, fixed size.
 *
 * Half width and middle of the dead zone are such lines: friction and load grow with the pressure, so what is seen at
 * one pressure says something of all others. Least squares with a prior, one measurement at a time (the recursive
 * form): an unknown cell begins with what most cells have, and each edge that is found narrows it down.
 */
#ifndef CONTROLLER_LINE_H
#define CONTROLLER_LINE_H

#include <stdint.h>

struct line {
    double offset_bar; /* at no pressure */
    double slope_bar_per_gpa;
    double variance[3]; /* of the offset, of both, of the slope */
    int32_t n_measured;
};

void line_init(struct line *line, double offset_bar, double offset_bar_sigma, double slope_bar_per_gpa,
               double slope_bar_per_gpa_sigma);

/* The value at this pressure and its uncertainty, bar. */
double line_at(const struct line *line, double pressure_gpa);
double line_sigma_at(const struct line *line, double pressure_gpa);

double line_slope_sigma(const struct line *line);

/* One measurement. */
void line_measure(struct line *line, double pressure_gpa, double value_bar, double value_bar_sigma);

#endif
