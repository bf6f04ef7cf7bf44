#include "analysis/result_file.h"

#include <errno.h>
#include <fcntl.h>
#include <hdf5.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define PROGRAM "isobar-analyze"
#define VERSION "0.1"
#define MATRIX_TILE 256 /* edge of a chunk of the full matrix: tiles below the diagonal are never written */
#define IMAGE_GROWTH_BYTES 4194304
#define DIMENSIONLESS "" /* NeXus wants it said */
#define CONVENTION "g2 = baseline + contrast * |F|^2, |F|^2 = exp(-2 (t/tau)^beta)"

/* The file being written; `ok` gathers, so that a list of datasets reads as a list. */
struct writer {
    hid_t file;
    bool ok;
};

static hid_t text_type(const char *text)
{
    hid_t type = H5Tcopy(H5T_C_S1);
    H5Tset_size(type, strlen(text) + 1);
    H5Tset_cset(type, H5T_CSET_UTF8);
    return type;
}

static void put_attribute(struct writer *writer, const char *path, const char *name, hid_t type, const void *value)
{
    if (!writer->ok)
        return;
    hid_t space = H5Screate(H5S_SCALAR);
    hid_t attribute = H5Acreate_by_name(writer->file, path, name, type, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    writer->ok = attribute >= 0 && H5Awrite(attribute, type, value) >= 0;
    H5Aclose(attribute);
    H5Sclose(space);
}

static void put_label(struct writer *writer, const char *path, const char *name, const char *text)
{
    hid_t type = text_type(text);
    put_attribute(writer, path, name, type, text);
    H5Tclose(type);
}

static void put_group(struct writer *writer, const char *path, const char *nx_class)
{
    if (!writer->ok)
        return;
    hid_t group = H5Gcreate2(writer->file, path, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    writer->ok = group >= 0;
    H5Gclose(group);
    put_label(writer, path, "NX_class", nx_class);
}

/* Compressed when `chunk` is not NULL. */
static void put_array(struct writer *writer, const char *path, hid_t type, int rank, const hsize_t *shape,
                      const hsize_t *chunk, const void *values)
{
    if (!writer->ok)
        return;
    hid_t space = rank ? H5Screate_simple(rank, shape, NULL) : H5Screate(H5S_SCALAR);
    hid_t properties = H5Pcreate(H5P_DATASET_CREATE);
    if (chunk) {
        H5Pset_chunk(properties, rank, chunk);
        H5Pset_shuffle(properties);
        H5Pset_deflate(properties, 1);
    }
    hid_t dataset = H5Dcreate2(writer->file, path, type, space, H5P_DEFAULT, properties, H5P_DEFAULT);
    writer->ok = dataset >= 0 && H5Dwrite(dataset, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, values) >= 0;
    H5Dclose(dataset);
    H5Pclose(properties);
    H5Sclose(space);
}

static void put_numbers(struct writer *writer, const char *path, const double *values, size_t n, size_t n_columns)
{
    put_array(writer, path, H5T_NATIVE_DOUBLE, n_columns ? 2 : 1, (hsize_t[]){n, n_columns}, NULL, values);
}

static void put_number(struct writer *writer, const char *path, double value, const char *units)
{
    put_array(writer, path, H5T_NATIVE_DOUBLE, 0, NULL, NULL, &value);
    if (units)
        put_label(writer, path, "units", units);
}

static void put_integers(struct writer *writer, const char *path, const int64_t *values, size_t n)
{
    put_array(writer, path, H5T_NATIVE_INT64, n > 1 ? 1 : 0, (hsize_t[]){n}, NULL, values);
}

static void put_integer(struct writer *writer, const char *path, int64_t value)
{
    put_integers(writer, path, &value, 1);
}

static void put_text(struct writer *writer, const char *path, const char *text)
{
    hid_t type = text_type(text);
    put_array(writer, path, type, 0, NULL, NULL, text);
    H5Tclose(type);
}

static void put_link(struct writer *writer, const char *path, const char *target)
{
    writer->ok = writer->ok && H5Lcreate_hard(writer->file, target, writer->file, path, H5P_DEFAULT, H5P_DEFAULT) >= 0;
}

/* A number of each bin, such as its tau. */
static void put_of_bins(struct writer *writer, const char *path, const double *values, int n_bins, const char *units)
{
    put_array(writer, path, H5T_NATIVE_DOUBLE, 1, (hsize_t[]){(hsize_t)n_bins}, NULL, values);
    if (units)
        put_label(writer, path, "units", units);
}

static double *numbers(struct writer *writer, size_t n)
{
    double *values = calloc(n ? n : 1, sizeof *values);
    writer->ok = writer->ok && values;
    return values;
}

/* ---- /xpcs/qmap ---------------------------------------------------------------------------------------------- */

/* Bins or parts of the pixels, 0 where they are masked. */
static void put_map(struct writer *writer, const char *path, const struct result *result, const uint16_t *of_pixel)
{
    size_t n = result->info->n_rows * result->info->n_columns;
    const hsize_t shape[2] = {result->info->n_rows, result->info->n_columns};
    uint16_t *map = malloc(n * sizeof *map);
    writer->ok = writer->ok && map;
    for (size_t i = 0; writer->ok && i < n; i++)
        map[i] = result->is_masked[i] ? 0 : of_pixel[i];
    put_array(writer, path, H5T_NATIVE_UINT16, 2, shape, shape, map);
    put_label(writer, path, "units", DIMENSIONLESS);
    free(map);
}

/* 1: good, as the viewer has it. */
static void put_mask(struct writer *writer, const struct result *result)
{
    size_t n = result->info->n_rows * result->info->n_columns;
    const hsize_t shape[2] = {result->info->n_rows, result->info->n_columns};
    uint8_t *mask = malloc(n);
    writer->ok = writer->ok && mask;
    for (size_t i = 0; writer->ok && i < n; i++)
        mask[i] = !result->is_masked[i];
    put_array(writer, "/xpcs/qmap/mask", H5T_NATIVE_UINT8, 2, shape, shape, mask);
    free(mask);
}

static double pixel_size_m(const struct result *result)
{
    return result->geometry ? result->geometry->pixel_size_m[1] : result->info->pixel_size_m;
}

static void put_names(struct writer *writer, const char *path, const char *first, const char *second)
{
    char names[2][8] = {""};
    snprintf(names[0], sizeof names[0], "%s", first);
    snprintf(names[1], sizeof names[1], "%s", second);
    hid_t type = H5Tcopy(H5T_C_S1);
    H5Tset_size(type, sizeof names[0]);
    put_array(writer, path, type, 1, (hsize_t[]){2}, NULL, names);
    H5Tclose(type);
}

/* `kind` is "dynamic" or "static". */
static void put_division(struct writer *writer, const struct result *result, const char *kind,
                         const struct qmap_division *division)
{
    char path[100];
    snprintf(path, sizeof path, "/xpcs/qmap/%s_roi_map", kind);
    put_map(writer, path, result, division->of_pixel);
    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "/xpcs/qmap/%s_v_list_dim%d", kind, i);
        put_of_bins(writer, path, division->grid[i], division->n_grid[i],
                    !result->qmap->has_q ? "pixel"
                    : i                  ? "deg"
                                         : "1/angstrom");
    }
    snprintf(path, sizeof path, "/xpcs/qmap/%s_index_mapping", kind);
    put_array(writer, path, H5T_NATIVE_INT, 1, (hsize_t[]){(hsize_t)division->n}, NULL, division->cell);
    snprintf(path, sizeof path, "/xpcs/qmap/%s_num_pts", kind);
    put_integers(writer, path, (int64_t[]){division->n_grid[0], division->n_grid[1]}, 2);
}

