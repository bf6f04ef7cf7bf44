#include "controller/trend.h"

#include <assert.h>
#include <math.h>
#include <stddef.h>

#include "base/clock.h"

#define FIT_READINGS_MIN 4
#define MEAN_SIGMAS_MAX 4.0
#define RESIDUAL_SIGMAS_MAX 3.5
#define MEDIAN_TO_SIGMA 1.483 /* of a normal distribution */

void trend_clear(struct trend *trend) { *trend = (struct trend){0}; }

void trend_add(struct trend *trend, int64_t t_ns, double pressure_gpa, double pressure_gpa_sigma, double drive_bar_s)
{
    assert(pressure_gpa_sigma > 0.0);
    trend->t_ns[trend->next] = t_ns;
    trend->pressure_gpa[trend->next] = pressure_gpa;
    trend->pressure_gpa_sigma[trend->next] = pressure_gpa_sigma;
    trend->drive_bar_s[trend->next] = drive_bar_s;
    trend->next = (trend->next + 1) % TREND_MAX;
    if (trend->n < TREND_MAX)
        trend->n++;
}

/* Index of the k-th newest reading, k = 0 the newest. */
static int32_t newest(const struct trend *trend, int32_t k)
{
    return (trend->next - 1 - k + 2 * TREND_MAX) % TREND_MAX;
}

static double absolute(double x) { return x < 0.0 ? -x : x; }

/* Insertion sort: a few dozen values, mostly in order. */
static double median(double *values, int32_t n)
{
    for (int32_t i = 1; i < n; i++) {
        double value = values[i];
        int32_t j = i;
        for (; j > 0 && values[j - 1] > value; j--)
            values[j] = values[j - 1];
        values[j] = value;
    }
    return values[n / 2];
}

double trend_span_s(const struct trend *trend, int32_t n)
{
    if (n < 1 || trend->n < n)
        return 0.0;
    return s_from_ns(trend->t_ns[newest(trend, 0)] - trend->t_ns[newest(trend, n - 1)]);
}

double trend_age_s(const struct trend *trend, int64_t now_ns)
{
    return trend->n > 0 ? s_from_ns(now_ns - trend->t_ns[newest(trend, 0)]) : INFINITY;
}

double trend_sigma_gpa(const struct trend *trend)
{
    int32_t n = trend->n < TREND_MEAN_MAX ? trend->n : TREND_MEAN_MAX;
    double sum = 0.0;
    for (int32_t k = 0; k < n; k++)
        sum += trend->pressure_gpa_sigma[newest(trend, k)];
    return n > 0 ? sum / n : 0.0;
}

bool trend_mean(const struct trend *trend, int32_t n, double *ret_mean_gpa, double *ret_sigma_gpa)
{
    double values[TREND_MEAN_MAX], sum = 0.0, variance = 0.0;
    int32_t n_used = 0;
    if (n < 1 || n > TREND_MEAN_MAX || trend->n < n)
        return false;
    for (int32_t k = 0; k < n; k++)
        values[k] = trend->pressure_gpa[newest(trend, k)];
    double middle_gpa = median(values, n);
    for (int32_t k = 0; k < n; k++) {
        int32_t i = newest(trend, k);
        double sigma_gpa = trend->pressure_gpa_sigma[i];
        if (absolute(trend->pressure_gpa[i] - middle_gpa) > MEAN_SIGMAS_MAX * sigma_gpa)
            continue;
        sum += trend->pressure_gpa[i];
        variance += sigma_gpa * sigma_gpa;
        n_used++;
    }
    assert(n_used > 0); /* the median is a reading */
    *ret_mean_gpa = sum / n_used;
    *ret_sigma_gpa = sqrt(variance) / n_used;
    return true;
}

/* How much higher the sample stood `age_s` ago than the present line says, because the slope was another then. */
static double bend_gpa(const struct trend_drive *drive, double slope_gpa_per_s, double age_s, double drive_bar_s)
{
    if (!drive)
        return 0.0;
    double membrane_bar_s = drive->membrane_bar * age_s - (drive->drive_bar_s - drive_bar_s);
    double edge_bar_s = drive->edge_bar_per_gpa * slope_gpa_per_s * 0.5 * age_s * age_s;
    return (membrane_bar_s - edge_bar_s) / drive->compliance_bar_s_per_gpa;
}

/* The newest `n` readings, freed from the bend: age (negative, s), pressure. */
struct points {
    int32_t n;
    double t_s[TREND_MAX], pressure_gpa[TREND_MAX], variance[TREND_MAX];
};

