#include "analysis/frame_file.h"

#include <errno.h>
#include <fcntl.h>
#include <hdf5.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define FILTER_BITSHUFFLE 32008
#define FILTER_LZ4 32004
#define FILTER_OPTION_LZ4 2
#define PARTS_MAX 100000
#define PATH_BYTES 1024
#define SPARSE_BATCH_EVENTS                                                                                            \
    (1 << 20) /* read at once: a chunk of the table is decompressed once, not for every frame                          \
               */

#define DETECTOR "/entry/instrument/detector/"
#define SPECIFIC DETECTOR "detectorSpecific/"
#define DATA "/entry/data/data"
#define SPARSE "/entry_0000/measurement/data"

enum kind { KIND_EIGER_LINKS, KIND_EIGER_DATASET, KIND_ND_FILE, KIND_SPARSE };

/* One data file: named by the master, and opened when it is whole. */
struct part {
    char path[PATH_BYTES];
    char dataset_path[256];
    char label[64];          /* what the master calls it */
    size_t n_frames_claimed; /* by a virtual dataset; 0: not said */
    size_t first_frame, n_frames;
    hid_t file, dataset; /* -1: not open */
    int fd;
    int rank;
    uint64_t contiguous_address; /* of a dataset without chunks */
    size_t chunk_frames, chunk_channels;
    uint64_t *frame_ptr; /* [n_frames + 1], sparse */
};

struct frame_file {
    struct frames_info info;
    char path[PATH_BYTES];
    enum kind kind;
    enum frame_codec codec;
    hid_t master;
    uint32_t *pixel_mask;
    double count_cutoff;
    struct part *parts;
    int n_parts, n_open;
    size_t n_frames_open;
    uint32_t *sparse_index, *sparse_count; /* [SPARSE_BATCH_EVENTS or n_pixels, the larger] */
    size_t batch_first, batch_end;         /* frames whose events they hold */
};

/* ---- small readings ------------------------------------------------------------------------------------------ */

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

static hid_t open_dataset(hid_t file, const char *path)
{
    return has_link(file, path) ? H5Dopen2(file, path, H5P_DEFAULT) : -1;
}

static int read_number(const struct frame_file *file, const char *path, double *ret_value, struct err *err)
{
    hid_t dataset = open_dataset(file->master, path);
    if (dataset < 0)
        return err_set(err, ERR_DATA, "%s: %s is missing; expected the master file of an EIGER2 series", file->path,
                       path);
    hid_t space = H5Dget_space(dataset);
    bool is_scalar = H5Sget_simple_extent_npoints(space) == 1;
    double value;
    int code = is_scalar ? H5Dread(dataset, H5T_NATIVE_DOUBLE, H5S_ALL, H5S_ALL, H5P_DEFAULT, &value) : -1;
    H5Sclose(space);
    H5Dclose(dataset);
    if (code < 0)
        return err_set(err, ERR_DATA, "%s: %s is not one number", file->path, path);
    *ret_value = value;
    return 0;
}

/* For what a result can do without: the first of two names (Legacy, v2024.2) that there is, else `otherwise`. */
static double read_number_or(const struct frame_file *file, const char *path, const char *other_path, double otherwise)
{
    double value;
    if (read_number(file, path, &value, NULL) == 0)
        return value;
    return other_path && read_number(file, other_path, &value, NULL) == 0 ? value : otherwise;
}

static void read_text(const struct frame_file *file, const char *path, char *ret_text, size_t size)
{
    hid_t dataset = open_dataset(file->master, path);
    if (dataset < 0)
        return;
    hid_t type = H5Dget_type(dataset), space = H5Dget_space(dataset);
    bool is_text = H5Tget_class(type) == H5T_STRING && H5Sget_simple_extent_npoints(space) == 1;
    if (is_text && H5Tis_variable_str(type) > 0) {
        char *text = NULL;
        if (H5Dread(dataset, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, &text) >= 0 && text)
            snprintf(ret_text, size, "%s", text);
        free(text); /* HDF5 takes it from malloc */
    } else if (is_text) {
        hid_t wanted = H5Tcopy(H5T_C_S1);
        H5Tset_size(wanted, size);
        if (H5Dread(dataset, wanted, H5S_ALL, H5S_ALL, H5P_DEFAULT, ret_text) < 0)
            ret_text[0] = '\0';
        ret_text[size - 1] = '\0';
        H5Tclose(wanted);
    }
    H5Sclose(space);
    H5Tclose(type);
    H5Dclose(dataset);
}

/* A table of the file as numbers of one type, checked for its shape. */
static bool read_table(hid_t file, const char *path, size_t n_rows, size_t n_columns, hid_t type, void *ret_values)
{
    hsize_t shape[2] = {0, 0};
    hid_t dataset = open_dataset(file, path);
    if (dataset < 0)
        return false;
    hid_t space = H5Dget_space(dataset);
    bool is_good = H5Sget_simple_extent_ndims(space) == 2 && H5Sget_simple_extent_dims(space, shape, NULL) == 2 &&
                   shape[0] == n_rows && shape[1] == n_columns &&
                   H5Dread(dataset, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, ret_values) >= 0;
    H5Sclose(space);
    H5Dclose(dataset);
    return is_good;
}