/* As it was used: the viewer's keys know no turned detector. */
static void put_geometry(struct writer *writer, const struct qmap_geometry *geometry)
{
    put_group(writer, "/xpcs/qmap/geometry", "NXcollection");
    put_label(writer, "/xpcs/qmap/geometry", "convention", "pyFAI");
    put_number(writer, "/xpcs/qmap/geometry/distance", geometry->distance_m, "m");
    put_numbers(writer, "/xpcs/qmap/geometry/poni", geometry->poni_m, 2, 0);
    put_label(writer, "/xpcs/qmap/geometry/poni", "units", "m");
    put_numbers(writer, "/xpcs/qmap/geometry/rotation", geometry->rotation_rad, 3, 0);
    put_label(writer, "/xpcs/qmap/geometry/rotation", "units", "rad");
    put_number(writer, "/xpcs/qmap/geometry/wavelength", geometry->wavelength_angstrom, "angstrom");
    put_numbers(writer, "/xpcs/qmap/geometry/pixel_size", geometry->pixel_size_m, 2, 0);
    put_label(writer, "/xpcs/qmap/geometry/pixel_size", "units", "m");
    put_integer(writer, "/xpcs/qmap/geometry/orientation", geometry->orientation);
}

/* FNV-1a of all that makes two maps alike: the viewer keeps a map for all files of one hash. */
static void put_hash(struct writer *writer, const struct result *result)
{
    char hash[20];
    uint64_t sum = UINT64_C(14695981039346656037);
    const uint8_t *geometry = (const uint8_t *)result->geometry;
    for (size_t i = 0; i < result->info->n_rows * result->info->n_columns; i++) {
        uint64_t place = (uint64_t)result->qmap->dynamic.of_pixel[i] << 16 | result->qmap->profile.of_pixel[i];
        sum = (sum ^ (result->is_masked[i] ? 0 : place + 1)) * UINT64_C(1099511628211);
    }
    for (size_t i = 0; geometry && i < sizeof *result->geometry; i++)
        sum = (sum ^ geometry[i]) * UINT64_C(1099511628211);
    snprintf(hash, sizeof hash, "%016llx", (unsigned long long)sum);
    put_label(writer, "/xpcs/qmap", "hash", hash);
}

static void put_qmap(struct writer *writer, const struct result *result)
{
    const struct frames_info *info = result->info;
    double center_px[2] = {info->beam_center_x_px, info->beam_center_y_px}, distance_m = info->detector_distance_m;
    if (result->geometry)
        qmap_find_beam(result->geometry, info->n_rows, info->n_columns, center_px, &distance_m);
    put_group(writer, "/xpcs/qmap", "NXcollection");
    put_hash(writer, result);
    put_mask(writer, result);
    put_division(writer, result, "dynamic", &result->qmap->dynamic);
    put_division(writer, result, "static", &result->qmap->profile);
    put_number(writer, "/xpcs/qmap/beam_center_x", center_px[0], "pixel");
    put_number(writer, "/xpcs/qmap/beam_center_y", center_px[1], "pixel");
    put_number(writer, "/xpcs/qmap/detector_distance", distance_m, "m");
    put_number(writer, "/xpcs/qmap/pixel_size", pixel_size_m(result), "m");
    put_names(writer, "/xpcs/qmap/map_names", result->qmap->has_q ? "q" : "y", result->qmap->has_q ? "phi" : "x");
    put_names(writer, "/xpcs/qmap/map_units", result->qmap->has_q ? "1/A" : "pixel",
              result->qmap->has_q ? "deg" : "pixel");
    if (result->geometry)
        put_geometry(writer, result->geometry);
}

/* ---- intensities --------------------------------------------------------------------------------------------- */

