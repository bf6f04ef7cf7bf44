/*
 * The ruby ruler: from a spectrum to the wavelength of R1, and from that to pressure. Pure (GSL allocates inside; its
 * error handler is switched off for the process, because it would abort on data that merely cannot be fitted).
 *
 * The lines R1 and R2 are two pseudo-Voigt lines on a linear background, fitted by least squares. A spectrum that does
 * not carry the answer is refused with the reason; a doubtful one gets a warning. No reading is ever guessed.
 *
 * Scales, with x = (lambda - lambda0) / lambda0 and lambda corrected to the temperature of lambda0:
 *   ruby2020  P = A x (1 + B x), A 1870 GPa, B 5.63: Shen et al., High Press. Res. 40, 299 (2020),
 *             doi 10.1080/08957959.2020.1791107
 *   mao1986   P = (A / B) ((1 + x)^B - 1), A 1904 GPa, B 7.665: Mao, Xu and Bell, J. Geophys. Res. 91, 4673 (1986),
 *             doi 10.1029/JB091iB05p04673
 * They differ by 0.07 GPa at 7 GPa: a pressure without its scale, lambda0 and temperature is no record.
 */
#ifndef ANALYSIS_RUBY_H
#define ANALYSIS_RUBY_H

#include "base/err.h"

enum ruby_form { RUBY_POLYNOMIAL, RUBY_POWER, RUBY_FORM_COUNT };

struct ruby_scale {
    const char *name; /* as in the beamline file */
    enum ruby_form form;
    double a_gpa;
    double b;
    const char *citation;
};

/* NULL when there is no such scale. */
const struct ruby_scale *ruby_scale_by_name(const char *name);

/* lambda_nm: R1 at the temperature of lambda0_nm. The slope is its derivative with respect to lambda_nm. */
double ruby_pressure_gpa(const struct ruby_scale *scale, double lambda_nm, double lambda0_nm);
double ruby_slope_gpa_per_nm(const struct ruby_scale *scale, double lambda_nm, double lambda0_nm);

/* How far R1 is moved by a temperature that differs from that of lambda0; subtract it from the measured wavelength.
 * Datchi et al., High Press. Res. 27, 447 (2007), doi 10.1080/08957950701659593, equations 2 to 4; 0 to 900 K. */
double ruby_shift_nm(double temperature_k, double temperature_k_zero);

enum ruby_warning {
    RUBY_WARNING_WIDTH = 1 << 0,     /* R1 wider than 0.93 nm, 1.5 times ambient: stress is not hydrostatic */
    RUBY_WARNING_SPLITTING = 1 << 1, /* R1 - R2 more than 0.05 nm from 1.43: stress is not hydrostatic */
};

struct ruby_fit {
    double r1_nm;
    double r1_nm_sigma; /* standard uncertainty from the covariance, scaled by chi2_reduced */
    double r2_nm;
    double r1_nm_fwhm;
    double r2_nm_fwhm;
    double splitting_nm;
    double amplitude_counts;  /* of R1, above the background */
    double background_counts; /* at R1 */
    double chi2_reduced;      /* against the scatter from pixel to pixel: 1 when the line model holds */
    unsigned warnings;        /* enum ruby_warning, or-ed */
};

/*
 * Fits the doublet.
 *   wavelength_nm, counts  [n], ascending in wavelength
 *   counts_saturation      of the instrument; a flat top below it is recognised as well
 *   seed                   an earlier result: a start for the shapes, never for where the lines are; or NULL
 * Single-pixel spikes are left out. Errors: ERR_DATA (not finite, not ascending), ERR_FIT with the reason: no line, one
 * line only, saturated, at the edge, unresolved, not converged, no ruby doublet, sigma above 0.02 nm.
 */
int ruby_fit_spectrum(const double *wavelength_nm, const double *counts, int n, double counts_saturation,
                      const struct ruby_fit *seed, struct ruby_fit *ret_fit, struct err *err);

#endif
