/*
 * Two-time correlation and g2 of one q bin from sparse photons. Pure (allocates).
 *
 *     C(t1, t2) = <I(t1) I(t2)>_p / (<I(t1)>_p <I(t2)>_p)      over the bin's pixels p, all frame pairs t1 <= t2
 *
 * The event correlator of Chushkin et al., J. Appl. Cryst. 45, 807 (2012), doi 10.1107/S0021889812023321, row by row:
 * the pair counts of one row are exact integers in a line of 4 N bytes that stays in the first cache; the row is
 * normalised, folded into g2 and into the binned map, and gone. The full matrix never exists unless it is asked for.
 *
 * Two conventions for g2 of a lag are kept side by side; they differ at the level of the noise:
 *     g2_mean    mean over t of C(t, t + lag)
 *     g2         sum over t of <I(t) I(t + lag)>_p  /  sum over t of <I(t)>_p <I(t + lag)>_p     (used for fits)
 * Lag 0 is <I^2> as it is, with its shot noise: never fitted, and left out of the means of a binned map. A frame
 * without photons has no C: NaN in the matrix, left out of g2_mean and of the map; in g2 it counts as it is (nothing).
 * Frames beyond a multiple of map_binning are not in the map.
 */
#ifndef ANALYSIS_TTCF_H
#define ANALYSIS_TTCF_H

#include "analysis/photon_list.h"

#define TTCF_GROUPS 16    /* of pixels, for the jackknife */
#define TTCF_MAP_MAX 1024 /* lines of the binned map */

struct ttcf {
    size_t n_frames, n_pixels, n_photons, n_empty_frames;
    double *photons_per_frame;       /* [n_frames] */
    double *g2;                      /* [n_frames], by lag in frames */
    double *g2_mean;                 /* [n_frames] */
    double *pairs_expected;          /* [n_frames], denominator of g2 in photon pairs: its variance is 1 over this */
    double *g2_without[TTCF_GROUPS]; /* [n_frames], g2 without the pixels of one group */
    size_t map_binning;              /* frames per line of the map */
    size_t map_n;                    /* lines */
    float *map;    /* [map_n * map_n], mean of C over binning x binning frames, upper half, rest 0; NaN where no C */
    float *matrix; /* [n_frames * (n_frames + 1) / 2] upper half, row major, or NULL */
};

/* `with_matrix`: keep the full upper half (2 n_frames^2 bytes). Errors: ERR_DATA (no photons), ERR_LIMIT (too bright
 * for 32 bit pair counts), ERR_SYSTEM (memory). Free with ttcf_free. */
int ttcf_correlate(struct ttcf *ret_ttcf, const struct photon_list *list, int with_matrix, struct err *err);

void ttcf_free(struct ttcf *ttcf);

#endif