/* Photons per pixel and frame of the static map's parts: of the scan, and of each segment of it. */
static void put_parts(struct writer *writer, const struct result *result)
{
    size_t n_parts = (size_t)result->qmap->profile.n, n_frames = result->all->ttcf.n_frames;
    size_t per_row = result->all->ttcf.frames_per_row, n_rows = (n_frames + per_row - 1) / per_row;
    double *means = numbers(writer, n_parts), *segments = numbers(writer, TTCF_SEGMENTS * n_parts);
    double *n_pixels = numbers(writer, n_parts);
    for (size_t i = 0; writer->ok && i < result->info->n_rows * result->info->n_columns; i++)
        if (!result->is_masked[i] && result->qmap->profile.of_pixel[i])
            n_pixels[result->qmap->profile.of_pixel[i] - 1]++;
    for (size_t s = 0; writer->ok && s < TTCF_SEGMENTS; s++) {
        size_t first = (s * n_rows + TTCF_SEGMENTS - 1) / TTCF_SEGMENTS * per_row;
        size_t end = ((s + 1) * n_rows + TTCF_SEGMENTS - 1) / TTCF_SEGMENTS * per_row;
        end = end < n_frames ? end : n_frames;
        for (size_t k = 0; k < n_parts; k++) {
            double photons = (double)result->segment_photons[s * n_parts + k];
            means[k] += photons / (n_pixels[k] * (double)n_frames);
            segments[s * n_parts + k] = photons / (n_pixels[k] * (double)(end - first));
        }
    }
    put_numbers(writer, "/xpcs/temporal_mean/scattering_1d", means, 1, n_parts);
    put_numbers(writer, "/xpcs/temporal_mean/scattering_1d_segments", segments, TTCF_SEGMENTS, n_parts);
    free(means);
    free(segments);
    free(n_pixels);
}

static void put_means(struct writer *writer, const struct result *result)
{
    const struct ttcf *ttcf = &result->all->ttcf;
    size_t n = result->info->n_rows * result->info->n_columns, n_rows = ttcf->n_rows;
    const hsize_t shape[3] = {1, result->info->n_rows, result->info->n_columns};
    double *in_time = numbers(writer, 2 * n_rows);
    float *image = malloc(n * sizeof *image);
    writer->ok = writer->ok && image;
    for (size_t i = 0; writer->ok && i < n; i++)
        image[i] = (float)result->photon_image[i] / (float)ttcf->n_frames;
    for (size_t t = 0; writer->ok && t < n_rows; t++) {
        in_time[t] = (double)(t * ttcf->frames_per_row);
        in_time[n_rows + t] = ttcf->photons_per_row[t] / (double)(ttcf->n_pixels * ttcf->frames_per_row);
    }
    put_group(writer, "/xpcs/temporal_mean", "NXcollection");
    /* As it is: to compress its noise takes longer than the fits, for half the size. */
    put_array(writer, "/xpcs/temporal_mean/scattering_2d", H5T_NATIVE_FLOAT, 3, shape, NULL, image);
    put_label(writer, "/xpcs/temporal_mean/scattering_2d", "units", "photons per frame");
    put_parts(writer, result);
    put_group(writer, "/xpcs/spatial_mean", "NXcollection");
    put_numbers(writer, "/xpcs/spatial_mean/intensity_vs_time", in_time, 2, n_rows);
    free(in_time);
    free(image);
}

/* ---- correlations -------------------------------------------------------------------------------------------- */

/* A bin's values of its curve at the ranges of lags that the curve of all bins has, as one column; NaN where there is
 * none. */
static void fill_column(const struct result *result, int b, const double *values, double *ret_column)
{
    const struct isf_curve *all = &result->all->curve, *own = &result->bins[b].curve;
    for (int i = 0, k = 0; i < all->n; i++) {
        while (k < own->n && own->range[k] < all->range[i])
            k++;
        bool is_there = result->bins[b].is_correlated && k < own->n && own->range[k] == all->range[i];
        ret_column[i * result->n_bins + b] = is_there ? values[k] : NAN;
    }
}

/* g2 and its noise (pair statistics alone) of one bin in slices of the waiting time. */
static void fill_ages(const struct result *result, int b, double *ret_g2, double *ret_sigma)
{
    const struct isf_curve *all = &result->all->curve;
    const struct ttcf *ttcf = &result->bins[b].ttcf;
    for (int a = 0; a < result->all->ttcf.n_ages; a++)
        for (int i = 0; i < all->n; i++) {
            struct ttcf_range range = {0};
            if (result->bins[b].is_correlated)
                range = ttcf->age[a][all->range[i]];
            int at = (a * all->n + i) * result->n_bins + b;
            ret_g2[at] = range.pairs_expected > 0.0 ? range.pairs / range.pairs_expected : NAN;
            ret_sigma[at] = range.pairs_expected > 0.0 ? 1.0 / sqrt(range.pairs_expected) : NAN;
        }
}

static void put_ages(struct writer *writer, const struct result *result)
{
    const struct ttcf *all = &result->all->ttcf;
    size_t n_ages = (size_t)all->n_ages, n = (size_t)result->all->curve.n, n_bins = (size_t)result->n_bins;
    double *g2 = numbers(writer, n_ages * n * n_bins), *sigma = numbers(writer, n_ages * n * n_bins);
    double middle_s[TTCF_AGES_MAX];
    char labels[TTCF_AGES_MAX][24] = {""};
    for (int b = 0; writer->ok && b < result->n_bins; b++)
        fill_ages(result, b, g2, sigma);
    for (size_t a = 0; a < n_ages; a++) {
        middle_s[a] = 0.5 * (double)(all->age_first[a] + all->age_first[a + 1]) * result->info->frame_time_s;
        snprintf(labels[a], sizeof labels[a], "%zu-%zu", all->age_first[a], all->age_first[a + 1] - 1);
    }
    const hsize_t shape[3] = {n_ages, n, n_bins};
    hid_t type = H5Tcopy(H5T_C_S1);
    H5Tset_size(type, sizeof labels[0]);
    put_array(writer, "/xpcs/multitau/normalized_g2_partial", H5T_NATIVE_DOUBLE, 3, shape, NULL, g2);
    put_array(writer, "/xpcs/multitau/normalized_g2_partial_err", H5T_NATIVE_DOUBLE, 3, shape, NULL, sigma);
    put_array(writer, "/xpcs/multitau/normalized_g2_partial_labels", type, 1, shape, NULL, labels);
    put_numbers(writer, "/xpcs/multitau/waiting_time_s", middle_s, n_ages, 0);
    H5Tclose(type);
    free(g2);
    free(sigma);
}