/* Dimensions of a dataset of that name, up to 4; its rank, or -1. */
static int read_shape(hid_t file, const char *path, hsize_t ret_shape[4])
{
    hid_t dataset = open_dataset(file, path);
    if (dataset < 0)
        return -1;
    hid_t space = H5Dget_space(dataset);
    int rank = H5Sget_simple_extent_ndims(space);
    if (rank < 1 || rank > 4 || H5Sget_simple_extent_dims(space, ret_shape, NULL) != rank)
        rank = -1;
    H5Sclose(space);
    H5Dclose(dataset);
    return rank;
}

/* ---- metadata ------------------------------------------------------------------------------------------------ */

static int settle_frame_time(struct frame_file *file, const struct frames_stated *stated, struct err *err)
{
    struct frames_info *info = &file->info;
    info->frame_time_s = read_number_or(file, DETECTOR "frame_time", NULL, NAN);
    if (isnan(info->frame_time_s) && !(stated->frame_time_s > 0.0))
        return err_set(err, ERR_ARG, "%s: no frame time in it; state it with --frame-time", file->path);
    if (isnan(info->frame_time_s))
        info->frame_time_s = stated->frame_time_s;
    else if (stated->frame_time_s > 0.0 && !(fabs(stated->frame_time_s / info->frame_time_s - 1.0) < 1e-6))
        return err_set(err, ERR_ARG, "%s: frame time %g s, but %g s was stated", file->path, info->frame_time_s,
                       stated->frame_time_s);
    if (!(info->frame_time_s > 0.0))
        return err_set(err, ERR_DATA, "%s: frame time %g s; expected more than 0", file->path, info->frame_time_s);
    return 0;
}

/* Rows and columns: by the detector's own numbers, by the dataset, or as stated. */
static int settle_shape(struct frame_file *file, const struct frames_stated *stated, struct err *err)
{
    double n_rows = (double)stated->n_rows, n_columns = (double)stated->n_columns;
    int code = 0;
    if (file->kind == KIND_EIGER_LINKS) {
        code = read_number(file, SPECIFIC "x_pixels_in_detector", &n_columns, err);
        if (code == 0)
            code = read_number(file, SPECIFIC "y_pixels_in_detector", &n_rows, err);
    } else if (file->kind != KIND_SPARSE) {
        hsize_t shape[4];
        int rank = read_shape(file->master, DATA, shape);
        if (rank < 3)
            return err_set(err, ERR_DATA, "%s: " DATA " is not a stack of frames", file->path);
        n_rows = (double)shape[rank - 2];
        n_columns = (double)shape[rank - 1];
    } else if (stated->n_rows == 0)
        return err_set(err, ERR_ARG, "%s: sparse frames do not say their shape; state it with --shape ROWSxCOLUMNS",
                       file->path);
    if (code)
        return code;
    if (!(n_columns >= 1 && n_rows >= 1 && n_columns * n_rows <= EVENT_PIXELS_MAX))
        return err_set(err, ERR_DATA, "%s: a detector of %g x %g pixels is not possible", file->path, n_columns,
                       n_rows);
    if (stated->n_rows && (n_rows != (double)stated->n_rows || n_columns != (double)stated->n_columns))
        return err_set(err, ERR_ARG, "%s: %.0f x %.0f pixels, but %zu x %zu was stated", file->path, n_rows, n_columns,
                       stated->n_rows, stated->n_columns);
    file->info.n_columns = (size_t)n_columns;
    file->info.n_rows = (size_t)n_rows;
    return 0;
}

static int read_info(struct frame_file *file, const struct frames_stated *stated, struct err *err)
{
    struct frames_info *info = &file->info;
    int code = settle_shape(file, stated, err);
    if (code == 0)
        code = settle_frame_time(file, stated, err);
    if (code)
        return code;
    info->count_time_s = read_number_or(file, DETECTOR "count_time", NULL, info->frame_time_s);
    info->photon_energy_ev =
        read_number_or(file, SPECIFIC "photon_energy", "/entry/instrument/beam/incident_energy", 0.0);
    info->detector_distance_m = read_number_or(file, DETECTOR "detector_distance", DETECTOR "distance", 0.0);
    info->beam_center_x_px = read_number_or(file, DETECTOR "beam_center_x", NULL, 0.0);
    info->beam_center_y_px = read_number_or(file, DETECTOR "beam_center_y", NULL, 0.0);
    info->pixel_size_m = read_number_or(file, DETECTOR "x_pixel_size", NULL, 75e-6);
    file->count_cutoff =
        read_number_or(file, SPECIFIC "countrate_correction_count_cutoff", DETECTOR "saturation_value", NAN);
    read_text(file, SPECIFIC "data_collection_date", info->start_time, sizeof info->start_time);
    if (!info->start_time[0])
        read_text(file, "/entry/start_time", info->start_time, sizeof info->start_time);
    return 0;
}

