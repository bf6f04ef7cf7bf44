#include "sim/eiger_file.h"

#include <assert.h>
#include <endian.h>
#include <hdf5.h>
#include <lz4.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define BLOCK_BYTES 8192
#define FILTER_BITSHUFFLE 32008
#define PATH_BYTES 600

struct eiger_file {
    char directory[300];
    char stem[200];
    char master_path[PATH_BYTES];
    int width, height, element_bytes;
    int n_total, n_per_file;
    int n_appended;   /* frames so far, all files */
    int n_closed;     /* of them, in closed files */
    hid_t file, data; /* the growing data file; -1: none */
    size_t image_bytes;
    uint8_t *blank;  /* [image_bytes], bit planes of a frame without photons: masked pixels all ones */
    uint8_t *planes; /* [image_bytes], equal to blank between two frames */
    uint8_t *chunk;  /* encoded frame */
};

/* ---- encoding ------------------------------------------------------------------------------------------------ */

/* Where element `pixel` lies: its byte in plane 0 of its block, and the distance of the planes. */
static inline size_t plane_offset(const struct eiger_file *file, size_t pixel, size_t *ret_plane_bytes)
{
    size_t block_elements = (size_t)(BLOCK_BYTES / file->element_bytes);
    size_t block = pixel / block_elements, within = pixel % block_elements;
    size_t left = file->image_bytes - block * BLOCK_BYTES;
    *ret_plane_bytes = (left < BLOCK_BYTES ? left : BLOCK_BYTES) / (size_t)(8 * file->element_bytes);
    return block * BLOCK_BYTES + within / 8;
}

static inline void planes_set(const struct eiger_file *file, uint8_t *planes, size_t pixel, uint32_t count)
{
    size_t plane_bytes, offset = plane_offset(file, pixel, &plane_bytes);
    for (; count; count >>= 1, offset += plane_bytes)
        if (count & 1)
            planes[offset] |= (uint8_t)(1u << (pixel % 8));
}

static inline void planes_restore(const struct eiger_file *file, size_t pixel, uint32_t count)
{
    size_t plane_bytes, offset = plane_offset(file, pixel, &plane_bytes);
    for (; count; count >>= 1, offset += plane_bytes)
        file->planes[offset] = file->blank[offset];
}

static size_t chunk_bytes_max(size_t image_bytes)
{
    return 12 + (image_bytes / BLOCK_BYTES + 1) * (size_t)(4 + LZ4_compressBound(BLOCK_BYTES));
}

static size_t encode(struct eiger_file *file, const struct speckle_event *events, int n_events)
{
    for (int i = 0; i < n_events; i++)
        planes_set(file, file->planes, events[i].pixel, events[i].count);
    uint64_t image_bytes_be = htobe64(file->image_bytes);
    uint32_t block_bytes_be = htobe32(BLOCK_BYTES);
    memcpy(file->chunk, &image_bytes_be, 8);
    memcpy(file->chunk + 8, &block_bytes_be, 4);
    uint8_t *out = file->chunk + 12;
    for (size_t start = 0; start < file->image_bytes; start += BLOCK_BYTES) {
        size_t left = file->image_bytes - start;
        int n = LZ4_compress_default((const char *)file->planes + start, (char *)out + 4,
                                     (int)(left < BLOCK_BYTES ? left : BLOCK_BYTES), LZ4_compressBound(BLOCK_BYTES));
        assert(n > 0);
        uint32_t length_be = htobe32((uint32_t)n);
        memcpy(out, &length_be, 4);
        out += 4 + n;
    }
    for (int i = 0; i < n_events; i++)
        planes_restore(file, events[i].pixel, events[i].count);
    return (size_t)(out - file->chunk);
}

static void blank_fill(struct eiger_file *file, const uint32_t *pixel_mask)
{
    uint32_t flag = file->element_bytes == 2 ? UINT16_MAX : UINT32_MAX;
    size_t n_pixels = file->image_bytes / (size_t)file->element_bytes;
    for (size_t i = 0; i < n_pixels; i++)
        if (pixel_mask[i])
            planes_set(file, file->blank, i, flag);
    memcpy(file->planes, file->blank, file->image_bytes);
}

/* ---- HDF5 ---------------------------------------------------------------------------------------------------- */

