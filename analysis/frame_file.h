/*
 * Where the frames of a series lie on disk. The only file that reads HDF5; it decompresses nothing but small tables and
 * sparse frames. Not thread-safe, as HDF5 is not: all calls from one thread.
 *
 * Understood, told apart by what is in the file:
 *
 *   - EIGER2 Legacy: <stem>_master.h5 with links /entry/data/data_000001 and on to data files [n, rows, columns];
 *
 *   - EIGER2 v2024.2: <stem>_master.h5 with /entry/data/data [n, channels, rows, columns], virtual over the data files;
 *     the first channel is taken;
 *
 *   - NDFileHDF5: one finished file of areaDetector, /entry/data/data [n, rows, columns], without the detector's
 *     metadata: frame_time_s must be stated, and a pixel at the largest value in the first frame is taken as masked,
 *     since that is how the detector marks its mask;
 *
 *   - Lima2 sparse: entry_0000/measurement/data with frame_ptr [n + 1], index, intensity, as ID10 writes it, in
 *     <stem>_00000.h5, <stem>_00001.h5 and on: no mask; shape and frame_time_s must be stated.
 *
 * Frames: uint8, uint16 or uint32, one per chunk, with bitshuffle and LZ4 (32008), LZ4 alone (32004) or uncompressed.
 *
 * Sources: DECTRIS FileWriter documentation (Legacy and v2024.2); EIGER2 user manual (flag values, pixel mask); ADCore
 * NDFileHDF5; the beamline's readers for the sparse files.
 */
#ifndef ANALYSIS_FRAME_FILE_H
#define ANALYSIS_FRAME_FILE_H

#include <stdbool.h>

#include "analysis/event.h"
#include "base/err.h"

struct frames_info {
    size_t n_frames; /* while a series is followed: as announced */
    size_t n_rows, n_columns;
    int element_bytes; /* 1, 2 or 4; 4 for sparse frames */
    double frame_time_s, count_time_s;
    double photon_energy_ev;
    double detector_distance_m;
    double beam_center_x_px, beam_center_y_px;
    double pixel_size_m;
    char start_time[64];
};

/* What a file may leave open. 0: not stated. */
struct frames_stated {
    double frame_time_s;
    size_t n_rows, n_columns;
};

enum frame_codec { FRAME_BSLZ4, FRAME_LZ4, FRAME_DENSE, FRAME_SPARSE };

/* Where one frame lies: n_bytes at `address` of part `part`. */
struct frame_place {
    uint64_t address;
    uint32_t n_bytes;
    int part;
};

struct frame_file;

/*
 * Reads the metadata and the mask. With `is_growing` the data files may not be there yet, and how many frames there
 * will be is what the master announces. Errors: ERR_IO (missing, unreadable, truncated HDF5), ERR_DATA (not such a
 * series; a frame count that differs from what the master announces; a type, shape or filter that is not understood),
 * ERR_ARG (something must be stated): each names the file, what was expected and what was seen.
 */
int frame_file_open(struct frame_file **ret_file, const char *path, const struct frames_stated *stated, bool is_growing,
                    struct err *err);
void frame_file_close(struct frame_file *file);

const struct frames_info *frame_file_info(const struct frame_file *file);

/* [n_rows * n_columns], bits as in the master: 0 gap, 1 dead, 2 under-responding, 3 over-responding, 4 noisy. */
const uint32_t *frame_file_pixel_mask(const struct frame_file *file);

/* False for NDFileHDF5: the mask is then all 0, and the first frame has to tell. */
bool frame_file_has_mask(const struct frame_file *file);

/* Larger values are no photons: above the count-rate cut-off, or one of the two flag values at the top of the range. */
uint32_t frame_file_count_max(const struct frame_file *file);

enum frame_codec frame_file_codec(const struct frame_file *file);

/* Frames in the data files that are open: all of them, or those so far of a growing series. */
size_t frame_file_count(const struct frame_file *file);

/*
 * Opens the next data file of a growing series when it is whole: when the one after it exists, or, for the last, when
 * it holds all frames that are still expected; `has_ended` takes it as it is. Returns 1 (opened), 0 (not yet), or an
 * error.
 */
int frame_file_extend(struct frame_file *file, bool has_ended, struct err *err);

/* Places of frames first .. first + n - 1, all in open data files. Errors: ERR_DATA (never written, an odd chunk). */
int frame_file_locate(struct frame_file *file, size_t first, size_t n, struct frame_place *ret_places, struct err *err);

/* The path of a part, for messages, and its descriptor, for pread from any thread. */
const char *frame_file_part_path(const struct frame_file *file, int part);
int frame_file_part_fd(const struct frame_file *file, int part);

/* The events of one sparse frame. Errors: ERR_IO, ERR_DATA (a pixel twice or outside the frame; a torn table). */
int frame_file_read_sparse(struct frame_file *file, size_t frame_index, const struct frame_shape *shape,
                           struct event_sink *sink, struct err *err);

/*
 * A mask of the user's, FILE or FILE:/PATH, by default /mask: a dataset [n_rows, n_columns], 0 is a good pixel.
 *   is_masked  [n_rows * n_columns], set to 1 where the dataset is not 0, else left alone
 * Errors: ERR_IO, ERR_DATA (no such dataset, another shape).
 */
int frame_file_read_mask(const char *where, size_t n_rows, size_t n_columns, uint8_t *is_masked, struct err *err);

/*
 * A flat field of the user's, FILE or FILE:/PATH, by default /flat_field: a dataset [n_rows, n_columns], what pixels
 * count of uniform light, to any scale, as it is in the file. Errors: as frame_file_read_mask.
 */
int frame_file_read_flat_field(const char *where, size_t n_rows, size_t n_columns, float *ret_sensitivity,
                               struct err *err);

#endif