static int read_pixel_mask(struct frame_file *file, struct err *err)
{
    static const char *const paths[] = {SPECIFIC "pixel_mask", DETECTOR "threshold_1_channel/pixel_mask",
                                        DETECTOR "threshold_2_channel/pixel_mask"};
    size_t n_rows = file->info.n_rows, n_columns = file->info.n_columns;
    file->pixel_mask = calloc(n_rows * n_columns, sizeof *file->pixel_mask);
    if (!file->pixel_mask)
        return err_set(err, ERR_SYSTEM, "no memory for the mask of %zu pixels", n_rows * n_columns);
    if (file->kind == KIND_ND_FILE || file->kind == KIND_SPARSE)
        return 0;
    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++)
        if (has_link(file->master, paths[i]))
            return read_table(file->master, paths[i], n_rows, n_columns, H5T_NATIVE_UINT32, file->pixel_mask)
                       ? 0
                       : err_set(err, ERR_DATA, "%s: the pixel mask is not readable as %zu x %zu pixels", file->path,
                                 n_rows, n_columns);
    return err_set(err, ERR_DATA, "%s: " SPECIFIC "pixel_mask is missing: gaps cannot be told from photons",
                   file->path);
}

/* ---- which data files there are ------------------------------------------------------------------------------ */

static struct part *add_part(struct frame_file *file, struct err *err)
{
    struct part *parts =
        file->n_parts < PARTS_MAX ? realloc(file->parts, ((size_t)file->n_parts + 1) * sizeof *parts) : NULL;
    if (!parts) {
        err_set(err, ERR_SYSTEM, "%s: no room for more than %d data files", file->path, file->n_parts);
        return NULL;
    }
    file->parts = parts;
    parts[file->n_parts] = (struct part){.file = -1, .dataset = -1, .fd = -1, .chunk_frames = 1, .chunk_channels = 1};
    return &parts[file->n_parts++];
}

/* Data files lie beside the master; "." is the master itself. */
static void place_part(const struct frame_file *file, struct part *part, const char *name, const char *dataset_path)
{
    const char *slash = strrchr(file->path, '/');
    if (strcmp(name, ".") == 0)
        snprintf(part->path, sizeof part->path, "%s", file->path);
    else if (name[0] == '/' || !slash)
        snprintf(part->path, sizeof part->path, "%s", name);
    else
        snprintf(part->path, sizeof part->path, "%.*s/%s", (int)(slash - file->path), file->path, name);
    snprintf(part->dataset_path, sizeof part->dataset_path, "%s", dataset_path);
}

static int add_link(struct frame_file *file, const char *link, struct err *err)
{
    H5L_info_t info;
    char value[PATH_BYTES];
    const char *name = ".", *object = link;
    struct part *part = add_part(file, err);
    if (!part)
        return err ? err->code : ERR_SYSTEM;
    snprintf(part->label, sizeof part->label, "%s", link);
    bool is_good = H5Lget_info(file->master, link, &info, H5P_DEFAULT) >= 0;
    if (is_good && info.type == H5L_TYPE_EXTERNAL)
        is_good = info.u.val_size <= sizeof value &&
                  H5Lget_val(file->master, link, value, sizeof value, H5P_DEFAULT) >= 0 &&
                  H5Lunpack_elink_val(value, info.u.val_size, NULL, &name, &object) >= 0;
    if (!is_good)
        return err_set(err, ERR_DATA, "%s: the link %s is not readable", file->path, link);
    place_part(file, part, name, object);
    return 0;
}

static int list_links(struct frame_file *file, struct err *err)
{
    double n_images, n_triggers;
    int code = read_number(file, SPECIFIC "nimages", &n_images, err);
    if (code == 0)
        code = read_number(file, SPECIFIC "ntrigger", &n_triggers, err);
    if (code)
        return code;
    if (!(n_images * n_triggers >= 1.0 && n_images * n_triggers <= 1e9))
        return err_set(err, ERR_DATA, "%s announces %g frames", file->path, n_images * n_triggers);
    file->info.n_frames = (size_t)(n_images * n_triggers);
    for (int k = 1; code == 0 && k <= PARTS_MAX; k++) {
        char link[64];
        snprintf(link, sizeof link, DATA "_%06d", k);
        if (!has_link(file->master, link))
            break;
        code = add_link(file, link, err);
    }
    return code;
}

/* One source of a virtual dataset; sources must follow each other without gaps. */
static int add_source(struct frame_file *file, hid_t properties, size_t i, struct err *err)
{
    char name[PATH_BYTES] = "", object[256] = "";
    hsize_t start[4] = {0}, end[4] = {0};
    hid_t space = H5Pget_virtual_vspace(properties, i);
    bool is_good = space >= 0 && H5Sget_simple_extent_ndims(space) <= 4 &&
                   H5Sget_select_bounds(space, start, end) >= 0 &&
                   H5Pget_virtual_filename(properties, i, name, sizeof name) > 0 &&
                   H5Pget_virtual_dsetname(properties, i, object, sizeof object) > 0;
    H5Sclose(space);
    size_t next = 0;
    for (int k = 0; k < file->n_parts; k++)
        next += file->parts[k].n_frames_claimed;
    if (!is_good || start[0] != next || strchr(name, '%'))
        return err_set(err, ERR_DATA, "%s: source %zu of the virtual " DATA " is not the frames from %zu on",
                       file->path, i + 1, next);
    struct part *part = add_part(file, err);
    if (!part)
        return err ? err->code : ERR_SYSTEM;
    place_part(file, part, name, object);
    snprintf(part->label, sizeof part->label, "source %zu", i + 1);
    part->n_frames_claimed = end[0] - start[0] + 1;
    return 0;
}

