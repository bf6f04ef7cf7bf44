#include "analysis/frames.h"

#include <errno.h>
#include <fcntl.h>
#include <hdf5.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FILTER_BITSHUFFLE 32008
#define FILTER_OPTION_LZ4 2
#define DATA_FILES_MAX 100000
#define READ_SLACK_BYTES 64

/* One data file. */
struct part {
    size_t first_frame, n_frames;
    hid_t dataset;
    int fd;
    char path[1024];
};

struct frames {
    struct frames_info info;
    char master_path[1024];
    hid_t master;
    uint32_t *pixel_mask;
    uint64_t *valid_bits;
    struct frame_shape shape;
    struct part *parts;
    int n_parts;
    uint8_t *chunk;
    size_t chunk_size;
};

/* ---- small readings of the master ---------------------------------------------------------------------------- */

static bool has_link(hid_t file, const char *path)
{
    char prefix[256] = "";
    for (const char *c = path + 1;; c++) { /* HDF5 wants every step of the way asked for */
        if (*c != '/' && *c != '\0')
            continue;
        snprintf(prefix, sizeof prefix, "%.*s", (int)(c - path), path);
        if (H5Lexists(file, prefix, H5P_DEFAULT) <= 0)
            return false;
        if (*c == '\0')
            return true;
    }
}

static int read_number(const struct frames *frames, const char *path, double *ret_value, struct err *err)
{
    hid_t dataset = has_link(frames->master, path) ? H5Dopen2(frames->master, path, H5P_DEFAULT) : -1;
    if (dataset < 0)
        return err_set(err, ERR_DATA, "%s: %s is missing; expected the master file of an EIGER2 series",
                       frames->master_path, path);
    hid_t space = H5Dget_space(dataset);
    bool is_scalar = H5Sget_simple_extent_npoints(space) == 1;
    double value;
    int code = is_scalar ? H5Dread(dataset, H5T_NATIVE_DOUBLE, H5S_ALL, H5S_ALL, H5P_DEFAULT, &value) : -1;
    H5Sclose(space);
    H5Dclose(dataset);
    if (code < 0)
        return err_set(err, ERR_DATA, "%s: %s is not one number", frames->master_path, path);
    *ret_value = value;
    return 0;
}

/* For what a result can do without: `fallback` is stored and nothing said. */
static double read_number_or(const struct frames *frames, const char *path, double fallback)
{
    double value;
    return read_number(frames, path, &value, NULL) ? fallback : value;
}

static void read_text(const struct frames *frames, const char *path, char *ret_text, size_t size)
{
    ret_text[0] = '\0';
    hid_t dataset = has_link(frames->master, path) ? H5Dopen2(frames->master, path, H5P_DEFAULT) : -1;
    if (dataset < 0)
        return;
    hid_t type = H5Dget_type(dataset);
    if (H5Tget_class(type) == H5T_STRING && !H5Tis_variable_str(type)) {
        hid_t wanted = H5Tcopy(H5T_C_S1);
        H5Tset_size(wanted, size);
        if (H5Dread(dataset, wanted, H5S_ALL, H5S_ALL, H5P_DEFAULT, ret_text) < 0)
            ret_text[0] = '\0';
        ret_text[size - 1] = '\0';
        H5Tclose(wanted);
    }
    H5Tclose(type);
    H5Dclose(dataset);
}

#define DETECTOR "/entry/instrument/detector/"
#define SPECIFIC DETECTOR "detectorSpecific/"

static int read_info(struct frames *frames, struct err *err)
{
    struct frames_info *info = &frames->info;
    double n_columns, n_rows;
    int code = read_number(frames, SPECIFIC "x_pixels_in_detector", &n_columns, err);
    if (code == 0)
        code = read_number(frames, SPECIFIC "y_pixels_in_detector", &n_rows, err);
    if (code == 0)
        code = read_number(frames, DETECTOR "frame_time", &info->frame_time_s, err);
    if (code)
        return code;
    if (!(n_columns >= 1 && n_rows >= 1 && n_columns * n_rows <= EVENT_PIXELS_MAX))
        return err_set(err, ERR_DATA, "%s: a detector of %g x %g pixels is not possible", frames->master_path,
                       n_columns, n_rows);
    if (!(info->frame_time_s > 0.0))
        return err_set(err, ERR_DATA, "%s: frame time %g s; expected more than 0", frames->master_path,
                       info->frame_time_s);
    info->n_columns = (size_t)n_columns;
    info->n_rows = (size_t)n_rows;
    info->count_time_s = read_number_or(frames, DETECTOR "count_time", info->frame_time_s);
    info->photon_energy_ev = read_number_or(frames, SPECIFIC "photon_energy", 0.0);
    info->detector_distance_m = read_number_or(frames, DETECTOR "detector_distance", 0.0);
    info->beam_center_x_px = read_number_or(frames, DETECTOR "beam_center_x", 0.0);
    info->beam_center_y_px = read_number_or(frames, DETECTOR "beam_center_y", 0.0);
    info->pixel_size_m = read_number_or(frames, DETECTOR "x_pixel_size", 75e-6);
    read_text(frames, SPECIFIC "data_collection_date", info->start_time, sizeof info->start_time);
    return 0;
}

