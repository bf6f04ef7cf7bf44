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
#define SEGMENTS 10     /* of the scan, for the viewer's stability plot */
#define MATRIX_TILE 256 /* edge of a chunk of the full matrix: tiles below the diagonal are never written */
#define IMAGE_GROWTH_BYTES 4194304
#define KEV_ANGSTROM 12.398419843320026 /* h c, CODATA */
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

static double *numbers(struct writer *writer, size_t n)
{
    double *values = calloc(n ? n : 1, sizeof *values);
    writer->ok = writer->ok && values;
    return values;
}

/* ---- /xpcs/qmap ---------------------------------------------------------------------------------------------- */

/* Mean over the valid pixels, 1/angstrom; NaN when the master tells no energy or distance. */
static double mean_q(const struct result *result)
{
    const struct frames_info *info = result->info;
    double sum = 0.0, wavenumber = 2.0 * M_PI * info->photon_energy_ev * 1e-3 / KEV_ANGSTROM;
    size_t n = 0;
    for (size_t i = 0; i < info->n_rows * info->n_columns; i++) {
        if (result->is_masked[i])
            continue;
        double x = (double)(i % info->n_columns) - info->beam_center_x_px;
        double y = (double)(i / info->n_columns) - info->beam_center_y_px;
        double two_theta = atan2(hypot(x, y) * info->pixel_size_m, info->detector_distance_m);
        sum += 2.0 * wavenumber * sin(two_theta / 2.0);
        n++;
    }
    return wavenumber > 0.0 && info->detector_distance_m > 0.0 ? sum / (double)n : NAN;
}