static int list_dataset(struct frame_file *file, struct err *err)
{
    hsize_t shape[4] = {0};
    int rank = read_shape(file->master, DATA, shape), code = 0;
    size_t n_sources = 0;
    hid_t dataset = open_dataset(file->master, DATA), properties = H5Dget_create_plist(dataset);
    file->info.n_frames = rank >= 3 ? shape[0] : 0;
    if (H5Pget_layout(properties) == H5D_VIRTUAL) {
        if (H5Pget_virtual_count(properties, &n_sources) < 0 || n_sources < 1)
            code = err_set(err, ERR_DATA, "%s: the virtual " DATA " has no sources", file->path);
        for (size_t i = 0; code == 0 && i < n_sources; i++)
            code = add_source(file, properties, i, err);
    } else {
        struct part *part = add_part(file, err);
        code = part ? 0 : err ? err->code : ERR_SYSTEM;
        if (part) {
            place_part(file, part, ".", DATA);
            snprintf(part->label, sizeof part->label, DATA);
        }
    }
    H5Pclose(properties);
    H5Dclose(dataset);
    return code;
}

/* <stem>_00000.h5 and those that follow it; a file of another name stands alone. */
static int list_sparse(struct frame_file *file, struct err *err)
{
    char stem[PATH_BYTES], path[PATH_BYTES];
    size_t n = strlen(file->path);
    bool is_numbered = n > 9 && strcmp(file->path + n - 9, "_00000.h5") == 0;
    snprintf(stem, sizeof stem, "%.*s", (int)(is_numbered ? n - 9 : n), file->path);
    for (int k = 0; k < PARTS_MAX; k++) {
        snprintf(path, sizeof path, "%s_%05d.h5", stem, k);
        if (k > 0 && (!is_numbered || access(path, F_OK) != 0))
            return 0;
        struct part *part = add_part(file, err);
        if (!part)
            return err ? err->code : ERR_SYSTEM;
        snprintf(part->path, sizeof part->path, "%s", is_numbered ? path : file->path);
        snprintf(part->dataset_path, sizeof part->dataset_path, SPARSE "/frame_ptr");
        snprintf(part->label, sizeof part->label, "file %d", k);
    }
    return 0;
}

/* ---- one data file ------------------------------------------------------------------------------------------- */

static int read_codec(const struct part *part, hid_t properties, enum frame_codec *ret_codec, struct err *err)
{
    unsigned flags, values[8];
    size_t n_values = 8;
    int n_filters = H5Pget_nfilters(properties);
    if (n_filters == 0) {
        *ret_codec = FRAME_DENSE;
        return 0;
    }
    H5Z_filter_t filter =
        n_filters == 1 ? H5Pget_filter2(properties, 0, &flags, &n_values, values, 0, NULL, NULL) : H5Z_FILTER_ERROR;
    if (filter == FILTER_LZ4)
        *ret_codec = FRAME_LZ4;
    else if (filter == FILTER_BITSHUFFLE && n_values >= 5 && values[4] == FILTER_OPTION_LZ4)
        *ret_codec = FRAME_BSLZ4;
    else if (n_filters != 1)
        return err_set(err, ERR_DATA, "%s: %d filters; expected one, bitshuffle with LZ4, or none", part->path,
                       n_filters);
    else
        return err_set(err, ERR_DATA,
                       "%s: filter %d, option %u; expected %d (bitshuffle) with option %d (LZ4), %d (LZ4) or none: set "
                       "the detector's compression to bslz4",
                       part->path, (int)filter, filter == FILTER_BITSHUFFLE && n_values >= 5 ? values[4] : 0,
                       FILTER_BITSHUFFLE, FILTER_OPTION_LZ4, FILTER_LZ4);
    return 0;
}

/* A compressed chunk is one frame; uncompressed ones may hold several, one after the other. */
static bool read_layout(const struct frame_file *file, struct part *part, hid_t properties, enum frame_codec codec)
{
    const struct frames_info *info = &file->info;
    hsize_t chunk[4] = {1, 1, 1, 1};
    if (H5Pget_layout(properties) == H5D_CONTIGUOUS) {
        haddr_t address = H5Dget_offset(part->dataset);
        part->contiguous_address = address;
        return address != HADDR_UNDEF;
    }
    if (H5Pget_layout(properties) != H5D_CHUNKED || H5Pget_chunk(properties, part->rank, chunk) != part->rank)
        return false;
    part->chunk_frames = chunk[0];
    part->chunk_channels = part->rank == 4 ? chunk[1] : 1;
    bool is_single = chunk[0] == 1 && part->chunk_channels == 1;
    return chunk[part->rank - 2] == info->n_rows && chunk[part->rank - 1] == info->n_columns &&
           (is_single || codec == FRAME_DENSE);
}