static void put_curves(struct writer *writer, const struct result *result)
{
    const struct isf_curve *all = &result->all->curve;
    size_t n = (size_t)all->n, n_bins = (size_t)result->n_bins;
    double delay_frames[ISF_BINS_MAX], *g2 = numbers(writer, n * n_bins), *sigma = numbers(writer, n * n_bins);
    for (size_t i = 0; i < n; i++)
        delay_frames[i] = all->lag_s[i] / result->info->frame_time_s;
    for (int b = 0; writer->ok && b < result->n_bins; b++) {
        fill_column(result, b, result->bins[b].curve.g2, g2);
        fill_column(result, b, result->bins[b].curve.g2_sigma, sigma);
    }
    put_group(writer, "/xpcs/multitau", "NXcollection");
    put_group(writer, "/xpcs/multitau/config", "NXcollection");
    put_integer(writer, "/xpcs/multitau/config/stride_frame", 1);
    put_integer(writer, "/xpcs/multitau/config/avg_frame", 1);
    put_numbers(writer, "/xpcs/multitau/delay_list", delay_frames, n, 0);
    put_label(writer, "/xpcs/multitau/delay_list", "units", "frames");
    put_numbers(writer, "/xpcs/multitau/delay_s", all->lag_s, n, 0);
    put_label(writer, "/xpcs/multitau/delay_s", "units", "s");
    put_numbers(writer, "/xpcs/multitau/normalized_g2", g2, n, n_bins);
    put_label(writer, "/xpcs/multitau/normalized_g2", "storage_mode", "one_array");
    put_label(writer, "/xpcs/multitau/normalized_g2", "units", DIMENSIONLESS);
    put_numbers(writer, "/xpcs/multitau/normalized_g2_err", sigma, n, n_bins);
    put_label(writer, "/xpcs/multitau/normalized_g2_err", "storage_mode", "one_array");
    put_label(writer, "/xpcs/multitau/normalized_g2_err", "units", DIMENSIONLESS);
    put_group(writer, "/xpcs/multitau/all", "NXcollection");
    put_numbers(writer, "/xpcs/multitau/all/g2", all->g2, n, 0);
    put_numbers(writer, "/xpcs/multitau/all/g2_err", all->g2_sigma, n, 0);
    if (result->all->ttcf.n_ages > 1)
        put_ages(writer, result);
    free(g2);
    free(sigma);
}

/* One number per lag and bin of what `field` of struct ttcf points to. */
static void put_lags_of_bins(struct writer *writer, const struct result *result, const char *path, size_t field)
{
    size_t n = result->all->ttcf.n_rows, n_bins = (size_t)result->n_bins;
    double *values = numbers(writer, n * n_bins);
    for (size_t b = 0; writer->ok && b < n_bins; b++) {
        const double *own = *(double *const *)((const char *)&result->bins[b].ttcf + field);
        for (size_t lag = 0; lag < n; lag++)
            values[lag * n_bins + b] = own ? own[lag] : NAN;
    }
    put_numbers(writer, path, values, n, n_bins);
    free(values);
}

static void put_every_lag(struct writer *writer, const struct result *result)
{
    const struct ttcf *all = &result->all->ttcf;
    put_group(writer, "/xpcs/every_lag", "NXcollection");
    put_numbers(writer, "/xpcs/every_lag/g2", all->g2, all->n_rows, 0);
    put_label(writer, "/xpcs/every_lag/g2", "convention",
              "ratio of sums over t; index is the lag in rows of /process/frames_per_row frames");
    put_numbers(writer, "/xpcs/every_lag/g2_mean", all->g2_mean, all->n_rows, 0);
    put_label(writer, "/xpcs/every_lag/g2_mean", "convention", "mean over t of C(t, t + lag); lag 0 holds shot noise");
    put_numbers(writer, "/xpcs/every_lag/pairs_expected", all->pairs_expected, all->n_rows, 0);
    put_group(writer, "/xpcs/every_lag/bins", "NXcollection");
    put_lags_of_bins(writer, result, "/xpcs/every_lag/bins/g2", offsetof(struct ttcf, g2));
    put_lags_of_bins(writer, result, "/xpcs/every_lag/bins/g2_mean", offsetof(struct ttcf, g2_mean));
    put_lags_of_bins(writer, result, "/xpcs/every_lag/bins/pairs_expected", offsetof(struct ttcf, pairs_expected));
}

/* The full upper half, a band of tiles at a time: what lies left of the band's first tile is never written. The matrix
 * stands column by column, so each tile is turned round on its way. */
static void put_matrix(struct writer *writer, const char *path, const struct ttcf *ttcf)
{
    hsize_t n = ttcf->n_rows, edge = n < MATRIX_TILE ? n : MATRIX_TILE;
    float *band = calloc(edge * n, sizeof *band);
    writer->ok = writer->ok && band;
    if (!writer->ok)
        return;
    hid_t space = H5Screate_simple(2, (hsize_t[]){n, n}, NULL), properties = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_chunk(properties, 2, (hsize_t[]){edge, edge});
    hid_t dataset = H5Dcreate2(writer->file, path, H5T_NATIVE_FLOAT, space, H5P_DEFAULT, properties, H5P_DEFAULT);
    writer->ok = dataset >= 0;
    for (hsize_t first = 0; writer->ok && first < n; first += edge) {
        hsize_t n_lines = n - first < edge ? n - first : edge, n_columns = n - first;
        memset(band, 0, n_lines * n_columns * sizeof *band);
        for (hsize_t tile = 0; tile < n_columns; tile += edge)
            for (hsize_t j = tile; j < n_columns && j < tile + edge; j++) {
                const float *column = ttcf->matrix + (first + j) * (first + j + 1) / 2 + first;
                for (hsize_t i = 0; i < n_lines && i <= j; i++)
                    band[i * n_columns + j] = column[i];
            }
        hid_t memory = H5Screate_simple(2, (hsize_t[]){n_lines, n_columns}, NULL);
        H5Sselect_hyperslab(space, H5S_SELECT_SET, (hsize_t[]){first, first}, NULL, (hsize_t[]){n_lines, n_columns},
                            NULL);
        writer->ok = H5Dwrite(dataset, H5T_NATIVE_FLOAT, memory, space, H5P_DEFAULT, band) >= 0;
        H5Sclose(memory);
    }
    H5Dclose(dataset);
    H5Pclose(properties);
    H5Sclose(space);
    free(band);
}

