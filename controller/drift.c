#include "controller/drift.h"

#include <math.h>
#include <stddef.h>

#include "base/clock.h"

#define MEAN_READINGS 10 /* averaged for the pressure at an isobar's start and end */
#define READINGS_MIN 20
#define SPAN_S_MIN 900.0 /* of shorter times a slip of the cell makes a slope */
#define WINDOW_S 1e6     /* all that is kept */

void drift_begin(struct drift *drift) { *drift = (struct drift){.pressure_gpa_start = NAN, .pressure_gpa_end = NAN}; }

void drift_restart(struct drift *drift) { trend_clear(&drift->trend); }

void drift_add(struct drift *drift, int64_t t_ns, double pressure_gpa, double pressure_gpa_sigma)
{
    double mean_gpa, sigma_gpa;
    trend_add(&drift->trend, t_ns, pressure_gpa, pressure_gpa_sigma, 0.0);
    if (!trend_mean(&drift->trend, MEAN_READINGS, &mean_gpa, &sigma_gpa))
        return;
    if (isnan(drift->pressure_gpa_start))
        drift->pressure_gpa_start = mean_gpa;
    drift->pressure_gpa_end = mean_gpa;
    double departure_gpa = mean_gpa - drift->pressure_gpa_start;
    if (fabs(departure_gpa) > fabs(drift->pressure_gpa_departure))
        drift->pressure_gpa_departure = departure_gpa;
}

bool drift_project(const struct drift *drift, int64_t now_ns, int64_t end_ns, struct drift_projection *ret_projection)
{
    struct trend_fit fit;
    if (isnan(drift->pressure_gpa_start) || trend_span_s(&drift->trend, drift->trend.n) < SPAN_S_MIN ||
        !trend_fit(&drift->trend, now_ns, WINDOW_S, NULL, &fit) || fit.n < READINGS_MIN)
        return false;
    double remaining_s = fmax(s_from_ns(end_ns - now_ns), 0.0);
    /* Mean and slope are independent of each other, level and slope are not. */
    double mean_gpa2 = fit.mean_gpa_sigma * fit.mean_gpa_sigma;
    double mean_age_s =
        sqrt(fmax(fit.level_gpa_sigma * fit.level_gpa_sigma - mean_gpa2, 0.0)) / fit.slope_gpa_per_s_sigma;
    double slope_gpa = fit.slope_gpa_per_s_sigma * (mean_age_s + remaining_s);
    *ret_projection = (struct drift_projection){
        .departure_gpa = fit.level_gpa + fit.slope_gpa_per_s * remaining_s - drift->pressure_gpa_start,
        .departure_gpa_sigma = sqrt(mean_gpa2 + slope_gpa * slope_gpa),
        .slope_gpa_per_s = fit.slope_gpa_per_s,
        .is_believed = fabs(fit.slope_gpa_per_s) > DRIFT_SIGMAS * fit.slope_gpa_per_s_sigma,
    };
    return true;
}
