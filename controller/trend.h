/*
 * The last ruby readings and the straight line through them: pure, fixed size.
 *
 * Least squares on time and pressure; readings far from the first line (3.5 times the scatter, which is taken from the
 * median residual, so that wrong readings do not widen it) are left out of the second. The uncertainty of level and
 * slope comes from the scatter of the readings themselves, or from their stated sigma where that is larger.
 */
#ifndef CONTROLLER_TREND_H
#define CONTROLLER_TREND_H

#include <stdbool.h>
#include <stdint.h>

#define TREND_MAX 256
#define TREND_MEAN_MAX 32

struct trend {
    int32_t n; /* readings kept */
    int32_t next;
    int64_t t_ns[TREND_MAX];
    double pressure_gpa[TREND_MAX];
    double pressure_gpa_sigma[TREND_MAX];
    double drive_bar_s[TREND_MAX]; /* integral of the membrane pressure up to the reading; 0 where nobody asks */
};

/* What is known of the way in between: the membrane has changed the slope by (change of membrane - edge x change of
 * sample) / compliance. The line is then fitted to the readings freed from that bend, and holds for this instant
 * instead of for the middle of the window. */
struct trend_drive {
    double membrane_bar; /* now */
    double drive_bar_s;
    double compliance_bar_s_per_gpa;
    double edge_bar_per_gpa;
};

struct trend_fit {
    int32_t n;        /* readings used */
    double level_gpa; /* at the instant asked for */
    double level_gpa_sigma;
    double slope_gpa_per_s;
    double slope_gpa_per_s_sigma;
    double mean_gpa;
    double mean_gpa_sigma;
};

void trend_clear(struct trend *trend);
void trend_add(struct trend *trend, int64_t t_ns, double pressure_gpa, double pressure_gpa_sigma, double drive_bar_s);

/* The line through the readings no older than `window_s` before `now_ns`; false with fewer than four. `drive` NULL: the
 * membrane stood still, or does not move the sample. */
bool trend_fit(const struct trend *trend, int64_t now_ns, double window_s, const struct trend_drive *drive,
               struct trend_fit *ret_fit);

/* Mean of the newest `n` readings (at most TREND_MEAN_MAX) without those more than 4 sigma from their median; false
 * with fewer. */
bool trend_mean(const struct trend *trend, int32_t n, double *ret_mean_gpa, double *ret_sigma_gpa);

/* Time from the n-th newest reading to the newest, s; 0 with fewer. */
double trend_span_s(const struct trend *trend, int32_t n);

/* Time since the newest reading, s; infinite without any. */
double trend_age_s(const struct trend *trend, int64_t now_ns);

/* Mean stated sigma of the newest readings, GPa; 0 without any. */
double trend_sigma_gpa(const struct trend *trend);

#endif
