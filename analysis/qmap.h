/*
 * Where the pixels of a flat detector lie in reciprocal space, and how they are divided into q bins. Pure (allocates).
 *
 * Geometry is pyFAI's (Kieffer et al., J. Synchrotron Rad. (2020), doi 10.1107/S1600577520000776; its manual,
 * "Default geometry in pyFAI"). Axis 1 goes along the rows' index (up), axis 2 along the columns' index, axis 3 along
 * the beam; the sample is the origin. Axes 1, 2, 3 are right-handed, so the detector at poni and distance is turned
 * about axis 1 by -rotation 1, then about axis 2 by -rotation 2, then about axis 3 by +rotation 3. The point of normal
 * incidence (poni) is in m from the outer corner of pixel (0, 0): the centre of that pixel is at half a pixel.
 *
 *     q    4 pi / wavelength * sin(2 theta / 2), 1/angstrom
 *     phi  atan2(axis 1, axis 2) of the pixel: 0 towards growing columns, 90 degrees towards growing rows; -180 to 180
 *
 * Two divisions into bins, as pyXpcsViewer and NXxpcs know them:
 *
 *     dynamic  bands of q times sectors of phi: one correlation each
 *     profile  (static, they say) each dynamic bin in up to 16 x 16 parts
 *
 * The parts give the profile of the mean intensity that the correlation is normalised by (analysis/ttcf.h). There are
 * no more of them than leave 512 pixels in each on average: the speckle in a part must not pass for a profile.
 *
 * A detector whose geometry is not known has rows and columns (pixels) in place of q and phi: one dynamic bin, and a
 * profile all the same.
 */
#ifndef ANALYSIS_QMAP_H
#define ANALYSIS_QMAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define QMAP_BINS_MAX 255
#define QMAP_PARTS_MAX 65535

struct qmap_geometry {
    double distance_m;
    double poni_m[2];
    double rotation_rad[3];
    double wavelength_angstrom; /* 0: not stated */
    double pixel_size_m[2];     /* along axis 1 and 2; 0: not stated */
    int orientation;            /* of the image, as pyFAI numbers it: 1 top left, 2 top right, 3 bottom right, 4 bottom
                                   left; 3 is how it is stored, the others are turned to it */
};

/* 0 when the energy is not stated (0). */
double qmap_wavelength_angstrom(double photon_energy_ev);

/* The other way round; the wavelength must be stated. */
double qmap_photon_energy_ev(const struct qmap_geometry *geometry);

/*
 * A detector on an arm that turns about the sample. With the arm at 0 its normal is the direct beam.
 *   beam_center_px  column and row where the normal meets the detector; whole numbers are centres of pixels
 *   arm_deg         towards growing columns, and towards growing rows
 */
struct qmap_geometry qmap_geometry_of_arm(double distance_m, const double beam_center_px[2], double pixel_size_m,
                                          double photon_energy_ev, const double arm_deg[2]);

/* Whether all that q needs is stated: distance, wavelength, pixel sizes. */
bool qmap_is_stated(const struct qmap_geometry *geometry);

/* One pixel: q in 1/angstrom, phi in degrees. Row and column of the image, n_rows x n_columns. */
void qmap_locate(const struct qmap_geometry *geometry, size_t n_rows, size_t n_columns, size_t row, size_t column,
                 double *ret_q_inv_angstrom, double *ret_phi_deg);

/*
 * Where the direct beam meets the detector's plane: column and row, whole numbers are centres of pixels, and the
 * distance from the sample along the beam. Often far outside the detector; not finite when the detector stands along
 * the beam.
 */
void qmap_find_beam(const struct qmap_geometry *geometry, size_t n_rows, size_t n_columns, double ret_center_px[2],
                    double *ret_distance_m);

struct qmap_range {
    double min, max; /* min <= value < max */
};

struct qmap_settings {
    const struct qmap_geometry *geometry; /* NULL: not known */
    size_t n_rows, n_columns;
    const uint8_t *is_masked; /* [n_rows * n_columns] */
    int n_bands;              /* of q; 1 and no ranges: all valid pixels */
    /* 1/angstrom, ascending, apart; NULL: the valid pixels' whole range of q in n_bands equal ones */
    const struct qmap_range *bands;
    int n_sectors; /* equal ones, of the azimuth that valid pixels cover, or of the full circle */
};

/* One division of the detector. */
struct qmap_division {
    int n;              /* bins that have pixels, numbered from 1 */
    int n_grid[2];      /* the grid they are taken from: along q, along phi */
    double *grid[2];    /* [n_grid[i]], mean q of the valid pixels (NaN: none), middle of the sector */
    uint16_t *of_pixel; /* [n_rows * n_columns], 0: in none */
    int *cell;          /* [n], cell of the grid of each bin, first index along q: cell / n_grid[1], cell % n_grid[1] */
};

struct qmap_bin {
    struct qmap_range q, phi; /* its edges; phi.max - phi.min is 360 for a whole circle */
    double q_mean, phi_mean;  /* the middle of its pixels, phi in its range */
    size_t n_pixels;
};

struct qmap {
    bool has_q; /* else rows and columns stand for q and phi */
    size_t n_rows, n_columns;
    struct qmap_division dynamic, profile;
    struct qmap_bin *bins; /* [dynamic.n] */
};

/*
 * Errors: ERR_ARG (bands or sectors without a geometry; more than QMAP_BINS_MAX bins), ERR_DATA (no valid pixel in any
 * band; err says which q the valid pixels have), ERR_SYSTEM (memory). Memory while it runs: 16 bytes per pixel.
 * Free with qmap_free.
 */
int qmap_divide(struct qmap **ret_qmap, const struct qmap_settings *settings, struct err *err);

void qmap_free(struct qmap *qmap); /* NULL is fine */

#endif
