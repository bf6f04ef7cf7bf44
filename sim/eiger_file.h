/*
 * The files an EIGER2's FileWriter leaves behind, Legacy format: `<stem>_master.h5`, made when the detector is armed,
 * and `<stem>_data_000001.h5` and on, each made with its first frame, growing, and closed when full.
 *
 * The master holds the metadata (NXmx names) and one external link per expected data file, /entry/data/data_000001 and
 * on, which dangles until that file exists, and for ever when the series is cut. A data file holds /entry/data/data
 * [n_images, height, width] of 16 or 32 bit unsigned counts, chunk (1, height, width), filter 32008 (bitshuffle, LZ4),
 * with attributes image_nr_low and image_nr_high (1-based, inclusive). Masked pixels hold the largest value.
 *
 * Chunks are encoded here, straight from photon events, and written past the filter pipeline: per block of 8192 bytes,
 * bit j of byte i of plane p is bit p of element 8 i + j, then raw LZ4. Sources: EIGER2 user manual (DECTRIS), and the
 * layout of the bitshuffle HDF5 filter. All calls of all files must come from one thread: HDF5 is not thread-safe.
 */
#ifndef SIM_EIGER_FILE_H
#define SIM_EIGER_FILE_H

#include <stdint.h>

#include "base/err.h"
#include "sim/speckle.h"

struct eiger_file;

enum eiger_file_flaw { EIGER_FILE_GAP = 1, EIGER_FILE_DEAD = 2 }; /* bits of the pixel mask */

struct eiger_file_settings {
    const char *directory;
    const char *stem;  /* the name pattern with its $id replaced */
    int width, height; /* width * height divisible by 8 */
    int bit_depth;     /* 16 or 32 */
    int n_images;      /* per trigger */
    int n_triggers;
    int n_images_per_file;      /* > 0 */
    const uint32_t *pixel_mask; /* [height * width], bits of eiger_file_flaw; copied */
    double count_time_s, frame_time_s, readout_time_s;
    double photon_energy_ev, threshold_ev;
    double beam_center_x_px, beam_center_y_px;
    double distance_m, pixel_size_m, sensor_thickness_m;
    uint32_t count_cutoff;
    const char *description, *serial_number, *firmware_version;
    int64_t utc_ns; /* of arming */
};

/* Writes and closes the master. Errors: ERR_ARG (sizes), ERR_IO (HDF5 refused; nothing is left open). Free with
 * eiger_file_close. */
int eiger_file_open(struct eiger_file **ret_file, const struct eiger_file_settings *settings, struct err *err);

/* Appends one frame; events sorted by pixel, none in a masked pixel. Returns 1 when this frame filled its data file,
 * which is then closed, else 0. Errors: ERR_IO, ERR_FULL (more frames than announced). */
int eiger_file_append(struct eiger_file *file, const struct speckle_event *events, int n_events, struct err *err);

/* Closes a partly filled last file at its true length. Returns 0 or ERR_IO; the memory is freed in any case. */
int eiger_file_close(struct eiger_file *file, struct err *err);

/* Frames in closed data files. */
int eiger_file_count(const struct eiger_file *file);

/* "<directory>/<stem>_master.h5"; lives as long as the file. */
const char *eiger_file_master_path(const struct eiger_file *file);

#endif