/* One object, its attributes and its closing; `ok` gathers, so that a list of items reads as a list. */
static void put_attribute(hid_t object, const char *name, hid_t type, const void *value, bool *ok)
{
    hid_t space = H5Screate(H5S_SCALAR);
    hid_t attribute = H5Acreate2(object, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
    *ok = *ok && attribute >= 0 && H5Awrite(attribute, type, value) >= 0;
    H5Aclose(attribute);
    H5Sclose(space);
}

static hid_t text_type(const char *text)
{
    hid_t type = H5Tcopy(H5T_C_S1);
    H5Tset_size(type, strlen(text) + 1);
    return type;
}

static void put_text_attribute(hid_t object, const char *name, const char *text, bool *ok)
{
    hid_t type = text_type(text);
    put_attribute(object, name, type, text, ok);
    H5Tclose(type);
}

static void put_dataset(hid_t parent, const char *path, hid_t type, int rank, const hsize_t *dims, const void *value,
                        const char *unit, bool *ok)
{
    hid_t space = rank ? H5Screate_simple(rank, dims, NULL) : H5Screate(H5S_SCALAR);
    hid_t links = H5Pcreate(H5P_LINK_CREATE);
    H5Pset_create_intermediate_group(links, 1);
    hid_t dataset = H5Dcreate2(parent, path, type, space, links, H5P_DEFAULT, H5P_DEFAULT);
    *ok = *ok && dataset >= 0 && H5Dwrite(dataset, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, value) >= 0;
    if (*ok && unit)
        put_text_attribute(dataset, "units", unit, ok);
    H5Dclose(dataset);
    H5Pclose(links);
    H5Sclose(space);
}

static void put_text(hid_t parent, const char *path, const char *text, bool *ok)
{
    hid_t type = text_type(text);
    put_dataset(parent, path, type, 0, NULL, text, NULL, ok);
    H5Tclose(type);
}

static void put_real(hid_t parent, const char *path, double value, const char *unit, bool *ok)
{
    put_dataset(parent, path, H5T_NATIVE_DOUBLE, 0, NULL, &value, unit, ok);
}

static void put_count(hid_t parent, const char *path, uint32_t value, bool *ok)
{
    put_dataset(parent, path, H5T_NATIVE_UINT32, 0, NULL, &value, NULL, ok);
}

static void put_group(hid_t parent, const char *path, const char *class_name, bool *ok)
{
    hid_t group = H5Gcreate2(parent, path, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    *ok = *ok && group >= 0;
    put_text_attribute(group, "NX_class", class_name, ok);
    H5Gclose(group);
}

static void put_links(hid_t file, const struct eiger_file *series, bool *ok)
{
    int n_files = (series->n_total + series->n_per_file - 1) / series->n_per_file;
    for (int i = 1; i <= n_files && *ok; i++) {
        char name[40], target[300];
        snprintf(name, sizeof name, "/entry/data/data_%06d", i);
        snprintf(target, sizeof target, "%s_data_%06d.h5", series->stem, i);
        *ok = H5Lcreate_external(target, "/entry/data/data", file, name, H5P_DEFAULT, H5P_DEFAULT) >= 0;
    }
}

static void put_detector(hid_t file, const struct eiger_file_settings *s, bool *ok)
{
    hid_t d = H5Gopen2(file, "/entry/instrument/detector", H5P_DEFAULT);
    put_text(d, "description", s->description, ok);
    put_text(d, "detector_number", s->serial_number, ok);
    put_text(d, "sensor_material", "Si", ok);
    put_real(d, "sensor_thickness", s->sensor_thickness_m, "m", ok);
    put_real(d, "x_pixel_size", s->pixel_size_m, "m", ok);
    put_real(d, "y_pixel_size", s->pixel_size_m, "m", ok);
    put_real(d, "beam_center_x", s->beam_center_x_px, "pixel", ok);
    put_real(d, "beam_center_y", s->beam_center_y_px, "pixel", ok);
    put_real(d, "detector_distance", s->distance_m, "m", ok);
    put_real(d, "count_time", s->count_time_s, "s", ok);
    put_real(d, "frame_time", s->frame_time_s, "s", ok);
    put_real(d, "detector_readout_time", s->readout_time_s, "s", ok);
    put_real(d, "threshold_energy", s->threshold_ev, "eV", ok);
    put_count(d, "bit_depth_image", (uint32_t)s->bit_depth, ok);
    put_count(d, "bit_depth_readout", 16, ok);
    put_count(d, "pixel_mask_applied", 1, ok);
    put_count(d, "flatfield_correction_applied", 0, ok);
    put_count(d, "countrate_correction_applied", 0, ok);
    H5Gclose(d);
}

static void put_detector_specific(hid_t file, const struct eiger_file_settings *s, bool *ok)
{
    hid_t d = H5Gopen2(file, "/entry/instrument/detector/detectorSpecific", H5P_DEFAULT);
    char date[64];
    time_t seconds = (time_t)(s->utc_ns / 1000000000);
    struct tm utc;
    gmtime_r(&seconds, &utc);
    size_t n = strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%S", &utc);
    snprintf(date + n, sizeof date - n, ".%06d+00:00", (int)(s->utc_ns % 1000000000 / 1000));
    put_count(d, "nimages", (uint32_t)s->n_images, ok);
    put_count(d, "ntrigger", (uint32_t)s->n_triggers, ok);
    put_count(d, "x_pixels_in_detector", (uint32_t)s->width, ok);
    put_count(d, "y_pixels_in_detector", (uint32_t)s->height, ok);
    put_count(d, "countrate_correction_count_cutoff", s->count_cutoff, ok);
    put_real(d, "photon_energy", s->photon_energy_ev, "eV", ok);
    put_text(d, "eiger_fw_version", s->firmware_version, ok);
    put_text(d, "compression", "bslz4", ok);
    put_text(d, "trigger_mode", "ints", ok);
    put_text(d, "data_collection_date", date, ok);
    put_dataset(d, "pixel_mask", H5T_NATIVE_UINT32, 2, (hsize_t[]){(hsize_t)s->height, (hsize_t)s->width},
                s->pixel_mask, NULL, ok);
    H5Gclose(d);
}

static int write_master(const struct eiger_file *series, const struct eiger_file_settings *s, struct err *err)
{
    hid_t file = H5Fcreate(series->master_path, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
    bool ok = file >= 0;
    static const char *const groups[][2] = {
        {"/entry", "NXentry"},
        {"/entry/data", "NXdata"},
        {"/entry/instrument", "NXinstrument"},
        {"/entry/instrument/beam", "NXbeam"},
        {"/entry/instrument/detector", "NXdetector"},
        {"/entry/instrument/detector/detectorSpecific", "NXcollection"},
    };
    for (size_t i = 0; ok && i < sizeof groups / sizeof groups[0]; i++)
        put_group(file, groups[i][0], groups[i][1], &ok);
    if (ok) {
        put_text(file, "/entry/definition", "NXmx", &ok);
        /* h c = 12398.42 eV angstrom (CODATA) */
        put_real(file, "/entry/instrument/beam/incident_wavelength", 12398.419843320026 / s->photon_energy_ev,
                 "angstrom", &ok);
        put_detector(file, s, &ok);
        put_detector_specific(file, s, &ok);
        put_links(file, series, &ok);
    }
    if (file >= 0)
        ok = H5Fclose(file) >= 0 && ok;
    return ok ? 0 : err_set(err, ERR_IO, "master file %s cannot be written; disk full?", series->master_path);
}

static int open_data(struct eiger_file *series, struct err *err)
{
    char path[PATH_BYTES];
    int number = series->n_appended / series->n_per_file + 1;
    snprintf(path, sizeof path, "%s/%s_data_%06d.h5", series->directory, series->stem, number);
    hsize_t dims[3] = {(hsize_t)series->n_per_file, (hsize_t)series->height, (hsize_t)series->width};
    hsize_t dims_max[3] = {H5S_UNLIMITED, dims[1], dims[2]}, chunk[3] = {1, dims[1], dims[2]};
    int left = series->n_total - series->n_appended;
    if (left < series->n_per_file)
        dims[0] = (hsize_t)left;
    /* major, minor version of the filter, bytes per element, block size (0: the filter's own), LZ4 */
    unsigned filter[5] = {0, 3, (unsigned)series->element_bytes, 0, 2};
    hid_t type = series->element_bytes == 2 ? H5T_STD_U16LE : H5T_STD_U32LE;
    uint32_t fill = UINT32_MAX;
    series->file = H5Fcreate(path, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
    hid_t space = H5Screate_simple(3, dims, dims_max);
    hid_t create = H5Pcreate(H5P_DATASET_CREATE), links = H5Pcreate(H5P_LINK_CREATE);
    H5Pset_create_intermediate_group(links, 1);
    bool ok = series->file >= 0 && H5Pset_chunk(create, 3, chunk) >= 0 && H5Pset_fill_value(create, type, &fill) >= 0 &&
              H5Pset_filter(create, FILTER_BITSHUFFLE, H5Z_FLAG_OPTIONAL, 5, filter) >= 0;
    /* The chunks are encoded here: a plugin that H5Pset_filter found on the machine must not edit the parameters. */
    H5Zunregister(FILTER_BITSHUFFLE);
    series->data = ok ? H5Dcreate2(series->file, "/entry/data/data", type, space, links, create, H5P_DEFAULT) : -1;
    H5Pclose(links);
    H5Pclose(create);
    H5Sclose(space);
    return series->data >= 0 ? 0 : err_set(err, ERR_IO, "data file %s cannot be made; disk full?", path);
}

/* Closes the growing file at its true length. */
static int close_data(struct eiger_file *series, struct err *err)
{
    uint64_t low = (uint64_t)series->n_closed + 1, high = (uint64_t)series->n_appended;
    hsize_t dims[3] = {high - low + 1, (hsize_t)series->height, (hsize_t)series->width};
    bool ok = H5Dset_extent(series->data, dims) >= 0;
    put_attribute(series->data, "image_nr_low", H5T_NATIVE_UINT64, &low, &ok);
    put_attribute(series->data, "image_nr_high", H5T_NATIVE_UINT64, &high, &ok);
    ok = H5Dclose(series->data) >= 0 && ok;
    ok = H5Fclose(series->file) >= 0 && ok;
    series->file = series->data = -1;
    series->n_closed = series->n_appended;
    return ok ? 0 : err_set(err, ERR_IO, "data file of %s cannot be closed; disk full?", series->master_path);
}

/* ---- life ---------------------------------------------------------------------------------------------------- */

int eiger_file_open(struct eiger_file **ret_file, const struct eiger_file_settings *s, struct err *err)
{
    if (s->width < 8 || s->height < 8 || s->width > 8192 || s->height > 8192 || s->width * s->height % 8 ||
        (s->bit_depth != 16 && s->bit_depth != 32) || s->n_images < 1 || s->n_triggers < 1 ||
        s->n_images > 100000000 / s->n_triggers || s->n_images_per_file < 1 || strlen(s->directory) >= 300 ||
        strlen(s->stem) >= 200)
        return err_set(err, ERR_ARG, "EIGER2 series %s of %d images of %d x %d pixels, %d bit, refused", s->stem,
                       s->n_images, s->width, s->height, s->bit_depth);
    /* All files are closed by their owners. HDF5's own clean-up at exit reports an endless loop when its plugin search
     * was first used in a thread that has ended (seen with 1.10.8). */
    H5dont_atexit();
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL); /* failures are told by err, not on the terminal */
    struct eiger_file *file = calloc(1, sizeof *file);
    assert(file);
    file->width = s->width;
    file->height = s->height;
    file->element_bytes = s->bit_depth / 8;
    file->n_total = s->n_images * s->n_triggers;
    file->n_per_file = s->n_images_per_file;
    file->file = file->data = -1;
    file->image_bytes = (size_t)s->width * (size_t)s->height * (size_t)file->element_bytes;
    file->blank = calloc(1, file->image_bytes);
    file->planes = malloc(file->image_bytes);
    file->chunk = malloc(chunk_bytes_max(file->image_bytes));
    assert(file->blank && file->planes && file->chunk);
    snprintf(file->directory, sizeof file->directory, "%s", s->directory);
    snprintf(file->stem, sizeof file->stem, "%s", s->stem);
    snprintf(file->master_path, sizeof file->master_path, "%s/%s_master.h5", s->directory, s->stem);
    blank_fill(file, s->pixel_mask);
    int code = write_master(file, s, err);
    if (code)
        eiger_file_close(file, NULL);
    else
        *ret_file = file;
    return code;
}

int eiger_file_append(struct eiger_file *file, const struct speckle_event *events, int n_events, struct err *err)
{
    if (file->n_appended == file->n_total)
        return err_set(err, ERR_FULL, "frame %d refused: %s announced %d", file->n_appended + 1, file->master_path,
                       file->n_total);
    int code = file->data < 0 ? open_data(file, err) : 0;
    if (code)
        return code;
    size_t n_bytes = encode(file, events, n_events);
    hsize_t offset[3] = {(hsize_t)(file->n_appended - file->n_closed), 0, 0};
    if (H5Dwrite_chunk(file->data, H5P_DEFAULT, 0, offset, n_bytes, file->chunk) < 0)
        return err_set(err, ERR_IO, "frame %d of %s cannot be written; disk full?", file->n_appended + 1,
                       file->master_path);
    file->n_appended++;
    if (file->n_appended - file->n_closed < file->n_per_file)
        return 0; /* a partly filled last file is closed by eiger_file_close, as disarming does */
    code = close_data(file, err);
    return code ? code : 1;
}

int eiger_file_close(struct eiger_file *file, struct err *err)
{
    if (!file)
        return 0;
    int code = 0;
    if (file->data >= 0)
        code = close_data(file, err);
    else if (file->file >= 0)
        H5Fclose(file->file);
    free(file->blank);
    free(file->planes);
    free(file->chunk);
    free(file);
    return code;
}

int eiger_file_count(const struct eiger_file *file) { return file->n_closed; }

const char *eiger_file_master_path(const struct eiger_file *file) { return file->master_path; }
