/*
 * Wavelength calibration by a neon lamp: which of its lines a spectrum shows, where, and the straight correction of the
 * axis that puts them where they are. Pure (GSL allocates inside).
 *
 * A step of a sequence cannot do this: a lamp has to be put where the ruby's light comes from, by hand, before the cell
 * is there. So it is a command on a saved spectrum, and its result a line of the beamline file.
 *
 * Wavelengths in air of Ne I: Saloman and Sansonetti, J. Phys. Chem. Ref. Data 33, 1113 (2004), as in the NIST Atomic
 * Spectra Database; those that stand alone at 0.3 nm resolution. Ruby wavelengths are in air, too.
 */
#ifndef ANALYSIS_NEON_H
#define ANALYSIS_NEON_H

#include "base/err.h"

#define NEON_LINES_MAX 32
#define NEON_LINES_MIN 3   /* with two, a straight line has no residual that could tell anything */
#define NEON_SEARCH_NM 2.0 /* the axis may be off by that much, alike for all lines within NEON_AGREE_NM */
#define NEON_AGREE_NM 0.12
#define NEON_RESIDUAL_NM_MAX 0.01 /* 0.03 GPa */
#define NEON_AROUND_NM 694.25     /* where the correction's two numbers do not depend on each other: at the ruby */

struct neon_line {
    double wavelength_nm; /* in air */
    double measured_nm;   /* on the spectrum's axis */
    double measured_nm_sigma;
    double residual_nm; /* of the corrected axis */
};

/* true wavelength = axis + offset_nm + slope (axis - NEON_AROUND_NM) */
struct neon_correction {
    double offset_nm, offset_nm_sigma;
    double slope, slope_sigma; /* dimensionless */
    double residual_nm_rms;
    int n_lines;
    struct neon_line lines[NEON_LINES_MAX];
};

/*
 * Finds the lines and fits the correction; lines weigh alike, because it is the axis and not the noise that decides.
 *   wavelength_nm, counts  [n], ascending in wavelength
 * Errors: ERR_FIT with what was seen: fewer than NEON_LINES_MIN lines identified, all on one side of the ruby by more
 * than 20 nm, or a residual above NEON_RESIDUAL_NM_MAX (err lists them). ERR_DATA (not finite, not ascending, fewer
 * than 32 points).
 */
int neon_calibrate(const double *wavelength_nm, const double *counts, int n, struct neon_correction *ret_correction,
                   struct err *err);

/* The listed wavelengths, index 0 upwards; 0 behind the last. */
double neon_wavelength_nm(int index);

#endif