static void put_mask(struct writer *writer, const struct result *result)
{
    size_t n = result->info->n_rows * result->info->n_columns;
    const hsize_t shape[2] = {result->info->n_rows, result->info->n_columns};
    int32_t *mask = malloc(n * sizeof *mask);
    writer->ok = writer->ok && mask;
    for (size_t i = 0; writer->ok && i < n; i++)
        mask[i] = result->is_masked[i] == 0;
    put_array(writer, "/xpcs/qmap/mask", H5T_NATIVE_INT32, 2, shape, shape, mask);
    free(mask);
    put_link(writer, "/xpcs/qmap/dynamic_roi_map", "/xpcs/qmap/mask"); /* one bin, number 1 */
    put_link(writer, "/xpcs/qmap/static_roi_map", "/xpcs/qmap/mask");
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

static void put_qmap(struct writer *writer, const struct result *result)
{
    const struct frames_info *info = result->info;
    double q = mean_q(result), phi = 0.0;
    char hash[200];
    uint64_t mask_hash = UINT64_C(14695981039346656037); /* FNV-1a: the viewer's key for maps that are alike */
    for (size_t i = 0; i < info->n_rows * info->n_columns; i++)
        mask_hash = (mask_hash ^ (result->is_masked[i] == 0)) * UINT64_C(1099511628211);
    snprintf(hash, sizeof hash, "%016llx-%.9g-%.9g-%.9g-%.9g", (unsigned long long)mask_hash, info->beam_center_x_px,
             info->beam_center_y_px, info->detector_distance_m, info->photon_energy_ev);
    put_group(writer, "/xpcs/qmap", "NXcollection");
    put_label(writer, "/xpcs/qmap", "hash", hash);
    put_mask(writer, result);
    put_array(writer, "/xpcs/qmap/dynamic_v_list_dim0", H5T_NATIVE_DOUBLE, 1, (hsize_t[]){1}, NULL, &q);
    put_array(writer, "/xpcs/qmap/dynamic_v_list_dim1", H5T_NATIVE_DOUBLE, 1, (hsize_t[]){1}, NULL, &phi);
    put_link(writer, "/xpcs/qmap/static_v_list_dim0", "/xpcs/qmap/dynamic_v_list_dim0");
    put_link(writer, "/xpcs/qmap/static_v_list_dim1", "/xpcs/qmap/dynamic_v_list_dim1");
    put_number(writer, "/xpcs/qmap/beam_center_x", info->beam_center_x_px, "pixel");
    put_number(writer, "/xpcs/qmap/beam_center_y", info->beam_center_y_px, "pixel");
    put_number(writer, "/xpcs/qmap/detector_distance", info->detector_distance_m, "m");
    put_number(writer, "/xpcs/qmap/pixel_size", info->pixel_size_m, "m");
    put_array(writer, "/xpcs/qmap/dynamic_index_mapping", H5T_NATIVE_INT64, 1, (hsize_t[]){1}, NULL, (int64_t[]){0});
    put_link(writer, "/xpcs/qmap/static_index_mapping", "/xpcs/qmap/dynamic_index_mapping");
    put_integers(writer, "/xpcs/qmap/dynamic_num_pts", (int64_t[]){1, 1}, 2);
    put_link(writer, "/xpcs/qmap/static_num_pts", "/xpcs/qmap/dynamic_num_pts");
    put_names(writer, "/xpcs/qmap/map_names", "q", "phi");
    put_names(writer, "/xpcs/qmap/map_units", "1/A", "deg");
}

/* ---- intensities --------------------------------------------------------------------------------------------- */

static void put_means(struct writer *writer, const struct result *result)
{
    const struct ttcf *ttcf = result->ttcf;
    size_t n = result->info->n_rows * result->info->n_columns, n_frames = ttcf->n_frames;
    size_t n_segments = n_frames < SEGMENTS ? n_frames : SEGMENTS;
    const hsize_t shape[3] = {1, result->info->n_rows, result->info->n_columns};
    double *in_time = numbers(writer, 2 * n_frames), segments[SEGMENTS] = {0};
    float *image = malloc(n * sizeof *image);
    writer->ok = writer->ok && image;
    for (size_t i = 0; writer->ok && i < n; i++)
        image[i] = (float)result->photon_image[i] / (float)n_frames;
    for (size_t t = 0; writer->ok && t < n_frames; t++) {
        in_time[t] = (double)t;
        in_time[n_frames + t] = ttcf->photons_per_frame[t] / (double)ttcf->n_pixels;
    }
    for (size_t s = 0; writer->ok && s < n_segments; s++) {
        size_t first = s * n_frames / n_segments, end = (s + 1) * n_frames / n_segments;
        for (size_t t = first; t < end; t++)
            segments[s] += in_time[n_frames + t] / (double)(end - first);
    }
    double mean = (double)ttcf->n_photons / (double)ttcf->n_pixels / (double)n_frames;
    put_group(writer, "/xpcs/temporal_mean", "NXcollection");
    put_array(writer, "/xpcs/temporal_mean/scattering_2d", H5T_NATIVE_FLOAT, 3, shape, shape, image);
    put_label(writer, "/xpcs/temporal_mean/scattering_2d", "units", "photons per frame");
    put_array(writer, "/xpcs/temporal_mean/scattering_1d", H5T_NATIVE_DOUBLE, 1, (hsize_t[]){1}, NULL, &mean);
    put_numbers(writer, "/xpcs/temporal_mean/scattering_1d_segments", segments, n_segments, 1);
    put_group(writer, "/xpcs/spatial_mean", "NXcollection");
    put_numbers(writer, "/xpcs/spatial_mean/intensity_vs_time", in_time, 2, n_frames);
    free(in_time);
    free(image);
}

/* ---- correlations -------------------------------------------------------------------------------------------- */

static void put_curve(struct writer *writer, const struct result *result)
{
    const struct isf_curve *curve = result->curve;
    size_t n = (size_t)curve->n;
    double delay_frames[ISF_BINS_MAX];
    for (size_t i = 0; i < n; i++)
        delay_frames[i] = curve->lag_s[i] / result->info->frame_time_s;
    put_group(writer, "/xpcs/multitau", "NXcollection");
    put_group(writer, "/xpcs/multitau/config", "NXcollection");
    put_integer(writer, "/xpcs/multitau/config/stride_frame", 1);
    put_integer(writer, "/xpcs/multitau/config/avg_frame", 1);
    put_numbers(writer, "/xpcs/multitau/delay_list", delay_frames, n, 0);
    put_label(writer, "/xpcs/multitau/delay_list", "units", "frames");
    put_numbers(writer, "/xpcs/multitau/delay_s", curve->lag_s, n, 0);
    put_label(writer, "/xpcs/multitau/delay_s", "units", "s");
    put_numbers(writer, "/xpcs/multitau/normalized_g2", curve->g2, n, 1);
    put_label(writer, "/xpcs/multitau/normalized_g2", "storage_mode", "one_array");
    put_numbers(writer, "/xpcs/multitau/normalized_g2_err", curve->g2_sigma, n, 1);
    put_label(writer, "/xpcs/multitau/normalized_g2_err", "storage_mode", "one_array");
}

static void put_every_lag(struct writer *writer, const struct ttcf *ttcf)
{
    put_group(writer, "/xpcs/every_lag", "NXcollection");
    put_numbers(writer, "/xpcs/every_lag/g2", ttcf->g2, ttcf->n_frames, 0);
    put_label(writer, "/xpcs/every_lag/g2", "convention", "ratio of sums over t; index is the lag in frames");
    put_numbers(writer, "/xpcs/every_lag/g2_mean", ttcf->g2_mean, ttcf->n_frames, 0);
    put_label(writer, "/xpcs/every_lag/g2_mean", "convention", "mean over t of C(t, t + lag); lag 0 holds shot noise");
    put_numbers(writer, "/xpcs/every_lag/pairs_expected", ttcf->pairs_expected, ttcf->n_frames, 0);
}

/* The full upper half, a band of tiles at a time: what lies left of the band's first tile is never written. The matrix
 * stands column by column, so each tile is turned round on its way. */
static void put_matrix(struct writer *writer, const char *path, const struct ttcf *ttcf)
{
    hsize_t n = ttcf->n_frames, edge = n < MATRIX_TILE ? n : MATRIX_TILE;
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

/* g2 at the resolution of the map: means along its diagonals. */
static void put_map_g2(struct writer *writer, const struct ttcf *ttcf)
{
    size_t n = ttcf->map_n;
    double *g2 = numbers(writer, n);
    for (size_t lag = 0; writer->ok && lag < n; lag++) {
        size_t n_cells = 0;
        for (size_t i = 0; i + lag < n; i++) {
            float c = ttcf->map[i * n + i + lag];
            g2[lag] += isnan(c) ? 0.0 : (double)c;
            n_cells += isnan(c) ? 0 : 1;
        }
        g2[lag] = n_cells ? g2[lag] / (double)n_cells : NAN;
    }
    put_numbers(writer, "/xpcs/twotime/normalized_g2", g2, n, 1);
    put_array(writer, "/xpcs/twotime/normalized_g2_segments", H5T_NATIVE_DOUBLE, 3, (hsize_t[]){n, 1, 1}, NULL, g2);
    free(g2);
}

#define MAP_PATH "/xpcs/twotime/correlation_map/c2_00001"

static void put_twotime(struct writer *writer, const struct ttcf *ttcf)
{
    const hsize_t n = ttcf->map_n;
    put_group(writer, "/xpcs/twotime", "NXcollection");
    put_group(writer, "/xpcs/twotime/config", "NXcollection");
    put_integer(writer, "/xpcs/twotime/config/stride_frame", 1);
    put_integer(writer, "/xpcs/twotime/config/avg_frame", ttcf->matrix ? 1 : (int64_t)ttcf->map_binning);
    put_array(writer, "/xpcs/twotime/processed_bins", H5T_NATIVE_INT64, 1, (hsize_t[]){1}, NULL, (int64_t[]){1});
    put_group(writer, "/xpcs/twotime/correlation_map", "NXcollection");
    if (ttcf->matrix) {
        put_matrix(writer, MAP_PATH, ttcf);
        put_numbers(writer, "/xpcs/twotime/normalized_g2", ttcf->g2_mean, ttcf->n_frames, 1);
        put_array(writer, "/xpcs/twotime/normalized_g2_segments", H5T_NATIVE_DOUBLE, 3,
                  (hsize_t[]){ttcf->n_frames, 1, 1}, NULL, ttcf->g2_mean);
    } else {
        put_array(writer, MAP_PATH, H5T_NATIVE_FLOAT, 2, (hsize_t[]){n, n},
                  (hsize_t[]){n < MATRIX_TILE ? n : MATRIX_TILE, n < MATRIX_TILE ? n : MATRIX_TILE}, ttcf->map);
        put_map_g2(writer, ttcf);
    }
    put_label(writer, MAP_PATH, "storage_mode", "other");
    put_label(writer, MAP_PATH, "time_origin_location", "upper_left");
    put_label(writer, MAP_PATH, "populated_elements", "upper_half");
    put_attribute(writer, MAP_PATH, "baseline_reference", H5T_NATIVE_INT, &(int){1});
}

static void put_fit(struct writer *writer, const struct result *result)
{
    const struct isf_fit *fit = result->fit;
    put_group(writer, "/xpcs/fit", "NXcollection");
    put_label(writer, "/xpcs/fit", "convention", CONVENTION);
    if (!fit) {
        put_label(writer, "/xpcs/fit", "reason", result->reason);
        return;
    }
    double model[ISF_BINS_MAX];
    for (int i = 0; i < result->curve->n; i++)
        model[i] = isf_model(fit, result->curve->lag_s[i]);
    put_number(writer, "/xpcs/fit/tau_s", fit->tau_s, "s");
    put_number(writer, "/xpcs/fit/tau_s_sigma", fit->tau_s_sigma, "s");
    put_number(writer, "/xpcs/fit/beta", fit->beta, NULL);
    put_number(writer, "/xpcs/fit/beta_sigma", fit->beta_sigma, NULL);
    put_number(writer, "/xpcs/fit/contrast", fit->contrast, NULL);
    put_number(writer, "/xpcs/fit/contrast_sigma", fit->contrast_sigma, NULL);
    put_number(writer, "/xpcs/fit/baseline", fit->baseline, NULL);
    put_number(writer, "/xpcs/fit/baseline_sigma", fit->baseline_sigma, NULL);
    put_number(writer, "/xpcs/fit/chi2_reduced", fit->chi2_reduced, NULL);
    put_integer(writer, "/xpcs/fit/is_degenerate", fit->is_degenerate);
    put_numbers(writer, "/xpcs/fit/g2_model", model, (size_t)result->curve->n, 1);
}

/* ---- /entry -------------------------------------------------------------------------------------------------- */

static void put_instrument(struct writer *writer, const struct frames_info *info)
{
    put_group(writer, "/entry/instrument", "NXinstrument");
    put_group(writer, "/entry/instrument/incident_beam", "NXbeam");
    put_number(writer, "/entry/instrument/incident_beam/incident_energy", info->photon_energy_ev * 1e-3, "keV");
    put_group(writer, "/entry/instrument/detector_1", "NXdetector");
    put_number(writer, "/entry/instrument/detector_1/frame_time", info->frame_time_s, "s");
    put_number(writer, "/entry/instrument/detector_1/count_time", info->count_time_s, "s");
    put_number(writer, "/entry/instrument/detector_1/x_pixel_size", info->pixel_size_m, "m");
    put_number(writer, "/entry/instrument/detector_1/y_pixel_size", info->pixel_size_m, "m");
    put_link(writer, "/entry/instrument/detector_1/beam_center_x", "/xpcs/qmap/beam_center_x");
    put_link(writer, "/entry/instrument/detector_1/beam_center_y", "/xpcs/qmap/beam_center_y");
    put_link(writer, "/entry/instrument/detector_1/distance", "/xpcs/qmap/detector_distance");
    put_group(writer, "/entry/instrument/masks", "NXnote");
    put_link(writer, "/entry/instrument/masks/dynamic_roi_map", "/xpcs/qmap/dynamic_roi_map");
    put_link(writer, "/entry/instrument/masks/dynamic_q_list", "/xpcs/qmap/dynamic_v_list_dim0");
    put_link(writer, "/entry/instrument/masks/mask", "/xpcs/qmap/mask");
    put_group(writer, "/entry/instrument/bluesky", "NXcollection"); /* pyXpcsViewer's mark of this layout */
    put_group(writer, "/entry/instrument/bluesky/metadata", "NXcollection");
}

static void put_process(struct writer *writer, const struct result *result)
{
    char date[40], parameters[400];
    time_t now = time(NULL);
    struct tm utc;
    gmtime_r(&now, &utc);
    strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%S+00:00", &utc);
    snprintf(
        parameters, sizeof parameters,
        "frames %zu to %zu of the series, counted from 0; one q bin of %zu pixels; errors by jackknife over %d pixel "
        "groups; %s",
        result->first_frame, result->first_frame + result->ttcf->n_frames - 1, result->ttcf->n_pixels, TTCF_GROUPS,
        CONVENTION);
    put_group(writer, "/process", "NXprocess");
    put_text(writer, "/process/program", PROGRAM);
    put_text(writer, "/process/version", VERSION);
    put_text(writer, "/process/date", date);
    put_text(writer, "/process/master", result->master_path);
    put_text(writer, "/process/parameters", parameters);
    put_integer(writer, "/process/n_frames", (int64_t)result->ttcf->n_frames);
    put_integer(writer, "/process/n_pixels", (int64_t)result->ttcf->n_pixels);
    put_integer(writer, "/process/n_photons", (int64_t)result->ttcf->n_photons);
    put_integer(writer, "/process/n_hot_pixels", (int64_t)result->n_hot_pixels);
    put_integer(writer, "/process/n_empty_frames", (int64_t)result->ttcf->n_empty_frames);
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
    put_instrument(writer, result->info);
    put_process(writer, result);
    put_group(writer, "/entry/data", "NXdata");
    put_label(writer, "/entry/data", "signal", "g2");
    put_label(writer, "/entry/data", "axes", "delay_s");
    put_label(writer, "/entry/data", "SILX_style", "{\"axes_scale_types\": [\"log\"]}");
    put_link(writer, "/entry/data/g2", "/xpcs/multitau/normalized_g2");
    put_link(writer, "/entry/data/g2_derr", "/xpcs/multitau/normalized_g2_err");
    put_link(writer, "/entry/data/delay_difference", "/xpcs/multitau/delay_list");
    put_link(writer, "/entry/data/delay_s", "/xpcs/multitau/delay_s");
    put_link(writer, "/entry/data/frame_average", "/xpcs/temporal_mean/scattering_2d");
    put_label(writer, "/xpcs/temporal_mean/scattering_2d", "storage_mode", "one_array");
    put_group(writer, "/entry/twotime", "NXdata");
    put_label(writer, "/entry/twotime", "signal", "two_time_corr_func");
    put_link(writer, "/entry/twotime/two_time_corr_func", MAP_PATH);
    put_link(writer, "/entry/twotime/g2_from_two_time_corr_func", "/xpcs/twotime/normalized_g2");
    put_label(writer, "/xpcs/twotime/normalized_g2", "storage_mode", "one_array_q_last");
    put_attribute(writer, "/xpcs/twotime/normalized_g2", "baseline_reference", H5T_NATIVE_INT, &(int){1});
    put_attribute(writer, "/xpcs/twotime/normalized_g2", "first_point_for_fit", H5T_NATIVE_INT, &(int){1});
}

/* ---- from memory to disk ------------------------------------------------------------------------------------- */

static void put_result(struct writer *writer, const struct result *result)
{
    put_group(writer, "/xpcs", "NXcollection");
    put_qmap(writer, result);
    put_means(writer, result);
    put_curve(writer, result);
    put_every_lag(writer, result->ttcf);
    put_twotime(writer, result->ttcf);
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