/* g2 at the resolution of the map: means along its diagonals, as one column. */
static void fill_map_g2(const struct ttcf *ttcf, double *ret_g2, size_t n_columns)
{
    size_t n = ttcf->map_n;
    for (size_t lag = 0; lag < n; lag++) {
        size_t n_cells = 0;
        double sum = 0.0;
        for (size_t i = 0; i + lag < n; i++) {
            float c = ttcf->map[i * n + i + lag];
            sum += isnan(c) ? 0.0 : (double)c;
            n_cells += isnan(c) ? 0 : 1;
        }
        ret_g2[lag * n_columns] = n_cells ? sum / (double)n_cells : NAN;
    }
}

/* g2 beside the matrices of the bins in `processed`, at their resolution. */
static void put_matrix_g2(struct writer *writer, const struct result *result, const int64_t *processed,
                          size_t n_processed, bool is_full)
{
    size_t n = is_full ? result->all->ttcf.n_rows : result->bins[processed[0] - 1].ttcf.map_n;
    double *g2 = numbers(writer, n * n_processed);
    for (size_t k = 0; writer->ok && k < n_processed; k++) {
        const struct ttcf *ttcf = &result->bins[processed[k] - 1].ttcf;
        if (!is_full)
            fill_map_g2(ttcf, g2 + k, n_processed);
        for (size_t lag = 0; is_full && lag < n; lag++)
            g2[lag * n_processed + k] = ttcf->g2_mean[lag];
    }
    put_numbers(writer, "/xpcs/twotime/normalized_g2", g2, n, n_processed);
    put_array(writer, "/xpcs/twotime/normalized_g2_segments", H5T_NATIVE_DOUBLE, 3, (hsize_t[]){n, 1, n_processed},
              NULL, g2);
    free(g2);
}

static void label_matrix(struct writer *writer, const char *path, const char *storage_mode)
{
    put_label(writer, path, "storage_mode", storage_mode);
    put_label(writer, path, "time_origin_location", "upper_left");
    put_label(writer, path, "populated_elements", "upper_half");
    put_label(writer, path, "units", DIMENSIONLESS);
    put_attribute(writer, path, "baseline_reference", H5T_NATIVE_INT, &(int){1});
}

static void put_binned_map(struct writer *writer, const char *path, const struct ttcf *ttcf)
{
    const hsize_t n = ttcf->map_n, edge = n < MATRIX_TILE ? n : MATRIX_TILE;
    put_array(writer, path, H5T_NATIVE_FLOAT, 2, (hsize_t[]){n, n}, (hsize_t[]){edge, edge}, ttcf->map);
}

#define MAP_FOLDER "/xpcs/twotime/correlation_map"
#define FULL_FOLDER "/xpcs/twotime/full_map"

/* All maps of the folder that viewers read have one size: full ones stand there only when every bin has one. */
static void put_twotime(struct writer *writer, const struct result *result)
{
    int64_t processed[TTCF_BINS_MAX];
    size_t n_processed = 0, n_full = 0;
    for (int b = 0; b < result->n_bins; b++) {
        n_full += result->bins[b].ttcf.matrix != NULL;
        if (result->bins[b].is_correlated)
            processed[n_processed++] = b + 1;
    }
    bool is_full = n_full == n_processed;
    const struct ttcf *first = &result->bins[processed[0] - 1].ttcf;
    put_group(writer, "/xpcs/twotime", "NXcollection");
    put_group(writer, "/xpcs/twotime/config", "NXcollection");
    put_integer(writer, "/xpcs/twotime/config/stride_frame", 1);
    put_integer(writer, "/xpcs/twotime/config/avg_frame",
                (int64_t)(first->frames_per_row * (is_full ? 1 : first->map_binning)));
    put_array(writer, "/xpcs/twotime/processed_bins", H5T_NATIVE_INT64, 1, (hsize_t[]){n_processed}, NULL, processed);
    put_group(writer, MAP_FOLDER, "NXcollection");
    if (n_full > 0 && !is_full)
        put_group(writer, FULL_FOLDER, "NXcollection");
    for (size_t k = 0; k < n_processed; k++) {
        char path[100];
        const struct ttcf *ttcf = &result->bins[processed[k] - 1].ttcf;
        snprintf(path, sizeof path, "%s/c2_%05d", MAP_FOLDER, (int)processed[k]);
        if (!is_full) {
            put_binned_map(writer, path, ttcf);
            label_matrix(writer, path, "other");
            snprintf(path, sizeof path, "%s/c2_%05d", FULL_FOLDER, (int)processed[k]);
        }
        if (ttcf->matrix) {
            put_matrix(writer, path, ttcf);
            label_matrix(writer, path, "other");
        }
    }
    put_matrix_g2(writer, result, processed, n_processed, is_full);
}

/* ---- /xpcs/fit ----------------------------------------------------------------------------------------------- */

/* The numbers of a fit, by the names that they have everywhere. */
static const struct {
    const char *name, *units;
    size_t offset;
} fit_numbers[] = {
    {"tau_s", "s", offsetof(struct isf_fit, tau_s)},
    {"tau_s_sigma", "s", offsetof(struct isf_fit, tau_s_sigma)},
    {"beta", NULL, offsetof(struct isf_fit, beta)},
    {"beta_sigma", NULL, offsetof(struct isf_fit, beta_sigma)},
    {"contrast", NULL, offsetof(struct isf_fit, contrast)},
    {"contrast_sigma", NULL, offsetof(struct isf_fit, contrast_sigma)},
    {"baseline", NULL, offsetof(struct isf_fit, baseline)},
    {"baseline_sigma", NULL, offsetof(struct isf_fit, baseline_sigma)},
    {"chi2_reduced", NULL, offsetof(struct isf_fit, chi2_reduced)},
};

#define FIT_NUMBERS (sizeof fit_numbers / sizeof fit_numbers[0])

static double fit_number(const struct isf_fit *fit, size_t i)
{
    return *(const double *)((const char *)fit + fit_numbers[i].offset);
}