static int check_stack(struct frame_file *file, struct part *part, struct err *err)
{
    struct frames_info *info = &file->info;
    hsize_t shape[4] = {0};
    hid_t space = H5Dget_space(part->dataset), type = H5Dget_type(part->dataset),
          properties = H5Dget_create_plist(part->dataset);
    enum frame_codec codec = FRAME_DENSE;
    part->rank = H5Sget_simple_extent_ndims(space);
    size_t element_bytes = H5Tget_size(type);
    bool is_stack = (part->rank == 3 || part->rank == 4) &&
                    H5Sget_simple_extent_dims(space, shape, NULL) == part->rank &&
                    shape[part->rank - 2] == info->n_rows && shape[part->rank - 1] == info->n_columns;
    bool is_count = H5Tget_class(type) == H5T_INTEGER && H5Tget_sign(type) == H5T_SGN_NONE &&
                    (element_bytes == 1 || element_bytes == 2 || element_bytes == 4) &&
                    H5Tget_order(type) == H5T_ORDER_LE;
    int code = read_codec(part, properties, &codec, err);
    if (!is_stack || (code == 0 && !read_layout(file, part, properties, codec)))
        code = err_set(err, ERR_DATA, "%s: expected frames of %zu x %zu pixels, one per chunk", part->path,
                       info->n_rows, info->n_columns);
    else if (!is_count)
        code = err_set(err, ERR_DATA, "%s: elements of %zu bytes; expected uint8, uint16 or uint32, little endian",
                       part->path, element_bytes);
    else if (code == 0 && file->n_open > 0 && ((int)element_bytes != info->element_bytes || codec != file->codec))
        code = err_set(err, ERR_DATA, "%s: elements of %zu bytes or their compression differ from the files before",
                       part->path, element_bytes);
    if (code == 0) {
        part->n_frames = shape[0];
        info->element_bytes = (int)element_bytes;
        file->codec = codec;
    }
    H5Pclose(properties);
    H5Tclose(type);
    H5Sclose(space);
    return code;
}

static bool is_integer(hid_t file, const char *path, hsize_t *ret_n)
{
    hsize_t shape[4];
    hid_t dataset = open_dataset(file, path);
    if (dataset < 0)
        return false;
    hid_t type = H5Dget_type(dataset);
    bool is_good = H5Tget_class(type) == H5T_INTEGER && read_shape(file, path, shape) == 1;
    H5Tclose(type);
    H5Dclose(dataset);
    *ret_n = is_good ? shape[0] : 0;
    return is_good;
}

static int check_sparse(struct frame_file *file, struct part *part, struct err *err)
{
    hsize_t n_ptr, n_index, n_count;
    bool is_good =
        is_integer(part->file, SPARSE "/frame_ptr", &n_ptr) && is_integer(part->file, SPARSE "/index", &n_index) &&
        is_integer(part->file, SPARSE "/intensity", &n_count) && n_ptr >= 2 && n_ptr < 100000000 && n_index == n_count;
    part->frame_ptr = is_good ? malloc(n_ptr * sizeof *part->frame_ptr) : NULL;
    is_good = part->frame_ptr &&
              H5Dread(part->dataset, H5T_NATIVE_UINT64, H5S_ALL, H5S_ALL, H5P_DEFAULT, part->frame_ptr) >= 0;
    for (size_t i = 1; is_good && i < n_ptr; i++)
        is_good = part->frame_ptr[i] >= part->frame_ptr[i - 1] && part->frame_ptr[i] <= n_index;
    if (!is_good)
        return err_set(err, ERR_DATA,
                       "%s: expected ascending frame_ptr, and index and intensity of one length, in " SPARSE,
                       part->path);
    part->n_frames = n_ptr - 1;
    file->info.element_bytes = 4;
    file->codec = FRAME_SPARSE;
    return 0;
}

static void close_part(struct part *part)
{
    if (part->dataset >= 0)
        H5Dclose(part->dataset);
    if (part->file >= 0)
        H5Fclose(part->file);
    if (part->fd >= 0)
        close(part->fd);
    free(part->frame_ptr);
    part->file = part->dataset = -1;
    part->fd = -1;
    part->frame_ptr = NULL;
}

/* Opens the next part and leaves it open, or as it was. */
static int open_part(struct frame_file *file, struct err *err)
{
    struct part *part = &file->parts[file->n_open];
    part->file = H5Fopen(part->path, H5F_ACC_RDONLY, H5P_DEFAULT);
    part->dataset = part->file >= 0 ? H5Dopen2(part->file, part->dataset_path, H5P_DEFAULT) : -1;
    part->first_frame = file->n_frames_open;
    int code = 0;
    if (part->dataset < 0)
        code = err_set(err, ERR_IO,
                       "%s: the data file behind %s cannot be opened: missing, truncated or not closed; copy the whole "
                       "series",
                       file->path, part->label);
    else
        code = file->kind == KIND_SPARSE ? check_sparse(file, part, err) : check_stack(file, part, err);
    if (code == 0 && part->n_frames_claimed && part->n_frames != part->n_frames_claimed)
        code = err_set(err, ERR_DATA, "%s: %zu frames, the master counts on %zu: the series is not complete",
                       part->path, part->n_frames, part->n_frames_claimed);
    if (code == 0 && (part->fd = open(part->path, O_RDONLY | O_CLOEXEC)) < 0)
        code = err_set(err, ERR_IO, "%s cannot be opened: %s", part->path, strerror(errno));
    if (code) {
        close_part(part);
        return code;
    }
    file->n_open++;
    file->n_frames_open += part->n_frames;
    return 0;
}

static int open_parts(struct frame_file *file, struct err *err)
{
    int code = 0;
    while (code == 0 && file->n_open < file->n_parts)
        code = open_part(file, err);
    if (code)
        return code;
    if (file->kind == KIND_SPARSE)
        file->info.n_frames = file->n_frames_open;
    if (file->n_frames_open != file->info.n_frames)
        return err_set(err, ERR_DATA, "%s announces %zu frames, its %d data files hold %zu: the series is not complete",
                       file->path, file->info.n_frames, file->n_open, file->n_frames_open);
    return 0;
}

