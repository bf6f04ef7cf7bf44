/*
 * The result of one scan as one HDF5 file, `*_results.hdf`. The only file that writes results; it never reads them.
 *
 * The data stand once, under /xpcs, in the layout that pyXpcsViewer opens; /entry shows the same datasets as NXxpcs by
 * hard links, or by a virtual dataset where NXxpcs wants the matrices of all bins as one. What has no bin in its name
 * is of all bins together (ttcf_join); a group `bins` beside it has one column or element per bin, NaN where there is
 * none.
 *
 *     /xpcs/qmap       dynamic and static map, and geometry: as analysis/qmap.h has it
 *
 *     /xpcs/fit        tau_s, beta, contrast, baseline with their sigmas, g2_model; absent when the fit was
 *                      refused, then the attribute `reason` says why; bins: the same, with q and pixels
 *
 *     /xpcs/every_lag  g2, g2_mean, pairs_expected [n_frames], by lag in frames, both conventions of
 *                      analysis/ttcf.h; bins: [n_frames, n_bins]
 *
 *     /xpcs/multitau   the curves that were fitted: g2 (ratio of sums) averaged in logarithmic ranges of lag
 *                      with errors from the jackknife; delay_list is in frames and not whole. all/g2 [n],
 *                      normalized_g2 [n, n_bins], normalized_g2_partial [n_ages, n, n_bins] by waiting time
 *
 *     /xpcs/twotime    correlation_map/c2_00001 [n, n] and on, the upper half, zeros below; each line is the
 *                      mean over config/avg_frame frames, shot noise (lag 0) left out of the means; full_map:
 *                      the full ones, where some bins have such and some have not
 *
 * Sources: pyXpcsViewer's aps_8idi keys; NXxpcs of the NeXus contributed definitions.
 */
#ifndef ANALYSIS_RESULT_FILE_H
#define ANALYSIS_RESULT_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "analysis/frames.h"
#include "analysis/isf.h"
#include "analysis/qmap.h"
#include "analysis/ttcf.h"
#include "base/err.h"

#define RESULT_MATRIX_COPIES 3 /* of a full matrix in memory while the file is put together */

/* One bin, or all together. */
struct result_bin {
    bool is_correlated; /* else the rest is empty, but for the reason */
    bool is_fitted;
    struct ttcf ttcf;
    struct isf_curve curve;
    struct isf_fit fit;
    char reason[1000]; /* why it was not fitted */
};

struct result {
    const char *master_path;
    const struct frames_info *info;
    const struct qmap_geometry *geometry; /* NULL: not known */
    const struct qmap *qmap;
    const uint8_t *is_masked; /* [n_rows * n_columns], by the master's mask, the user's, hot or dead */
    size_t n_hot_pixels, n_dead_pixels;
    size_t n_hits, n_hit_photons;    /* of gamma quanta and cosmic particles, left out (analysis/hit.h) */
    const uint32_t *photon_image;    /* [n_rows * n_columns], photons of the whole scan */
    const uint64_t *segment_photons; /* [TTCF_SEGMENTS * qmap->profile.n], as ttcf_count_segments gives them */
    size_t first_frame;              /* of the series, counted from 0 */
    const struct result_bin *all, *bins;
    int n_bins;
};

/* Makes the file in memory, writes it beside `path` under a temporary name and renames it when it is on disk: a file of
 * that name is whole or absent (or the one that stood there before). Memory: twice the file, which is about 2 MB per
 * bin and 10 bytes per pixel, and 2 n_frames^2 bytes more with every full matrix. Errors: ERR_IO (nothing is left
 * behind), ERR_SYSTEM (memory). */
int result_file_write(const char *path, const struct result *result, struct err *err);

#endif