static void straighten(const struct trend *trend, int64_t now_ns, int32_t n, const struct trend_drive *drive,
                       double slope_gpa_per_s, struct points *ret_points)
{
    ret_points->n = n;
    for (int32_t k = 0; k < n; k++) {
        int32_t i = newest(trend, k);
        double t_s = s_from_ns(trend->t_ns[i] - now_ns);
        ret_points->t_s[k] = t_s;
        ret_points->pressure_gpa[k] =
            trend->pressure_gpa[i] - bend_gpa(drive, slope_gpa_per_s, -t_s, trend->drive_bar_s[i]);
        ret_points->variance[k] = trend->pressure_gpa_sigma[i] * trend->pressure_gpa_sigma[i];
    }
}

static double residual_gpa(const struct points *points, int32_t k, const struct trend_fit *line)
{
    return absolute(points->pressure_gpa[k] - line->level_gpa - line->slope_gpa_per_s * points->t_s[k]);
}

/* The line through the points; those further than `residual_gpa_max` from `line` are left out (NULL: none). */
static bool fit_line(const struct points *points, const struct trend_fit *line, double residual_gpa_max,
                     struct trend_fit *ret_fit)
{
    double sum_t = 0.0, sum_p = 0.0, sum_tt = 0.0, sum_tp = 0.0, sum_pp = 0.0, sum_variance = 0.0;
    double origin_gpa = points->pressure_gpa[0]; /* keeps the squares small */
    int32_t n_used = 0;
    for (int32_t k = 0; k < points->n; k++) {
        double t = points->t_s[k], p = points->pressure_gpa[k] - origin_gpa;
        if (line && residual_gpa(points, k, line) > residual_gpa_max)
            continue;
        sum_t += t;
        sum_p += p;
        sum_tt += t * t;
        sum_tp += t * p;
        sum_pp += p * p;
        sum_variance += points->variance[k];
        n_used++;
    }
    if (n_used < FIT_READINGS_MIN)
        return false;
    double mean_t = sum_t / n_used, mean_p = sum_p / n_used;
    double tt = sum_tt - n_used * mean_t * mean_t, tp = sum_tp - n_used * mean_t * mean_p;
    double pp = sum_pp - n_used * mean_p * mean_p;
    if (!(tt > 0.0))
        return false;
    double slope = tp / tt, variance = (pp - slope * tp) / (n_used - 2);
    if (!(variance > sum_variance / n_used))
        variance = sum_variance / n_used;
    *ret_fit = (struct trend_fit){
        .n = n_used,
        .level_gpa = origin_gpa + mean_p - slope * mean_t,
        .level_gpa_sigma = sqrt(variance * (1.0 / n_used + mean_t * mean_t / tt)),
        .slope_gpa_per_s = slope,
        .slope_gpa_per_s_sigma = sqrt(variance / tt),
        .mean_gpa = origin_gpa + mean_p,
        .mean_gpa_sigma = sqrt(variance / n_used),
    };
    return true;
}

/* The same without the points that are far from the first line. */
static bool fit_robust(const struct points *points, struct trend_fit *ret_fit)
{
    double residuals_gpa[TREND_MAX], variance = 0.0;
    struct trend_fit line;
    if (!fit_line(points, NULL, 0.0, &line))
        return false;
    for (int32_t k = 0; k < points->n; k++) {
        residuals_gpa[k] = residual_gpa(points, k, &line);
        variance += points->variance[k];
    }
    double scatter_gpa = MEDIAN_TO_SIGMA * median(residuals_gpa, points->n);
    double stated_gpa = sqrt(variance / points->n);
    scatter_gpa = scatter_gpa > stated_gpa ? scatter_gpa : stated_gpa;
    return fit_line(points, &line, RESIDUAL_SIGMAS_MAX * scatter_gpa, ret_fit);
}

bool trend_fit(const struct trend *trend, int64_t now_ns, double window_s, const struct trend_drive *drive,
               struct trend_fit *ret_fit)
{
    struct points points;
    struct trend_fit fit;
    int32_t n = 0;
    while (n < trend->n && s_from_ns(now_ns - trend->t_ns[newest(trend, n)]) <= window_s)
        n++;
    if (n < FIT_READINGS_MIN)
        return false;
    straighten(trend, now_ns, n, NULL, 0.0, &points);
    bool is_known = fit_robust(&points, &fit);
    if (is_known && drive) { /* the bend needs the mean slope of the window, which the plain line has told */
        straighten(trend, now_ns, n, drive, fit.slope_gpa_per_s, &points);
        is_known = fit_robust(&points, &fit);
    }
    if (is_known)
        *ret_fit = fit;
    return is_known;
}