/* ---- a growing series ---------------------------------------------------------------------------------------- */

/* Every frame has a chunk, and the file reaches to its end: what a file has that was closed, and copied to its end. */
static bool is_whole(struct frame_file *file, const struct part *part)
{
    struct frame_place place;
    struct stat status;
    if (fstat(part->fd, &status) != 0)
        return false;
    for (size_t t = 0; t < part->n_frames; t++)
        if (frame_file_locate(file, part->first_frame + t, 1, &place, NULL) != 0 ||
            place.address + place.n_bytes > (uint64_t)status.st_size)
            return false;
    return true;
}

int frame_file_extend(struct frame_file *file, bool has_ended, struct err *err)
{
    if (file->n_open == file->n_parts)
        return 0;
    bool is_last = file->n_open + 1 == file->n_parts;
    bool has_successor = !is_last && access(file->parts[file->n_open + 1].path, F_OK) == 0;
    if (!has_successor && !is_last && !has_ended)
        return 0;
    struct err reason = {0};
    size_t n_before = file->n_frames_open;
    int code = open_part(file, &reason);
    if (code == 0) {
        struct part *part = &file->parts[file->n_open - 1];
        bool is_complete = !is_last || file->n_frames_open == file->info.n_frames;
        if ((is_complete || has_ended) && is_whole(file, part))
            return 1;
        code = err_set(&reason, ERR_DATA, "%s: %zu frames, not all of them written", part->path, part->n_frames);
        close_part(part);
        file->n_open--;
        file->n_frames_open = n_before;
    }
    if (!has_ended && code != ERR_SYSTEM) /* it is not whole yet, or a network file system does not show it yet */
        return 0;
    return err_set(err, code, "%s", reason.message);
}

/* ---- public -------------------------------------------------------------------------------------------------- */

static int find_kind(struct frame_file *file, struct err *err)
{
    if (has_link(file->master, SPARSE "/frame_ptr"))
        file->kind = KIND_SPARSE;
    else if (has_link(file->master, DATA "_000001"))
        file->kind = KIND_EIGER_LINKS;
    else if (has_link(file->master, DATA))
        file->kind = has_link(file->master, DETECTOR "frame_time") ? KIND_EIGER_DATASET : KIND_ND_FILE;
    else
        return err_set(err, ERR_DATA,
                       "%s: no " DATA "_000001; expected the master file of an EIGER2 series, a file of NDFileHDF5 "
                       "(" DATA ") or sparse frames of Lima2 (" SPARSE ")",
                       file->path);
    return 0;
}

static int open_all(struct frame_file *file, const struct frames_stated *stated, bool is_growing, struct err *err)
{
    if (access(file->path, R_OK) != 0)
        return err_set(err, ERR_IO, "%s cannot be read: %s", file->path, strerror(errno));
    file->master = H5Fopen(file->path, H5F_ACC_RDONLY, H5P_DEFAULT);
    if (file->master < 0)
        return err_set(err, ERR_IO, "%s is not a readable HDF5 file; expected the master file of an EIGER2 series",
                       file->path);
    int code = find_kind(file, err);
    if (code == 0 && is_growing && (file->kind == KIND_ND_FILE || file->kind == KIND_SPARSE))
        code =
            err_set(err, ERR_ARG, "%s: only an EIGER2 series can be followed; wait until it is finished", file->path);
    if (code == 0)
        code = read_info(file, stated, err);
    if (code == 0)
        code = read_pixel_mask(file, err);
    if (code == 0)
        code = file->kind == KIND_EIGER_LINKS ? list_links(file, err)
               : file->kind == KIND_SPARSE    ? list_sparse(file, err)
                                              : list_dataset(file, err);
    if (code == 0 && !is_growing)
        code = open_parts(file, err);
    return code;
}

int frame_file_open(struct frame_file **ret_file, const char *path, const struct frames_stated *stated, bool is_growing,
                    struct err *err)
{
    struct frame_file *file = calloc(1, sizeof *file);
    if (!file)
        return err_set(err, ERR_SYSTEM, "no memory");
    setenv("HDF5_USE_FILE_LOCKING", "FALSE", 1); /* we only read, and network file systems refuse the lock */
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);       /* what fails is said in our own sentences */
    snprintf(file->path, sizeof file->path, "%s", path);
    file->master = -1;
    int code = open_all(file, stated, is_growing, err);
    if (code)
        frame_file_close(file);
    else
        *ret_file = file;
    return code;
}

void frame_file_close(struct frame_file *file)
{
    if (!file)
        return;
    for (int i = 0; i < file->n_parts; i++)
        close_part(&file->parts[i]);
    if (file->master >= 0)
        H5Fclose(file->master);
    free(file->parts);
    free(file->pixel_mask);
    free(file->sparse_index);
    free(file->sparse_count);
    free(file);
}

const struct frames_info *frame_file_info(const struct frame_file *file) { return &file->info; }

const uint32_t *frame_file_pixel_mask(const struct frame_file *file) { return file->pixel_mask; }

bool frame_file_has_mask(const struct frame_file *file) { return file->kind != KIND_ND_FILE; }

enum frame_codec frame_file_codec(const struct frame_file *file) { return file->codec; }

size_t frame_file_count(const struct frame_file *file) { return file->n_frames_open; }

