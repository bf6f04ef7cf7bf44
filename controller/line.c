#include "controller/line.h"

#include <assert.h>
#include <math.h>

void line_init(struct line *line, double offset_bar, double offset_bar_sigma, double slope_bar_per_gpa,
               double slope_bar_per_gpa_sigma)
{
    assert(offset_bar_sigma > 0.0 && slope_bar_per_gpa_sigma > 0.0);
    *line = (struct line){
        .offset_bar = offset_bar,
        .slope_bar_per_gpa = slope_bar_per_gpa,
        .variance = {offset_bar_sigma * offset_bar_sigma, 0.0, slope_bar_per_gpa_sigma * slope_bar_per_gpa_sigma},
    };
}

double line_at(const struct line *line, double pressure_gpa)
{
    return line->offset_bar + line->slope_bar_per_gpa * pressure_gpa;
}

static double variance_at(const struct line *line, double p)
{
    return line->variance[0] + 2.0 * p * line->variance[1] + p * p * line->variance[2];
}

double line_sigma_at(const struct line *line, double pressure_gpa) { return sqrt(variance_at(line, pressure_gpa)); }

double line_slope_sigma(const struct line *line) { return sqrt(line->variance[2]); }

void line_measure(struct line *line, double pressure_gpa, double value_bar, double value_bar_sigma)
{
    assert(value_bar_sigma > 0.0);
    double p = pressure_gpa, missing_bar = value_bar - line_at(line, p);
    double total = variance_at(line, p) + value_bar_sigma * value_bar_sigma;
    double covariance[2] = {line->variance[0] + p * line->variance[1], line->variance[1] + p * line->variance[2]};
    double gain[2] = {covariance[0] / total, covariance[1] / total};
    line->offset_bar += gain[0] * missing_bar;
    line->slope_bar_per_gpa += gain[1] * missing_bar;
    line->variance[0] -= gain[0] * covariance[0];
    line->variance[1] -= gain[0] * covariance[1];
    line->variance[2] -= gain[1] * covariance[1];
    line->n_measured++;
}