static void put_reasons(struct writer *writer, const struct result *result)
{
    enum { SIZE = sizeof result->bins[0].reason };
    char *reasons = calloc((size_t)result->n_bins, SIZE);
    hid_t type = H5Tcopy(H5T_C_S1);
    writer->ok = writer->ok && reasons;
    for (int b = 0; writer->ok && b < result->n_bins; b++)
        if (!result->bins[b].is_fitted)
            memcpy(reasons + (size_t)b * SIZE, result->bins[b].reason, SIZE);
    H5Tset_size(type, SIZE);
    H5Tset_cset(type, H5T_CSET_UTF8);
    const hsize_t n = (hsize_t)result->n_bins;
    put_array(writer, "/xpcs/fit/bins/reason", type, 1, &n, &n, reasons);
    H5Tclose(type);
    free(reasons);
}

/* What each bin is. */
static void put_places(struct writer *writer, const struct result *result)
{
    double q[TTCF_BINS_MAX], phi[TTCF_BINS_MAX], n_pixels[TTCF_BINS_MAX], n_photons[TTCF_BINS_MAX];
    double n_effective[TTCF_BINS_MAX], has_matrix[TTCF_BINS_MAX];
    for (int b = 0; b < result->n_bins; b++) {
        const struct ttcf *ttcf = &result->bins[b].ttcf;
        q[b] = result->qmap->has_q ? result->qmap->bins[b].q_mean : NAN;
        phi[b] = result->qmap->has_q ? result->qmap->bins[b].phi_mean : NAN;
        n_pixels[b] = (double)ttcf->n_pixels;
        n_photons[b] = (double)ttcf->n_photons;
        n_effective[b] = ttcf->n_pixels_effective;
        has_matrix[b] = ttcf->matrix ? 1.0 : 0.0;
    }
    put_of_bins(writer, "/xpcs/fit/bins/q_inv_angstrom", q, result->n_bins, "1/angstrom");
    put_of_bins(writer, "/xpcs/fit/bins/phi_deg", phi, result->n_bins, "deg");
    put_of_bins(writer, "/xpcs/fit/bins/n_pixels", n_pixels, result->n_bins, NULL);
    put_of_bins(writer, "/xpcs/fit/bins/n_pixels_effective", n_effective, result->n_bins, NULL);
    put_of_bins(writer, "/xpcs/fit/bins/n_photons", n_photons, result->n_bins, NULL);
    put_of_bins(writer, "/xpcs/fit/bins/has_matrix", has_matrix, result->n_bins, NULL);
}

static void put_fits_of_bins(struct writer *writer, const struct result *result)
{
    double values[TTCF_BINS_MAX];
    size_t n = (size_t)result->all->curve.n, n_bins = (size_t)result->n_bins;
    double *model = numbers(writer, n * n_bins);
    put_group(writer, "/xpcs/fit/bins", "NXcollection");
    put_places(writer, result);
    for (size_t i = 0; i < FIT_NUMBERS; i++) {
        char path[100];
        snprintf(path, sizeof path, "/xpcs/fit/bins/%s", fit_numbers[i].name);
        for (int b = 0; b < result->n_bins; b++)
            values[b] = result->bins[b].is_fitted ? fit_number(&result->bins[b].fit, i) : NAN;
        put_of_bins(writer, path, values, result->n_bins, fit_numbers[i].units);
    }
    for (size_t b = 0; b < n_bins; b++)
        values[b] = result->bins[b].is_fitted ? (double)result->bins[b].fit.is_degenerate : NAN;
    put_of_bins(writer, "/xpcs/fit/bins/is_degenerate", values, result->n_bins, NULL);
    for (size_t i = 0; writer->ok && i < n; i++)
        for (size_t b = 0; b < n_bins; b++)
            model[i * n_bins + b] =
                result->bins[b].is_fitted ? isf_model(&result->bins[b].fit, result->all->curve.lag_s[i]) : NAN;
    put_numbers(writer, "/xpcs/fit/bins/g2_model", model, n, n_bins);
    put_reasons(writer, result);
    free(model);
}

static void put_fit(struct writer *writer, const struct result *result)
{
    const struct result_bin *all = result->all;
    put_group(writer, "/xpcs/fit", "NXcollection");
    put_label(writer, "/xpcs/fit", "convention", CONVENTION);
    put_fits_of_bins(writer, result);
    if (!all->is_fitted) {
        put_label(writer, "/xpcs/fit", "reason", all->reason);
        return;
    }
    double model[ISF_BINS_MAX];
    for (int i = 0; i < all->curve.n; i++)
        model[i] = isf_model(&all->fit, all->curve.lag_s[i]);
    for (size_t i = 0; i < FIT_NUMBERS; i++) {
        char path[100];
        snprintf(path, sizeof path, "/xpcs/fit/%s", fit_numbers[i].name);
        put_number(writer, path, fit_number(&all->fit, i), fit_numbers[i].units);
    }
    put_integer(writer, "/xpcs/fit/is_degenerate", all->fit.is_degenerate);
    put_numbers(writer, "/xpcs/fit/g2_model", model, (size_t)all->curve.n, 0);
}

/* ---- /entry -------------------------------------------------------------------------------------------------- */