const char *frame_file_part_path(const struct frame_file *file, int part) { return file->parts[part].path; }

int frame_file_part_fd(const struct frame_file *file, int part) { return file->parts[part].fd; }

uint32_t frame_file_count_max(const struct frame_file *file)
{
    uint32_t flag = (UINT32_MAX >> (32 - 8 * file->info.element_bytes)) - 1; /* and the one above it */
    return file->count_cutoff >= 1.0 && file->count_cutoff < flag ? (uint32_t)file->count_cutoff : flag - 1;
}

static int part_of(const struct frame_file *file, size_t frame_index)
{
    int low = 0, high = file->n_open - 1;
    while (low < high) {
        int middle = (low + high + 1) / 2;
        if (file->parts[middle].first_frame <= frame_index)
            low = middle;
        else
            high = middle - 1;
    }
    return low;
}

static int locate_chunk(const struct frame_file *file, const struct part *part, size_t t, struct frame_place *ret_place,
                        struct err *err)
{
    size_t n_frame_bytes = file->info.n_rows * file->info.n_columns * (size_t)file->info.element_bytes;
    size_t n_bytes_max = 2 * n_frame_bytes * part->chunk_frames * part->chunk_channels + 65536;
    const hsize_t offset[4] = {t / part->chunk_frames * part->chunk_frames, 0, 0, 0};
    unsigned filter_mask = 0;
    haddr_t address = HADDR_UNDEF;
    hsize_t n_bytes = 0;
    if (H5Dget_chunk_info_by_coord(part->dataset, offset, &filter_mask, &address, &n_bytes) < 0 ||
        address == HADDR_UNDEF || n_bytes == 0)
        return err_set(err, ERR_DATA, "the frame was never written");
    if (filter_mask != 0 || n_bytes > n_bytes_max)
        return err_set(err, ERR_DATA,
                       "a chunk of %llu bytes with filter mask %u; expected a compressed one of at most %zu",
                       (unsigned long long)n_bytes, filter_mask, n_bytes_max);
    *ret_place = (struct frame_place){.address = address, .n_bytes = (uint32_t)n_bytes};
    if (file->codec == FRAME_DENSE) {
        ret_place->address += t % part->chunk_frames * part->chunk_channels * n_frame_bytes;
        ret_place->n_bytes = (uint32_t)n_frame_bytes;
    }
    return 0;
}

int frame_file_locate(struct frame_file *file, size_t first, size_t n, struct frame_place *ret_places, struct err *err)
{
    size_t n_frame_bytes = file->info.n_rows * file->info.n_columns * (size_t)file->info.element_bytes;
    for (size_t i = 0; i < n; i++) {
        int k = part_of(file, first + i);
        const struct part *part = &file->parts[k];
        size_t t = first + i - part->first_frame, n_channels = 1;
        hsize_t shape[4];
        if (part->contiguous_address && part->rank == 4 && read_shape(part->file, part->dataset_path, shape) == 4)
            n_channels = shape[1];
        int code = 0;
        if (part->contiguous_address)
            ret_places[i] = (struct frame_place){part->contiguous_address + t * n_channels * n_frame_bytes,
                                                 (uint32_t)n_frame_bytes, k};
        else if (file->codec != FRAME_SPARSE)
            code = locate_chunk(file, part, t, &ret_places[i], err);
        ret_places[i].part = k;
        if (code)
            return err ? err_prefix(err, "%s, frame %zu of %zu", part->path, first + i + 1, file->info.n_frames) : code;
    }
    return 0;
}

/* ---- sparse frames ------------------------------------------------------------------------------------------- */

static bool read_slice(hid_t file, const char *path, hsize_t first, hsize_t n, uint32_t *ret_values)
{
    hid_t dataset = open_dataset(file, path);
    if (dataset < 0)
        return false;
    hid_t space = H5Dget_space(dataset), memory = H5Screate_simple(1, &n, NULL);
    bool is_good = H5Sselect_hyperslab(space, H5S_SELECT_SET, &first, NULL, &n, NULL) >= 0 &&
                   H5Dread(dataset, H5T_NATIVE_UINT32, memory, space, H5P_DEFAULT, ret_values) >= 0;
    H5Sclose(memory);
    H5Sclose(space);
    H5Dclose(dataset);
    return is_good;
}

/* Reads the events of frame `t` of the part and of as many after it as fit. */
static int read_batch(struct frame_file *file, const struct part *part, size_t t, struct err *err)
{
    size_t n_pixels = file->info.n_rows * file->info.n_columns;
    size_t n_max = n_pixels > SPARSE_BATCH_EVENTS ? n_pixels : SPARSE_BATCH_EVENTS, end = t + 1;
    if (!file->sparse_index) {
        file->sparse_index = malloc(n_max * sizeof *file->sparse_index);
        file->sparse_count = malloc(n_max * sizeof *file->sparse_count);
        if (!file->sparse_index || !file->sparse_count)
            return err_set(err, ERR_SYSTEM, "no memory for %zu events", n_max);
    }
    uint64_t first = part->frame_ptr[t];
    if (part->frame_ptr[end] - first > n_max)
        return err_set(err, ERR_DATA, "%llu events, more than the frame has pixels",
                       (unsigned long long)(part->frame_ptr[end] - first));
    while (end < part->n_frames && part->frame_ptr[end + 1] - first <= n_max)
        end++;
    uint64_t n = part->frame_ptr[end] - first;
    if (n > 0 && (!read_slice(part->file, SPARSE "/index", first, n, file->sparse_index) ||
                  !read_slice(part->file, SPARSE "/intensity", first, n, file->sparse_count)))
        return err_set(err, ERR_IO,
                       "index and intensity cannot be read: damaged, or compressed by a filter that is not installed "
                       "(HDF5_PLUGIN_PATH)");
    file->batch_first = part->first_frame + t;
    file->batch_end = part->first_frame + end;
    return 0;
}

