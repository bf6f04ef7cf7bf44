/*
 * From g2 to the intermediate scattering function: Siegert's relation and a Kohlrausch-Williams-Watts decay. Pure; the
 * fit is GSL's. Convention, to be stated wherever tau is printed:
 *
 *     g2(lag) = baseline + contrast * |F(lag)|^2,   |F(lag)|^2 = exp(-2 (lag / tau)^beta)
 *
 * The baseline is fitted: static speckle of the cell and an intensity gradient lift it. Lags are averaged in
 * logarithmic bins, weighted with the expected number of photon pairs. That weight understates the uncertainty (speckle
 * noise is correlated from lag to lag), so sigmas come from the jackknife over groups of pixels. Sixteen groups know a
 * sigma to a fifth only: those of the parameters are made wider, to the interval that holds 68.3 % by Student's t.
 */
#ifndef ANALYSIS_ISF_H
#define ANALYSIS_ISF_H

#include <stdbool.h>
#include <stddef.h>

#include "analysis/ttcf.h"

struct isf_fit {
    double tau_s, tau_s_sigma;
    double beta, beta_sigma;
    double contrast, contrast_sigma;
    double baseline, baseline_sigma;
    double chi2_reduced; /* against pair statistics alone: above 1 by the speckle noise */
    bool is_degenerate;  /* tau above a third of the scan: tau, contrast and baseline cannot be told apart */
};

#define ISF_BINS_MAX TTCF_LAG_RANGES_MAX

struct isf_curve {
    int n;
    size_t range[ISF_BINS_MAX]; /* of lags (struct ttcf_lags) */
    double lag_s[ISF_BINS_MAX]; /* mean lag, weighted with the pairs expected */
    double g2[ISF_BINS_MAX];
    double g2_sigma_pairs[ISF_BINS_MAX]; /* from pair statistics: the fit's weights */
    double g2_sigma[ISF_BINS_MAX];       /* by the jackknife: the true one, to about a fifth; isf_fit fills it */
};

/* g2 of each range of lags: pairs counted over pairs expected; ranges without any are left out. */
void isf_bin(const struct ttcf *ttcf, double frame_time_s, struct isf_curve *ret_curve);

/*
 * Fits the whole scan.
 *   ret_curve  what was fitted; filled, also when the fit is refused
 * Errors: ERR_FIT with the reason: too few lags; g2 flat within its noise; not converged; beta outside 0.2 to 4; tau
 * below the shortest lag or above ten scans; contrast below 4 sigma. Also when only a jackknife sample fails: a result
 * that hangs on one sixteenth of the pixels is none.
 */
int isf_fit(const struct ttcf *ttcf, double frame_time_s, struct isf_fit *ret_fit, struct isf_curve *ret_curve,
            struct err *err);

/* The fitted g2 at a lag. */
double isf_model(const struct isf_fit *fit, double lag_s);

#endif