static int read_mask(struct frames *frames, struct err *err)
{
    size_t n = frames->info.n_rows * frames->info.n_columns;
    hsize_t shape[2] = {0, 0};
    frames->pixel_mask = calloc(n, sizeof *frames->pixel_mask);
    frames->valid_bits = calloc((n + 63) / 64, sizeof *frames->valid_bits);
    if (!frames->pixel_mask || !frames->valid_bits)
        return err_set(err, ERR_SYSTEM, "no memory for the mask of %zu pixels", n);
    hid_t dataset = has_link(frames->master, SPECIFIC "pixel_mask")
                        ? H5Dopen2(frames->master, SPECIFIC "pixel_mask", H5P_DEFAULT)
                        : -1;
    if (dataset < 0)
        return err_set(err, ERR_DATA, "%s: " SPECIFIC "pixel_mask is missing: gaps cannot be told from photons",
                       frames->master_path);
    hid_t space = H5Dget_space(dataset);
    bool is_good = H5Sget_simple_extent_ndims(space) == 2 && H5Sget_simple_extent_dims(space, shape, NULL) == 2 &&
                   shape[0] == frames->info.n_rows && shape[1] == frames->info.n_columns &&
                   H5Dread(dataset, H5T_NATIVE_UINT32, H5S_ALL, H5S_ALL, H5P_DEFAULT, frames->pixel_mask) >= 0;
    H5Sclose(space);
    H5Dclose(dataset);
    if (!is_good)
        return err_set(err, ERR_DATA, "%s: the pixel mask is not readable as %zu x %zu pixels", frames->master_path,
                       frames->info.n_rows, frames->info.n_columns);
    for (size_t i = 0; i < n; i++)
        if (frames->pixel_mask[i] == 0)
            frames->valid_bits[i / 64] |= UINT64_C(1) << (i % 64);
    return 0;
}

/* ---- data files ---------------------------------------------------------------------------------------------- */

static int check_filter(hid_t properties, const char *path, struct err *err)
{
    unsigned flags, values[8];
    size_t n_values = 8;
    if (H5Pget_nfilters(properties) != 1)
        return err_set(err, ERR_DATA, "%s: %d filters; expected one, bitshuffle with LZ4", path,
                       H5Pget_nfilters(properties));
    H5Z_filter_t filter = H5Pget_filter2(properties, 0, &flags, &n_values, values, 0, NULL, NULL);
    if (filter != FILTER_BITSHUFFLE || n_values < 5 || values[4] != FILTER_OPTION_LZ4)
        return err_set(err, ERR_DATA,
                       "%s: filter %d, option %u; expected %d (bitshuffle), option %d (LZ4): set the detector's "
                       "compression to bslz4",
                       path, (int)filter, filter == FILTER_BITSHUFFLE && n_values >= 5 ? values[4] : 0,
                       FILTER_BITSHUFFLE, FILTER_OPTION_LZ4);
    return 0;
}