struct pair {
    uint32_t pixel, count;
};

static int compare_pairs(const void *a, const void *b)
{
    const struct pair *x = a, *y = b;
    return (x->pixel > y->pixel) - (x->pixel < y->pixel);
}

/* Brings the n events at index, count into pixel order, if they are not; false without memory. */
static bool sort_by_pixel(uint32_t *index, uint32_t *count, size_t n)
{
    size_t i = 1;
    while (i < n && index[i] >= index[i - 1])
        i++;
    if (i >= n)
        return true;
    struct pair *pairs = malloc(n * sizeof *pairs);
    for (i = 0; pairs && i < n; i++)
        pairs[i] = (struct pair){index[i], count[i]};
    if (!pairs)
        return false;
    qsort(pairs, n, sizeof *pairs, compare_pairs);
    for (i = 0; i < n; i++) {
        index[i] = pairs[i].pixel;
        count[i] = pairs[i].count;
    }
    free(pairs);
    return true;
}

static int read_sparse(struct frame_file *file, const struct part *part, size_t t, const struct frame_shape *shape,
                       struct event_sink *sink, struct err *err)
{
    size_t frame_index = part->first_frame + t;
    int code = 0;
    if (frame_index < file->batch_first || frame_index >= file->batch_end)
        code = read_batch(file, part, t, err);
    if (code)
        return code;
    uint64_t first = part->frame_ptr[t] - part->frame_ptr[file->batch_first - part->first_frame];
    size_t n = part->frame_ptr[t + 1] - part->frame_ptr[t];
    uint32_t *index = file->sparse_index + first, *count = file->sparse_count + first;
    if (!sort_by_pixel(index, count, n))
        return err_set(err, ERR_SYSTEM, "no memory for %zu events", n);
    sink->n_events = sink->n_bright = sink->n_invalid = 0;
    for (size_t i = 0; i < n; i++) {
        if (index[i] >= shape->n_pixels || (i > 0 && index[i] == index[i - 1]))
            return err_set(err, ERR_DATA, "pixel %u of %zu, outside the frame or twice in it: is the shape right?",
                           index[i], shape->n_pixels);
        if (count[i] && (shape->valid_bits[index[i] / 64] >> index[i] % 64 & 1))
            event_put(sink, shape, index[i], count[i]);
    }
    return 0;
}

int frame_file_read_sparse(struct frame_file *file, size_t frame_index, const struct frame_shape *shape,
                           struct event_sink *sink, struct err *err)
{
    const struct part *part = &file->parts[part_of(file, frame_index)];
    int code = read_sparse(file, part, frame_index - part->first_frame, shape, sink, err);
    if (code)
        err_prefix(err, "%s, frame %zu of %zu", part->path, frame_index + 1, file->info.n_frames);
    return code;
}

/* ---- a mask of the user's ------------------------------------------------------------------------------------ */

/* A dataset [n_rows, n_columns] of the user's, FILE or FILE:/PATH, by default `name`; `what` it should be. */
static int read_users_table(const char *where, const char *name, const char *what, size_t n_rows, size_t n_columns,
                            hid_t type, void *ret_table, struct err *err)
{
    char path[PATH_BYTES];
    const char *colon = strstr(where, ":/");
    name = colon ? colon + 1 : name;
    snprintf(path, sizeof path, "%.*s", colon ? (int)(colon - where) : (int)strlen(where), where);
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    hid_t file = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT);
    if (file < 0)
        return err_set(err, ERR_IO, "%s is not a readable HDF5 file; expected a %s", path, what);
    bool is_good = read_table(file, name, n_rows, n_columns, type, ret_table);
    H5Fclose(file);
    return is_good ? 0
                   : err_set(err, ERR_DATA, "%s: %s is not readable as a %s of %zu x %zu pixels", path, name, what,
                             n_rows, n_columns);
}

int frame_file_read_mask(const char *where, size_t n_rows, size_t n_columns, uint8_t *is_masked, struct err *err)
{
    uint32_t *mask = calloc(n_rows * n_columns, sizeof *mask);
    if (!mask)
        return err_set(err, ERR_SYSTEM, "no memory for a mask of %zu x %zu pixels", n_rows, n_columns);
    int code = read_users_table(where, "/mask", "mask", n_rows, n_columns, H5T_NATIVE_UINT32, mask, err);
    for (size_t i = 0; code == 0 && i < n_rows * n_columns; i++)
        is_masked[i] |= mask[i] != 0;
    free(mask);
    return code;
}

int frame_file_read_flat_field(const char *where, size_t n_rows, size_t n_columns, float *ret_sensitivity,
                               struct err *err)
{
    return read_users_table(where, "/flat_field", "flat field", n_rows, n_columns, H5T_NATIVE_FLOAT, ret_sensitivity,
                            err);
}
