/*
 * The frames of an EIGER2 series on disk (Legacy format: a master with external links to its data files). The only file
 * that reads HDF5. Compressed chunks are taken by their address with pread; HDF5 itself never decompresses anything.
 *
 * Masks: a pixel whose pixel_mask in the master is not 0 is invalid in every frame; a valid pixel above the
 * count-rate correction's cut-off, or at one of the two flag values at the top of its range, is invalid in that frame.
 */
#ifndef ANALYSIS_FRAMES_H
#define ANALYSIS_FRAMES_H

#include <stddef.h>
#include <stdint.h>

#include "analysis/bslz4.h"
#include "base/err.h"

struct frames_info {
    size_t n_frames;
    size_t n_rows, n_columns;
    int element_bytes;
    double frame_time_s, count_time_s;
    double photon_energy_ev;
    double detector_distance_m;
    double beam_center_x_px, beam_center_y_px;
    double pixel_size_m;
    char start_time[64];
};

struct frames;

/* Opens the master and looks at every data file: shape, type, filter, number of frames. Errors: ERR_IO (missing,
 * unreadable, truncated HDF5), ERR_DATA (not an EIGER master; a frame count that differs from what the master
 * announces; a type, shape or filter that is not understood): each names the file, what was expected and what was seen.
 */
int frames_open(struct frames **ret_frames, const char *master_path, struct err *err);
void frames_close(struct frames *frames);

const struct frames_info *frames_info(const struct frames *frames);

/* [n_rows * n_columns], bits as in the master: 0 gap, 1 dead, 2 under-responding, 3 over-responding, 4 noisy. */
const uint32_t *frames_pixel_mask(const struct frames *frames);

/* The photons of one frame into `sink`. Errors: ERR_IO, ERR_DATA (a corrupt or truncated chunk), with file and frame.
 */
int frames_read(struct frames *frames, size_t frame_index, struct event_sink *sink, struct err *err);

#endif