static void put_instrument(struct writer *writer, const struct result *result)
{
    const struct frames_info *info = result->info;
    double energy_ev = result->geometry ? qmap_photon_energy_ev(result->geometry) : info->photon_energy_ev;
    put_group(writer, "/entry/instrument", "NXinstrument");
    put_group(writer, "/entry/instrument/incident_beam", "NXbeam");
    put_number(writer, "/entry/instrument/incident_beam/incident_energy", energy_ev * 1e-3, "keV");
    put_group(writer, "/entry/instrument/detector_1", "NXdetector");
    put_number(writer, "/entry/instrument/detector_1/frame_time", info->frame_time_s, "s");
    put_number(writer, "/entry/instrument/detector_1/count_time", info->count_time_s, "s");
    put_number(writer, "/entry/instrument/detector_1/x_pixel_size", pixel_size_m(result), "m");
    put_number(writer, "/entry/instrument/detector_1/y_pixel_size",
               result->geometry ? result->geometry->pixel_size_m[0] : info->pixel_size_m, "m");
    put_link(writer, "/entry/instrument/detector_1/beam_center_x", "/xpcs/qmap/beam_center_x");
    put_link(writer, "/entry/instrument/detector_1/beam_center_y", "/xpcs/qmap/beam_center_y");
    put_link(writer, "/entry/instrument/detector_1/distance", "/xpcs/qmap/detector_distance");
    put_group(writer, "/entry/instrument/masks", "NXnote");
    put_link(writer, "/entry/instrument/masks/dynamic_roi_map", "/xpcs/qmap/dynamic_roi_map");
    put_link(writer, "/entry/instrument/masks/dynamic_q_list", "/xpcs/qmap/dynamic_v_list_dim0");
    put_link(writer, "/entry/instrument/masks/dynamic_phi_list", "/xpcs/qmap/dynamic_v_list_dim1");
    put_link(writer, "/entry/instrument/masks/static_roi_map", "/xpcs/qmap/static_roi_map");
    put_link(writer, "/entry/instrument/masks/static_q_list", "/xpcs/qmap/static_v_list_dim0");
    put_link(writer, "/entry/instrument/masks/mask", "/xpcs/qmap/mask");
    put_group(writer, "/entry/instrument/bluesky", "NXcollection"); /* pyXpcsViewer's mark of this layout */
    put_group(writer, "/entry/instrument/bluesky/metadata", "NXcollection");
}

static void put_process(struct writer *writer, const struct result *result)
{
    const struct ttcf *all = &result->all->ttcf;
    char date[40], parameters[400];
    time_t now = time(NULL);
    struct tm utc;
    gmtime_r(&now, &utc);
    strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%S+00:00", &utc);
    snprintf(parameters, sizeof parameters,
             "frames %zu to %zu of the series, counted from 0; %d bins of %zu pixels together, normalised by the mean "
             "intensity in %d parts; errors by jackknife over %d pixel groups; %s",
             result->first_frame, result->first_frame + all->n_frames - 1, result->n_bins, all->n_pixels,
             result->qmap->profile.n, TTCF_GROUPS, CONVENTION);
    put_group(writer, "/process", "NXprocess");
    put_text(writer, "/process/program", PROGRAM);
    put_text(writer, "/process/version", VERSION);
    put_text(writer, "/process/date", date);
    put_text(writer, "/process/master", result->master_path);
    put_text(writer, "/process/parameters", parameters);
    put_integer(writer, "/process/n_frames", (int64_t)all->n_frames);
    put_integer(writer, "/process/n_pixels", (int64_t)all->n_pixels);
    put_integer(writer, "/process/n_photons", (int64_t)all->n_photons);
    put_integer(writer, "/process/n_hot_pixels", (int64_t)result->n_hot_pixels);
    put_integer(writer, "/process/n_dead_pixels", (int64_t)result->n_dead_pixels);
    put_integer(writer, "/process/n_hits", (int64_t)result->n_hits);
    put_integer(writer, "/process/n_hit_photons", (int64_t)result->n_hit_photons);
    put_integer(writer, "/process/frames_per_row", (int64_t)all->frames_per_row);
    put_integer(writer, "/process/n_empty_rows", (int64_t)all->n_empty_rows);
    put_link(writer, "/entry/process", "/process");
}

/* The number at the end of the series' name, before _master.h5; NXxpcs wants one: 0 when the name has none. */
static int64_t series_number(const char *name)
{
    const char *end = strstr(name, "_master"), *first = end;
    while (first && first > name && first[-1] >= '0' && first[-1] <= '9')
        first--;
    return first ? strtoll(first, NULL, 10) : 0;
}

/* What a viewer shows first: g2 of all bins together over the delay. */
static void put_plot(struct writer *writer, const struct result *result)
{
    put_group(writer, "/entry/data", "NXdata");
    put_label(writer, "/entry/data", "signal", "g2_all");
    put_label(writer, "/entry/data", "axes", "delay_s");
    put_label(writer, "/entry/data", "SILX_style", "{\"axes_scale_types\": [\"log\"]}");
    put_label(writer, "/entry/data", "title", result->n_bins > 1 ? "g2 of all bins together" : "g2");
    put_link(writer, "/entry/data/g2_all", "/xpcs/multitau/all/g2");
    put_link(writer, "/entry/data/g2_all_errors", "/xpcs/multitau/all/g2_err");
    put_link(writer, "/entry/data/g2", "/xpcs/multitau/normalized_g2");
    put_link(writer, "/entry/data/g2_derr", "/xpcs/multitau/normalized_g2_err");
    put_link(writer, "/entry/data/delay_difference", "/xpcs/multitau/delay_list");
    put_link(writer, "/entry/data/delay_s", "/xpcs/multitau/delay_s");
    put_link(writer, "/entry/data/frame_average", "/xpcs/temporal_mean/scattering_2d");
    put_label(writer, "/xpcs/temporal_mean/scattering_2d", "storage_mode", "one_array");
}

/* One dataset [n_maps, n, n] that shows the n_maps maps of the folder, which stay where they are. */
static void put_virtual_maps(struct writer *writer, const char *path, const int *bins, hsize_t n_maps, hsize_t n)
{
    const hsize_t shape[3] = {n_maps, n, n};
    hid_t whole = H5Screate_simple(3, shape, NULL), one = H5Screate_simple(2, shape + 1, NULL);
    hid_t properties = H5Pcreate(H5P_DATASET_CREATE);
    for (hsize_t k = 0; k < n_maps; k++) {
        char source[100];
        snprintf(source, sizeof source, MAP_FOLDER "/c2_%05d", bins[k]);
        H5Sselect_hyperslab(whole, H5S_SELECT_SET, (hsize_t[]){k, 0, 0}, NULL, (hsize_t[]){1, n, n}, NULL);
        writer->ok = writer->ok && H5Pset_virtual(properties, whole, ".", source, one) >= 0;
    }
    H5Sselect_all(whole);
    hid_t dataset =
        writer->ok ? H5Dcreate2(writer->file, path, H5T_NATIVE_FLOAT, whole, H5P_DEFAULT, properties, H5P_DEFAULT) : -1;
    writer->ok = dataset >= 0;
    if (dataset >= 0)
        H5Dclose(dataset);
    H5Pclose(properties);
    H5Sclose(one);
    H5Sclose(whole);
}

