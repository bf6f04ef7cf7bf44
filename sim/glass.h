/*
 * The dynamics of the simulated glass: how fast it rearranges at a pressure, and what a perfect measurement of one scan
 * would find. Pure: the same arguments give the same numbers; nothing is stored.
 *
 * Convention everywhere: isf(t) = exp(-(t / tau)^beta), so that |isf|^2 = exp(-2 (t / tau)^beta).
 *
 * Calibrated to the paper's table of a metallic glass on loading (571 s at ambient pressure, 38 s at 3.3 GPa); the
 * pressures between its points are interpolated, not known.
 */
#ifndef SIM_GLASS_H
#define SIM_GLASS_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

/* Relaxation time in seconds at `pressure_gpa` in a sample whose highest pressure so far was `pressure_gpa_peak`. On
 * loading (the peak is the pressure) tau falls to 38 s at 3.3 GPa and rises slowly beyond; on unloading it is longer
 * than on loading at the same pressure: twice as long at 1.5 GPa after a peak of 3.3 GPa. Pressures below 0 count as 0,
 * above 8 GPa as 8 GPa. */
double glass_tau_s(double pressure_gpa, double pressure_gpa_peak);

/* Kohlrausch exponent at a pressure, 1.6 to 1.9: compressed, as a stressed glass relaxes. */
double glass_beta(double pressure_gpa);

struct glass_truth {
    double tau_s;
    double beta;
};

/*
 * tau and beta of one scan as noiseless statistics would give them: least squares of exp(-2 (lag / tau)^beta) against
 * y(lag) = < exp(-2 |theta(t + lag) - theta(t)|^beta) >_t at logarithmically spaced lags. The base line and the
 * contrast are known exactly here, so they are not fitted.
 *   theta   [n_frames], internal time at each frame, dimensionless, not decreasing
 * Errors: ERR_ARG (fewer than 16 frames; frame time or beta not positive), ERR_FIT (no decay inside the scan).
 */
int glass_fit_truth(const double *theta, size_t n_frames, double frame_time_s, double beta,
                    struct glass_truth *ret_truth, struct err *err);

#endif
