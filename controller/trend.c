#include "controller/trend.h"

#include <assert.h>
#include <math.h>

#include "base/clock.h"

#define FIT_READINGS_MIN 4

void trend_clear(struct trend *trend) { *trend = (struct trend){0}; }

void trend_add(struct trend *trend, int64_t t_ns, double pressure_gpa, double pressure_gpa_sigma)
{
    assert(pressure_gpa_sigma > 0.0);
    trend->t_ns[trend->next] = t_ns;
    trend->pressure_gpa[trend->next] = pressure_gpa;
    trend->pressure_gpa_sigma[trend->next] = pressure_gpa_sigma;
    trend->next = (trend->next + 1) % TREND_MAX;
    if (trend->n < TREND_MAX)
        trend->n++;
}

/* Index of the k-th newest reading, k = 0 the newest. */
static int32_t newest(const struct trend *trend, int32_t k)
{
    return (trend->next - 1 - k + 2 * TREND_MAX) % TREND_MAX;
}

bool trend_mean(const struct trend *trend, int32_t n, double *ret_mean_gpa, double *ret_sigma_gpa)
{
    if (n < 1 || trend->n < n)
        return false;
    double sum = 0.0, variance = 0.0;
    for (int32_t k = 0; k < n; k++) {
        int32_t i = newest(trend, k);
        sum += trend->pressure_gpa[i];
        variance += trend->pressure_gpa_sigma[i] * trend->pressure_gpa_sigma[i];
    }
    *ret_mean_gpa = sum / n;
    *ret_sigma_gpa = sqrt(variance) / n;
    return true;
}

bool trend_fit(const struct trend *trend, int64_t now_ns, double window_s, struct trend_fit *ret_fit)
{
    double sum_t = 0.0, sum_p = 0.0, sum_variance = 0.0;
    int32_t n = 0;
    while (n < trend->n && s_from_ns(now_ns - trend->t_ns[newest(trend, n)]) <= window_s) {
        int32_t i = newest(trend, n);
        sum_t += s_from_ns(trend->t_ns[i] - now_ns);
        sum_p += trend->pressure_gpa[i];
        sum_variance += trend->pressure_gpa_sigma[i] * trend->pressure_gpa_sigma[i];
        n++;
    }
    if (n < FIT_READINGS_MIN)
        return false;
    double mean_t = sum_t / n, mean_p = sum_p / n, sum_tt = 0.0, sum_tp = 0.0, sum_pp = 0.0;
    for (int32_t k = 0; k < n; k++) {
        int32_t i = newest(trend, k);
        double t = s_from_ns(trend->t_ns[i] - now_ns) - mean_t, p = trend->pressure_gpa[i] - mean_p;
        sum_tt += t * t;
        sum_tp += t * p;
        sum_pp += p * p;
    }
    if (!(sum_tt > 0.0))
        return false;
    double slope = sum_tp / sum_tt;
    double variance = (sum_pp - slope * sum_tp) / (n - 2);
    if (!(variance > sum_variance / n))
        variance = sum_variance / n;
    *ret_fit = (struct trend_fit){
        .n = n,
        .level_gpa = mean_p - slope * mean_t,
        .level_gpa_sigma = sqrt(variance * (1.0 / n + mean_t * mean_t / sum_tt)),
        .slope_gpa_per_s = slope,
        .slope_gpa_per_s_sigma = sqrt(variance / sum_tt),
        .mean_gpa = mean_p,
        .mean_gpa_sigma = sqrt(variance / n),
    };
    return true;
}