static void put_matrices(struct writer *writer, const struct result *result)
{
    int bins[TTCF_BINS_MAX];
    hsize_t n_maps = 0, n = 0;
    bool is_full = true;
    for (int b = 0; b < result->n_bins; b++)
        if (result->bins[b].is_correlated) {
            is_full = is_full && result->bins[b].ttcf.matrix;
            n = is_full ? result->bins[b].ttcf.n_rows : result->bins[b].ttcf.map_n;
            bins[n_maps++] = b + 1;
        }
    put_group(writer, "/entry/twotime", "NXdata");
    put_label(writer, "/entry/twotime", "signal", "two_time_corr_func");
    if (n_maps > 1) {
        put_virtual_maps(writer, "/entry/twotime/two_time_corr_func", bins, n_maps, n);
        label_matrix(writer, "/entry/twotime/two_time_corr_func", "one_array_q_first");
        put_label(writer, "/entry/twotime/two_time_corr_func", "interpretation", "image");
    } else {
        char source[100];
        snprintf(source, sizeof source, MAP_FOLDER "/c2_%05d", bins[0]);
        put_link(writer, "/entry/twotime/two_time_corr_func", source);
    }
    put_link(writer, "/entry/twotime/g2_from_two_time_corr_func", "/xpcs/twotime/normalized_g2");
    put_label(writer, "/xpcs/twotime/normalized_g2", "storage_mode", "one_array_q_last");
    put_label(writer, "/xpcs/twotime/normalized_g2", "units", DIMENSIONLESS);
    put_attribute(writer, "/xpcs/twotime/normalized_g2", "baseline_reference", H5T_NATIVE_INT, &(int){1});
    put_attribute(writer, "/xpcs/twotime/normalized_g2", "first_point_for_fit", H5T_NATIVE_INT, &(int){1});
}

static void put_entry(struct writer *writer, const struct result *result)
{
    const char *slash = strrchr(result->master_path, '/'), *name = slash ? slash + 1 : result->master_path;
    put_label(writer, "/", "default", "entry");
    put_label(writer, "/", "creator", PROGRAM);
    put_group(writer, "/entry", "NXentry");
    put_label(writer, "/entry", "default", "data");
    put_text(writer, "/entry/definition", "NXxpcs");
    put_text(writer, "/entry/entry_identifier", name);
    put_integer(writer, "/entry/scan_number", series_number(name));
    put_text(writer, "/entry/start_time", result->info->start_time);
    put_instrument(writer, result);
    put_process(writer, result);
    put_plot(writer, result);
    put_matrices(writer, result);
}

/* ---- from memory to disk ------------------------------------------------------------------------------------- */

static void put_result(struct writer *writer, const struct result *result)
{
    put_group(writer, "/xpcs", "NXcollection");
    put_qmap(writer, result);
    put_means(writer, result);
    put_curves(writer, result);
    put_every_lag(writer, result);
    put_twotime(writer, result);
    put_fit(writer, result);
    put_entry(writer, result);
}

/* HDF5 writes into memory only: on a full disk it would fail in the middle of closing, and crash at exit. */
static int make_image(const struct result *result, void **ret_image, size_t *ret_size, struct err *err)
{
    hid_t access = H5Pcreate(H5P_FILE_ACCESS);
    H5Pset_fapl_core(access, IMAGE_GROWTH_BYTES, 0);
    struct writer writer = {.file = H5Fcreate("result", H5F_ACC_TRUNC, H5P_DEFAULT, access)};
    H5Pclose(access);
    writer.ok = writer.file >= 0;
    put_result(&writer, result);
    ssize_t size =
        writer.ok && H5Fflush(writer.file, H5F_SCOPE_GLOBAL) >= 0 ? H5Fget_file_image(writer.file, NULL, 0) : 0;
    void *image = size > 0 ? malloc((size_t)size) : NULL;
    bool is_whole = image && H5Fget_file_image(writer.file, image, (size_t)size) == size;
    if (writer.file >= 0)
        H5Fclose(writer.file);
    if (!is_whole) {
        free(image);
        return err_set(err, ERR_SYSTEM, "the result of %s cannot be put together: no memory, or HDF5 refused",
                       result->master_path);
    }
    *ret_image = image;
    *ret_size = (size_t)size;
    return 0;
}

/* Returns 0 or the errno of what failed. */
static int write_image(const char *path, const uint8_t *image, size_t size)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666), cause = 0;
    if (fd < 0)
        return errno;
    for (size_t done = 0; done < size && !cause;) {
        ssize_t n = write(fd, image + done, size - done);
        if (n >= 0)
            done += (size_t)n;
        else if (errno != EINTR)
            cause = errno;
    }
    if (!cause && fsync(fd) != 0)
        cause = errno;
    if (close(fd) != 0 && !cause)
        cause = errno;
    return cause;
}

int result_file_write(const char *path, const struct result *result, struct err *err)
{
    char unfinished[1100];
    if (snprintf(unfinished, sizeof unfinished, "%s.part-%d", path, (int)getpid()) >= (int)sizeof unfinished)
        return err_set(err, ERR_IO, "result file not written: its name of %zu letters is too long", strlen(path));
    void *image = NULL;
    size_t size = 0;
    int code = make_image(result, &image, &size, err);
    if (code)
        return code;
    int cause = write_image(unfinished, image, size);
    if (!cause && rename(unfinished, path) != 0)
        cause = errno;
    free(image);
    if (!cause)
        return 0;
    unlink(unfinished);
    return err_set(err, ERR_IO,
                   "result file %s of %.1f MB cannot be written: %s; nothing was left behind; check the folder and its "
                   "free space, then run the analysis again",
                   path, (double)size * 1e-6, strerror(cause));
}