static int check_dataset(struct frames *frames, struct part *part, struct err *err)
{
    const struct frames_info *info = &frames->info;
    hsize_t shape[3] = {0}, chunk[3] = {0};
    hid_t space = H5Dget_space(part->dataset), type = H5Dget_type(part->dataset),
          properties = H5Dget_create_plist(part->dataset);
    bool is_cube = H5Sget_simple_extent_ndims(space) == 3 && H5Sget_simple_extent_dims(space, shape, NULL) == 3 &&
                   H5Pget_layout(properties) == H5D_CHUNKED && H5Pget_chunk(properties, 3, chunk) == 3;
    size_t element_bytes = H5Tget_size(type);
    bool is_count = H5Tget_class(type) == H5T_INTEGER && H5Tget_sign(type) == H5T_SGN_NONE &&
                    (element_bytes == 2 || element_bytes == 4) && H5Tget_order(type) == H5T_ORDER_LE;
    int code = 0;
    if (!is_cube || shape[1] != info->n_rows || shape[2] != info->n_columns || chunk[0] != 1 ||
        chunk[1] != info->n_rows || chunk[2] != info->n_columns)
        code = err_set(err, ERR_DATA, "%s: expected frames of %zu x %zu pixels, one per chunk", part->path,
                       info->n_rows, info->n_columns);
    else if (!is_count)
        code = err_set(err, ERR_DATA, "%s: elements of %zu bytes; expected uint16 or uint32, little endian", part->path,
                       element_bytes);
    else
        code = check_filter(properties, part->path, err);
    if (code == 0 && frames->n_parts > 0 && (int)element_bytes != info->element_bytes)
        code = err_set(err, ERR_DATA, "%s: elements of %zu bytes, the files before have %d", part->path, element_bytes,
                       info->element_bytes);
    part->n_frames = shape[0];
    frames->info.element_bytes = (int)element_bytes;
    H5Pclose(properties);
    H5Tclose(type);
    H5Sclose(space);
    return code;
}

/* Opens data file k of the master, through the external link. */
static int open_part(struct frames *frames, int k, struct part *part, struct err *err)
{
    char link[64];
    snprintf(link, sizeof link, "/entry/data/data_%06d", k);
    *part = (struct part){.first_frame = frames->info.n_frames, .fd = -1};
    part->dataset = H5Dopen2(frames->master, link, H5P_DEFAULT);
    if (part->dataset < 0)
        return err_set(err, ERR_IO,
                       "%s: the data file behind %s cannot be opened: missing, truncated or not closed; "
                       "copy the whole series",
                       frames->master_path, link);
    hid_t file = H5Iget_file_id(part->dataset);
    H5Fget_name(file, part->path, sizeof part->path);
    H5Fclose(file);
    int code = check_dataset(frames, part, err);
    if (code == 0 && (part->fd = open(part->path, O_RDONLY | O_CLOEXEC)) < 0)
        code = err_set(err, ERR_IO, "%s cannot be opened: %s", part->path, strerror(errno));
    if (code)
        H5Dclose(part->dataset);
    return code;
}

static int open_parts(struct frames *frames, struct err *err)
{
    char link[64];
    double n_images, n_triggers;
    int code = read_number(frames, SPECIFIC "nimages", &n_images, err);
    if (code == 0)
        code = read_number(frames, SPECIFIC "ntrigger", &n_triggers, err);
    for (int k = 1; code == 0 && k <= DATA_FILES_MAX; k++) {
        snprintf(link, sizeof link, "/entry/data/data_%06d", k);
        if (!has_link(frames->master, link))
            break;
        struct part *parts = realloc(frames->parts, (size_t)k * sizeof *parts);
        if (!parts)
            return err_set(err, ERR_SYSTEM, "no memory for %d data files", k);
        frames->parts = parts;
        code = open_part(frames, k, &parts[k - 1], err);
        if (code)
            break;
        frames->n_parts = k;
        frames->info.n_frames += parts[k - 1].n_frames;
    }
    if (code == 0 && frames->n_parts == 0)
        code = err_set(err, ERR_DATA, "%s: no /entry/data/data_000001; expected the master file of an EIGER2 series",
                       frames->master_path);
    if (code == 0 && (double)frames->info.n_frames != n_images * n_triggers)
        code =
            err_set(err, ERR_DATA, "%s announces %.0f frames, its %d data files hold %zu: the series is not complete",
                    frames->master_path, n_images * n_triggers, frames->n_parts, frames->info.n_frames);
    return code;
}

/* ---- public -------------------------------------------------------------------------------------------------- */

static uint32_t largest_count(const struct frames *frames)
{
    uint32_t flag = frames->info.element_bytes == 2 ? UINT16_MAX - 1 : UINT32_MAX - 1; /* and the one above it */
    double cutoff = read_number_or(frames, SPECIFIC "countrate_correction_count_cutoff", flag - 1);
    return cutoff >= 1.0 && cutoff < flag ? (uint32_t)cutoff : flag - 1;
}

