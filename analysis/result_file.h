/*
 * The result of one scan as one HDF5 file, `*_results.hdf`. The only file that writes results; it never reads them.
 *
 * The data stand once, under /xpcs, in the layout that pyXpcsViewer opens; /entry shows the same datasets as NXxpcs by
 * hard links. One q bin, so far: all valid pixels. Beside those two layouts:
 *
 *     /xpcs/fit             tau_s, beta, contrast, baseline with their sigmas, g2_model; absent when the fit was
 * refused, then the attribute `reason` says why /xpcs/every_lag       g2, g2_mean, pairs_expected [n_frames], by lag in
 * frames, both conventions of analysis/ttcf.h /xpcs/multitau        the curve that was fitted: g2 (ratio of sums)
 * averaged in logarithmic bins of lag, with errors from the jackknife; delay_list is in frames and not whole
 *     /xpcs/twotime         correlation_map/c2_00001 [n, n], the upper half, zeros below; each line is the mean over
 *                           config/avg_frame frames, shot noise (lag 0) left out of the means of a binned map
 *
 * Sources: pyXpcsViewer's aps_8idi keys; NXxpcs of the NeXus contributed definitions; q is
 * that of a flat detector whose normal is the direct beam.
 */
#ifndef ANALYSIS_RESULT_FILE_H
#define ANALYSIS_RESULT_FILE_H

#include <stddef.h>
#include <stdint.h>

#include "analysis/frames.h"
#include "analysis/isf.h"
#include "analysis/ttcf.h"
#include "base/err.h"

struct result {
    const char *master_path;
    const struct frames_info *info;
    const uint8_t *is_masked; /* [n_rows * n_columns], by the master's mask or hot */
    size_t n_hot_pixels;
    const uint32_t *photon_image; /* [n_rows * n_columns], photons of the whole scan */
    size_t first_frame;           /* of the series, counted from 0 */
    const struct ttcf *ttcf;
    const struct isf_curve *curve;
    const struct isf_fit *fit; /* NULL: refused */
    const char *reason;        /* why it was refused; NULL with a fit */
};

/* Makes the file in memory, writes it beside `path` under a temporary name and renames it when it is on disk: a file of
 * that name is whole or absent (or the one that stood there before). Memory: twice the file, which is about 2 MB, and
 * 2 n_frames^2 bytes more with the full matrix. Errors: ERR_IO (nothing is left behind), ERR_SYSTEM (memory). */
int result_file_write(const char *path, const struct result *result, struct err *err);

#endif
