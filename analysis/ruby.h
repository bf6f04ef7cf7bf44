/*
 * Ruby: from a spectrum to the wavelength of R1; analysis/ruby_scale.h leads from there to pressure. Pure (GSL
 * allocates inside; its error handler is switched off for the process, because it would abort on data that merely
 * cannot be fitted).
 *
 * The lines R1 and R2 are two pseudo-Voigt lines on a background of second degree (the fluorescence of the anvils),
 * fitted by least squares. A spectrum that does not carry the answer is refused with the reason; a doubtful one gets a
 * warning. No reading is ever guessed.
 *
 * The sigma of R1 is that of the covariance, enlarged by what the residuals show: scatter beyond the noise; neighbours
 * that know of each other; fringes in the light; single points on which R1 leans. tests/soak_ruby.c says how far that
 * holds: fringes of more than about 0.5 % of the light, with a period near the width or the distance of the lines,
 * cannot be told from a shift of the line by one spectrum (what they leave behind is no more than chance leaves in
 * clean ones). A spectrometer that has such fringes has to be known: with its fringe_max stated, the sigma is what they
 * may hide.
 */
#ifndef ANALYSIS_RUBY_H
#define ANALYSIS_RUBY_H

#include <stddef.h>

#include "analysis/ruby_scale.h"
#include "base/err.h"

enum ruby_warning {
    RUBY_WARNING_WIDTH = 1 << 0,     /* R1 wider than 0.93 nm, 1.5 times ambient: stress is not hydrostatic */
    RUBY_WARNING_SPLITTING = 1 << 1, /* R1 - R2 more than 0.05 nm from 1.43: stress is not hydrostatic */
};

struct ruby_fit {
    double r1_nm;
    double r1_nm_sigma;       /* standard uncertainty, as said above */
    double r1_nm_sigma_noise; /* the part of it by which a second spectrum of the same light would differ */
    double r2_nm;
    double r1_nm_fwhm;
    double r2_nm_fwhm;
    double splitting_nm;
    double amplitude_counts;  /* of R1, above the background */
    double background_counts; /* at R1 */
    double chi2_reduced;      /* against the scatter from pixel to pixel: 1 when the line model holds */
    unsigned warnings;        /* enum ruby_warning, or-ed */
};

/* What is known of the instrument that took a spectrum. */
struct ruby_camera {
    double counts_saturation; /* a flat top below it is recognised as well; INFINITY: not known */
    double fringe_max;        /* amplitude of the fringes in its light, relative; 0: it is flat to 0.03 % */
};

/*
 * Fits the doublet.
 *   wavelength_nm, counts  [n], ascending in wavelength
 *   seed                   an earlier result: a start for the shapes, never for where the lines are; or NULL
 * Spikes of one or two pixels are left out, ten points at most. Errors: ERR_DATA (not finite, not ascending), ERR_LIMIT
 * (saturated: a shorter exposure helps), ERR_FIT with the reason: no line, one line only, at the edge, unresolved
 * (fewer than 6 points across R1), not converged, no ruby doublet, too many spikes, sigma above 0.02 nm.
 */
int ruby_fit_spectrum(const double *wavelength_nm, const double *counts, int n, const struct ruby_camera *camera,
                      const struct ruby_fit *seed, struct ruby_fit *ret_fit, struct err *err);

/* The warnings as a sentence with what was seen and what was expected; empty when there are none. */
void ruby_warning_text(const struct ruby_fit *fit, char *ret_text, size_t size);

#endif