static int open_all(struct frames *frames, struct err *err)
{
    if (access(frames->master_path, R_OK) != 0)
        return err_set(err, ERR_IO, "%s cannot be read: %s", frames->master_path, strerror(errno));
    frames->master = H5Fopen(frames->master_path, H5F_ACC_RDONLY, H5P_DEFAULT);
    if (frames->master < 0)
        return err_set(err, ERR_IO, "%s is not a readable HDF5 file; expected the master file of an EIGER2 series",
                       frames->master_path);
    if (!has_link(frames->master, "/entry/data/data_000001"))
        return err_set(err, ERR_DATA, "%s: no /entry/data/data_000001; expected the master file of an EIGER2 series",
                       frames->master_path);
    int code = read_info(frames, err);
    if (code == 0)
        code = read_mask(frames, err);
    if (code == 0)
        code = open_parts(frames, err);
    if (code == 0)
        frames->shape =
            (struct frame_shape){.n_pixels = frames->info.n_rows * frames->info.n_columns,
                                 .element_bytes = frames->info.element_bytes,
                                 .pixel_bits = event_pixel_bits(frames->info.n_rows * frames->info.n_columns),
                                 .count_max = largest_count(frames),
                                 .valid_bits = frames->valid_bits};
    return code;
}

int frames_open(struct frames **ret_frames, const char *master_path, struct err *err)
{
    struct frames *frames = calloc(1, sizeof *frames);
    if (!frames)
        return err_set(err, ERR_SYSTEM, "no memory");
    setenv("HDF5_USE_FILE_LOCKING", "FALSE", 1); /* we only read, and network file systems refuse the lock */
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);       /* what fails is said in our own sentences */
    snprintf(frames->master_path, sizeof frames->master_path, "%s", master_path);
    frames->master = -1;
    int code = open_all(frames, err);
    if (code)
        frames_close(frames);
    else
        *ret_frames = frames;
    return code;
}

void frames_close(struct frames *frames)
{
    if (!frames)
        return;
    for (int i = 0; i < frames->n_parts; i++) {
        H5Dclose(frames->parts[i].dataset);
        close(frames->parts[i].fd);
    }
    if (frames->master >= 0)
        H5Fclose(frames->master);
    free(frames->parts);
    free(frames->pixel_mask);
    free(frames->valid_bits);
    free(frames->chunk);
    free(frames);
}

const struct frames_info *frames_info(const struct frames *frames) { return &frames->info; }

const uint32_t *frames_pixel_mask(const struct frames *frames) { return frames->pixel_mask; }

static int read_chunk(struct frames *frames, const struct part *part, size_t frame_in_part, size_t *ret_n_bytes,
                      struct err *err)
{
    const hsize_t offset[3] = {frame_in_part, 0, 0};
    unsigned filter_mask = 0;
    haddr_t address = HADDR_UNDEF;
    hsize_t n_bytes = 0;
    size_t n_bytes_max = 2 * frames->shape.n_pixels * (size_t)frames->shape.element_bytes + 65536;
    if (H5Dget_chunk_info_by_coord(part->dataset, offset, &filter_mask, &address, &n_bytes) < 0 ||
        address == HADDR_UNDEF || n_bytes == 0)
        return err_set(err, ERR_DATA, "the frame was never written");
    if (filter_mask != 0 || n_bytes > n_bytes_max)
        return err_set(err, ERR_DATA,
                       "a chunk of %llu bytes with filter mask %u; expected a compressed one of at most %zu",
                       (unsigned long long)n_bytes, filter_mask, n_bytes_max);
    if (n_bytes > frames->chunk_size) {
        uint8_t *chunk = realloc(frames->chunk, n_bytes + READ_SLACK_BYTES);
        if (!chunk)
            return err_set(err, ERR_SYSTEM, "no memory for a chunk of %llu bytes", (unsigned long long)n_bytes);
        frames->chunk = chunk;
        frames->chunk_size = n_bytes;
    }
    ssize_t n = pread(part->fd, frames->chunk, n_bytes, (off_t)address);
    if (n != (ssize_t)n_bytes)
        return err_set(err, ERR_IO, "%zd of %llu bytes read: the file is cut short", n, (unsigned long long)n_bytes);
    *ret_n_bytes = n_bytes;
    return 0;
}

int frames_read(struct frames *frames, size_t frame_index, struct event_sink *sink, struct err *err)
{
    int k = 0;
    while (k + 1 < frames->n_parts && frame_index >= frames->parts[k + 1].first_frame)
        k++;
    const struct part *part = &frames->parts[k];
    if (frame_index >= frames->info.n_frames)
        return err_set(err, ERR_ARG, "frame %zu of a series of %zu", frame_index, frames->info.n_frames);
    size_t n_bytes = 0;
    int code = read_chunk(frames, part, frame_index - part->first_frame, &n_bytes, err);
    if (code == 0)
        code = bslz4_decode_frame(&frames->shape, frames->chunk, n_bytes, sink, err);
    if (code)
        err_prefix(err, "%s, frame %zu of %zu", part->path, frame_index + 1, frames->info.n_frames);
    return code;
}
