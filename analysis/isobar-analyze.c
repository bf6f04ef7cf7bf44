/*
 * isobar-analyze: one EIGER2 series -> two-time correlation, g2, and tau, beta, contrast with their uncertainties, for
 * all bins of q together and for each. Reads the series, writes one result file and the photon events beside it, says
 * the result on standard output. It knows no instrument and no database. Exit status: 0 done (a refused fit included:
 * its reason is said), 1 data not usable, 2 wrong arguments.
 */
#include <assert.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "analysis/arguments.h"
#include "analysis/event_cache.h"
#include "analysis/frames.h"
#include "analysis/hit.h"
#include "analysis/isf.h"
#include "analysis/polygon.h"
#include "analysis/poni.h"
#include "analysis/qmap.h"
#include "analysis/result_file.h"
#include "analysis/ttcf.h"
#include "base/clock.h"

/* ---- reading ------------------------------------------------------------------------------------------------- */

#define PROGRESS_NS (5 * NS_PER_S) /* between two lines of a log */

/* On a terminal one line that changes with every percent; elsewhere, where it was asked for, a line now and then. */
static void show_progress(bool is_asked, size_t done, size_t n, int64_t start_ns)
{
    static int shown = -1;
    static int64_t shown_ns;
    bool is_terminal = isatty(STDERR_FILENO);
    int percent = (int)(100 * done / n);
    int64_t now_ns = percent == shown ? shown_ns : clock_wall_ns();
    bool is_due = done == n || now_ns - (shown_ns > start_ns ? shown_ns : start_ns) >= PROGRESS_NS;
    if (percent == shown || !(is_terminal || (is_asked && is_due)))
        return;
    shown = percent;
    shown_ns = now_ns;
    double s_left = s_from_ns(now_ns - start_ns) * (double)(n - done) / (double)done;
    fprintf(stderr, "%sreading frames: %3d %%, %.0f s left%s", is_terminal ? "\r" : "", percent, s_left,
            is_terminal && done < n ? "   " : "   \n");
}

/* What hot pixels show at once: those frames are kept and correlated again without them. */
#define EARLY_FRAMES 256
#define EARLY_EVENTS_MAX (size_t)(16 << 20) /* 64 MB */
#define PASSES_MAX 4                        /* a hot pixel hides another, whose turn comes in the next pass */

struct early {
    struct event_frame frames[EARLY_FRAMES];
    size_t n, n_events;
};

/* One scan on its way from frames to the result. */
struct scan {
    const struct arguments *arguments;
    char master_path[1024];
    struct frames *frames;
    struct qmap_geometry geometry;
    bool has_geometry;
    struct qmap *qmap;
    struct hit_finder *hits; /* NULL: they are kept */
    struct ttcf_run *run;
    size_t first_frame, n_frames, n_pixels, n_hot, n_dead;
    uint8_t *is_masked; /* [n_pixels], by the detector, the user, hot or dead */
    uint8_t *scratch;   /* [n_pixels] */
    float *sensitivity; /* [n_pixels], NULL: no flat field */
    struct early early;
    struct event_cache_writer *cache; /* until it is on the disk; NULL: none */
    struct result_bin all, *bins;     /* all bins together; [n_bins] */
    int n_bins;
    double elapsed_s;
};

static int begin_run(struct scan *scan, struct err *err)
{
    const struct arguments *arguments = scan->arguments;
    for (size_t p = 0; p < scan->n_pixels; p++)
        scan->scratch[p] = scan->is_masked[p] ? 0 : (uint8_t)scan->qmap->dynamic.of_pixel[p];
    const struct ttcf_settings settings = {.n_frames = scan->n_frames,
                                           .n_pixels = scan->n_pixels,
                                           .n_bins = scan->n_bins,
                                           .bin_of_pixel = scan->scratch,
                                           .part_of_pixel = scan->qmap->profile.of_pixel,
                                           .n_parts = scan->qmap->profile.n,
                                           .sensitivity = scan->sensitivity,
                                           .n_ages = arguments->n_ages,
                                           .with_matrix = arguments->with_matrix,
                                           .matrix_bytes_max = arguments->memory_bytes / RESULT_MATRIX_COPIES};
    ttcf_end(scan->run);
    scan->run = NULL;
    if (scan->hits)
        hit_forget(scan->hits);
    int code = ttcf_begin(&scan->run, &settings, err);
    if (code)
        err_prefix(err, "%s", arguments->input_path);
    return code;
}

/* Hot pixels join the mask: those of the correlation, and those that are hit again and again. Returns how many. */
static size_t mask_hot_pixels(struct scan *scan)
{
    size_t n = 0;
    ttcf_find_hot(scan->run, scan->scratch);
    if (scan->hits)
        hit_mark_hot(scan->hits, scan->scratch);
    for (size_t p = 0; p < scan->n_pixels; p++) {
        n += scan->scratch[p] && !scan->is_masked[p];
        scan->is_masked[p] |= scan->scratch[p];
    }
    scan->n_hot += n;
    return n;
}

static int correlate_frame(struct scan *scan, const struct event_frame *frame, struct err *err)
{
    const struct event_frame left = scan->hits ? hit_filter(scan->hits, frame) : *frame;
    return ttcf_add_frame(scan->run, &left, err);
}

static int mask_dead_pixels(struct scan *scan, struct err *err)
{
    int code = ttcf_drop_dead(scan->run, scan->scratch, &scan->n_dead, err);
    for (size_t p = 0; code == 0 && p < scan->n_pixels; p++)
        scan->is_masked[p] |= scan->scratch[p];
    return code;
}

static int keep_early(struct early *early, const struct event_frame *frame, struct err *err)
{
    struct event_frame *kept = &early->frames[early->n++];
    uint32_t *events = malloc(frame->n_events * sizeof *events + 1);
    struct event_bright *bright = malloc(frame->n_bright * sizeof *bright + 1);
    *kept = *frame;
    kept->events = events;
    kept->bright = bright;
    if (!events || !bright)
        return err_set(err, ERR_SYSTEM, "no memory for %zu events", frame->n_events);
    memcpy(events, frame->events, frame->n_events * sizeof *events);
    memcpy(bright, frame->bright, frame->n_bright * sizeof *bright);
    early->n_events += frame->n_events;
    return 0;
}

static void forget_early(struct early *early)
{
    for (size_t i = 0; i < early->n; i++) {
        free((void *)early->frames[i].events);
        free((void *)early->frames[i].bright);
    }
    early->n = early->n_events = 0;
}

/* The first frames are in: without the hot pixels that they show, from the beginning. */
static int judge_early(struct scan *scan, struct err *err)
{
    int code = 0;
    while (code == 0 && mask_hot_pixels(scan)) {
        code = begin_run(scan, err);
        for (size_t i = 0; i < scan->early.n && code == 0; i++)
            code = correlate_frame(scan, &scan->early.frames[i], err);
    }
    forget_early(&scan->early);
    return code;
}

/* Frame by frame: into the correlation and, where there is one, as they are into the event cache. */
static int read_frames(struct scan *scan, struct err *err)
{
    struct event_frame frame;
    bool is_early = true;
    int code = 0;
    int64_t start_ns = clock_wall_ns();
    for (size_t t = 0; t < scan->n_frames && code == 0; t++) {
        code = frames_next(scan->frames, &frame, err);
        if (code < 0)
            break;
        assert(code == 1);
        code = correlate_frame(scan, &frame, err);
        if (code == 0 && scan->cache)
            code = event_cache_append(scan->cache, &frame, err);
        if (code == 0 && is_early)
            code = keep_early(&scan->early, &frame, err);
        bool is_enough = scan->early.n == EARLY_FRAMES || scan->early.n_events > EARLY_EVENTS_MAX;
        if (code == 0 && is_early && (is_enough || t + 1 == scan->n_frames)) {
            code = judge_early(scan, err);
            is_early = false;
        }
        show_progress(scan->arguments->with_progress, t + 1, scan->n_frames, start_ns);
    }
    forget_early(&scan->early);
    return code;
}

/* ---- pixels and bins ----------------------------------------------------------------------------------------- */

static int read_masks(struct scan *scan, struct err *err)
{
    const struct arguments *arguments = scan->arguments;
    const struct frames_info *info = frames_info(scan->frames);
    int code = 0;
    memcpy(scan->is_masked, frames_is_masked(scan->frames), scan->n_pixels);
    for (int i = 0; i < arguments->n_masks && code == 0; i++)
        code = frame_file_read_mask(arguments->mask_paths[i], info->n_rows, info->n_columns, scan->is_masked, err);
    for (int i = 0; i < arguments->n_polygons && code == 0; i++)
        code = polygon_read(arguments->polygon_paths[i], info->n_rows, info->n_columns, scan->is_masked, err);
    return code;
}

/* A pixel that is not sensitive is masked. */
static int read_flat_field(struct scan *scan, struct err *err)
{
    const struct frames_info *info = frames_info(scan->frames);
    const char *path = scan->arguments->flat_path;
    scan->sensitivity = malloc(scan->n_pixels * sizeof *scan->sensitivity);
    if (!scan->sensitivity)
        return err_set(err, ERR_SYSTEM, "no memory for a flat field of %zu pixels", scan->n_pixels);
    int code = frame_file_read_flat_field(path, info->n_rows, info->n_columns, scan->sensitivity, err);
    for (size_t p = 0; code == 0 && p < scan->n_pixels; p++)
        scan->is_masked[p] |= !(scan->sensitivity[p] > 0.0f && isfinite(scan->sensitivity[p]));
    return code;
}

/* What the calibration leaves open is the series'; where both state it, the calibration counts. */
static int read_poni(struct scan *scan, struct err *err)
{
    const char *path = scan->arguments->poni_path;
    const struct frames_info *info = frames_info(scan->frames);
    struct poni poni;
    int code = poni_read(path, &poni, err);
    if (code)
        return code;
    if (poni.n_rows && (poni.n_rows != info->n_rows || poni.n_columns != info->n_columns))
        return err_set(err, ERR_DATA, "%s is for a detector of %zu x %zu pixels, the series has %zu x %zu", path,
                       poni.n_rows, poni.n_columns, info->n_rows, info->n_columns);
    for (int i = 0; i < 2; i++) {
        double *pixel_size_m = &poni.geometry.pixel_size_m[i];
        if (*pixel_size_m > 0.0 && info->pixel_size_m > 0.0 && fabs(*pixel_size_m / info->pixel_size_m - 1.0) > 0.01)
            return err_set(err, ERR_DATA, "%s is for pixels of %.4g um, the series has %.4g um", path,
                           *pixel_size_m * 1e6, info->pixel_size_m * 1e6);
        if (*pixel_size_m == 0.0)
            *pixel_size_m = info->pixel_size_m;
    }
    if (poni.geometry.wavelength_angstrom == 0.0)
        poni.geometry.wavelength_angstrom = qmap_wavelength_angstrom(info->photon_energy_ev);
    if (!qmap_is_stated(&poni.geometry))
        return err_set(err, ERR_DATA, "neither %s nor the series states the %s", path,
                       poni.geometry.wavelength_angstrom > 0.0 ? "pixel size" : "wavelength");
    scan->geometry = poni.geometry;
    return 0;
}

static int make_qmap(struct scan *scan, struct err *err)
{
    const struct arguments *arguments = scan->arguments;
    const struct frames_info *info = frames_info(scan->frames);
    const double center_px[2] = {info->beam_center_x_px, info->beam_center_y_px};
    scan->geometry = qmap_geometry_of_arm(info->detector_distance_m, center_px, info->pixel_size_m,
                                          info->photon_energy_ev, arguments->arm_deg);
    int code = arguments->poni_path ? read_poni(scan, err) : 0;
    if (code)
        return code;
    scan->has_geometry = qmap_is_stated(&scan->geometry);
    const struct qmap_settings settings = {.geometry = scan->has_geometry ? &scan->geometry : NULL,
                                           .n_rows = info->n_rows,
                                           .n_columns = info->n_columns,
                                           .is_masked = scan->is_masked,
                                           .n_bands = arguments->n_bands,
                                           .bands = arguments->has_ranges ? arguments->bands : NULL,
                                           .n_sectors = arguments->n_sectors};
    code = qmap_divide(&scan->qmap, &settings, err);
    if (code) {
        err_prefix(err, "%s", arguments->input_path);
        return code;
    }
    scan->n_bins = scan->qmap->dynamic.n;
    scan->bins = calloc((size_t)scan->n_bins, sizeof *scan->bins);
    return scan->bins ? 0 : err_set(err, ERR_SYSTEM, "no memory for %d bins", scan->n_bins);
}

/* ---- the whole of it ----------------------------------------------------------------------------------------- */

/* "scan_results.hdf" -> "scan_events.bin", and any other name with "_events.bin" behind it. */
static void events_path(const char *result_path, char *ret_path, size_t size)
{
    size_t n = strlen(result_path), n_suffix = strlen("_results.hdf");
    bool has_suffix = n > n_suffix && strcmp(result_path + n - n_suffix, "_results.hdf") == 0;
    snprintf(ret_path, size, "%.*s_events.bin", (int)(has_suffix ? n - n_suffix : n), result_path);
}

/* Events are kept of whole series that come from the detector's files. */
static int begin_cache(const struct arguments *arguments, const struct frames *frames,
                       struct event_cache_writer **ret_cache, struct err *err)
{
    char path[1024];
    if (arguments->without_events || arguments->settings.from_events || arguments->end_frame)
        return 0;
    events_path(arguments->result_path, path, sizeof path);
    return event_cache_create(ret_cache, path, frames_info(frames), frames_master_path(frames),
                              frames_valid_bits(frames), err);
}

static int keep_events(struct scan *scan, struct err *err)
{
    struct event_cache_writer *cache = scan->cache;
    scan->cache = NULL;
    return cache ? event_cache_commit(cache, err) : 0;
}

/* The series once more, from its events where they are kept. */
static int read_again(struct scan *scan, bool has_cache, struct err *err)
{
    const struct arguments *arguments = scan->arguments;
    struct frames_settings settings = arguments->settings;
    char path[1024];
    events_path(arguments->result_path, path, sizeof path);
    settings.is_followed = false;
    settings.from_events |= has_cache;
    struct frames *again;
    int code = frames_open(&again, has_cache ? path : arguments->input_path, &settings, err);
    if (code)
        return code;
    frames_close(scan->frames);
    scan->frames = again;
    code = begin_run(scan, err);
    if (code == 0)
        code = frames_start(again, scan->first_frame, scan->first_frame + scan->n_frames, arguments->n_threads, err);
    return code ? code : read_frames(scan, err);
}

static int read_scan(struct scan *scan, struct err *err)
{
    int code = begin_run(scan, err);
    if (code == 0)
        code = frames_start(scan->frames, scan->first_frame, scan->first_frame + scan->n_frames,
                            scan->arguments->n_threads, err);
    if (code == 0)
        code = begin_cache(scan->arguments, scan->frames, &scan->cache, err);
    bool has_cache = scan->cache != NULL;
    if (code == 0)
        code = read_frames(scan, err);
    for (int pass = 1; pass < PASSES_MAX && code == 0 && mask_hot_pixels(scan); pass++) {
        code = keep_events(scan, err);
        if (code == 0)
            code = read_again(scan, has_cache, err);
    }
    return code ? code : mask_dead_pixels(scan, err);
}

static void fit_bin(const struct scan *scan, struct result_bin *bin)
{
    struct err err = {0};
    bin->is_correlated = true;
    bin->is_fitted = isf_fit(&bin->ttcf, frames_info(scan->frames)->frame_time_s, &bin->fit, &bin->curve, &err) == 0;
    memcpy(bin->reason, err.message, sizeof bin->reason);
}

/* Each bin, and all together. A bin that cannot be correlated has a reason; it is an error when none can. */
static int fit_bins(struct scan *scan, struct err *err)
{
    int n = 0, code = 0;
    struct ttcf *correlated = calloc((size_t)scan->n_bins, sizeof *correlated);
    if (!correlated)
        return err_set(err, ERR_SYSTEM, "no memory for %d bins", scan->n_bins);
    for (int b = 0; b < scan->n_bins; b++) {
        struct err reason = {0};
        code = ttcf_result(scan->run, b + 1, true, &scan->bins[b].ttcf, &reason);
        if (code == 0) {
            fit_bin(scan, &scan->bins[b]);
            correlated[n++] = scan->bins[b].ttcf;
        } else {
            memcpy(scan->bins[b].reason, reason.message, sizeof scan->bins[b].reason);
            *err = reason;
        }
    }
    if (n > 0) {
        code = ttcf_join(correlated, n, &scan->all.ttcf, err);
        if (code == 0)
            fit_bin(scan, &scan->all);
    } else {
        err_prefix(err, "%s", scan->arguments->input_path);
    }
    free(correlated);
    return code;
}

static int write_result(struct scan *scan, struct err *err)
{
    int code = fit_bins(scan, err);
    if (code)
        return code;
    uint64_t *segment_photons = calloc(TTCF_SEGMENTS * (size_t)scan->qmap->profile.n, sizeof *segment_photons);
    if (!segment_photons)
        return err_set(err, ERR_SYSTEM, "no memory for the photons of %d segments", TTCF_SEGMENTS);
    ttcf_count_segments(scan->run, segment_photons);
    struct result result = {.master_path = scan->master_path,
                            .info = frames_info(scan->frames),
                            .geometry = scan->has_geometry ? &scan->geometry : NULL,
                            .qmap = scan->qmap,
                            .is_masked = scan->is_masked,
                            .n_hot_pixels = scan->n_hot,
                            .n_dead_pixels = scan->n_dead,
                            .n_hits = scan->hits ? hit_count(scan->hits) : 0,
                            .n_hit_photons = scan->hits ? hit_count_photons(scan->hits) : 0,
                            .photon_image = ttcf_photons(scan->run),
                            .segment_photons = segment_photons,
                            .first_frame = scan->first_frame,
                            .all = &scan->all,
                            .bins = scan->bins,
                            .n_bins = scan->n_bins};
    code = result_file_write(scan->arguments->result_path, &result, err);
    free(segment_photons);
    return code;
}

static int analyze_scan(struct scan *scan, struct err *err)
{
    const struct arguments *arguments = scan->arguments;
    const struct frames_info *info = frames_info(scan->frames);
    size_t end_frame = arguments->end_frame ? arguments->end_frame : info->n_frames;
    if (end_frame > info->n_frames)
        return err_set(err, ERR_ARG, "frames %zu:%zu asked for, but %s has %zu", arguments->first_frame, end_frame,
                       arguments->input_path, info->n_frames);
    scan->first_frame = arguments->first_frame;
    scan->n_frames = end_frame - arguments->first_frame;
    scan->n_pixels = info->n_rows * info->n_columns;
    scan->is_masked = malloc(scan->n_pixels);
    scan->scratch = malloc(scan->n_pixels);
    if (!scan->is_masked || !scan->scratch)
        return err_set(err, ERR_SYSTEM, "no memory for the mask of %zu pixels", scan->n_pixels);
    int code = read_masks(scan, err);
    if (code == 0 && arguments->flat_path)
        code = read_flat_field(scan, err);
    if (code == 0)
        code = make_qmap(scan, err);
    if (code == 0 && !arguments->with_hits)
        code = hit_open(&scan->hits, info->n_columns, scan->n_pixels, scan->n_frames, scan->is_masked, err);
    if (code == 0)
        code = read_scan(scan, err);
    if (code == 0)
        code = write_result(scan, err);
    return code ? code : keep_events(scan, err);
}

static int analyze(struct scan *scan, struct err *err)
{
    const struct arguments *arguments = scan->arguments;
    int64_t start_ns = clock_wall_ns();
    int code = frames_open(&scan->frames, arguments->input_path, &arguments->settings, err);
    if (code)
        return code;
    snprintf(scan->master_path, sizeof scan->master_path, "%s", frames_master_path(scan->frames));
    code = analyze_scan(scan, err);
    scan->elapsed_s = s_from_ns(clock_wall_ns() - start_ns);
    return code;
}

static void close_scan(struct scan *scan)
{
    event_cache_discard(scan->cache);
    if (scan->frames)
        frames_close(scan->frames);
    ttcf_end(scan->run);
    hit_close(scan->hits);
    for (int b = 0; scan->bins && b < scan->n_bins; b++)
        ttcf_free(&scan->bins[b].ttcf);
    ttcf_free(&scan->all.ttcf);
    qmap_free(scan->qmap);
    free(scan->bins);
    free(scan->is_masked);
    free(scan->scratch);
    free(scan->sensitivity);
}

/* ---- saying it ----------------------------------------------------------------------------------------------- */

static void print_json_text(const char *key, const char *text)
{
    printf("\"%s\":\"", key);
    for (const unsigned char *c = (const unsigned char *)text; *c; c++)
        if (*c == '"' || *c == '\\')
            printf("\\%c", *c);
        else if (*c < 0x20)
            printf("\\u%04x", *c);
        else
            putchar(*c);
    putchar('"');
}

static void print_json_number(const char *key, double value)
{
    if (isfinite(value))
        printf("\"%s\":%.9g,", key, value);
    else
        printf("\"%s\":null,", key);
}

static void print_json_bool(const char *key, bool is_known, bool value)
{
    printf("\"%s\":%s,", key, !is_known ? "null" : value ? "true" : "false");
}

/* The fit's numbers, or null, and the reason why there are none. */
static void print_json_fit(const struct result_bin *bin)
{
    const struct isf_fit nothing = {NAN, NAN, NAN, NAN, NAN, NAN, NAN, NAN, NAN, false};
    const struct isf_fit *fit = bin->is_fitted ? &bin->fit : &nothing;
    print_json_number("tau_s", fit->tau_s);
    print_json_number("tau_s_sigma", fit->tau_s_sigma);
    print_json_number("beta", fit->beta);
    print_json_number("beta_sigma", fit->beta_sigma);
    print_json_number("contrast", fit->contrast);
    print_json_number("contrast_sigma", fit->contrast_sigma);
    print_json_number("baseline", fit->baseline);
    print_json_bool("degenerate", bin->is_fitted, fit->is_degenerate);
    if (bin->is_fitted)
        printf("\"reason\":null");
    else
        print_json_text("reason", bin->reason);
}

/* A sector that is the whole circle has no azimuth. */
static double azimuth_of(const struct scan *scan, int b)
{
    const struct qmap_bin *place = &scan->qmap->bins[b];
    return scan->qmap->has_q && place->phi.max - place->phi.min < 360.0 ? place->phi_mean : NAN;
}

static void print_json_bin(const struct scan *scan, int b)
{
    const struct qmap_bin *place = &scan->qmap->bins[b];
    const struct result_bin *bin = &scan->bins[b];
    bool has_q = scan->qmap->has_q;
    printf("%s{\"bin\":%d,", b ? "," : "", b + 1);
    print_json_number("q_inv_angstrom", has_q ? place->q_mean : NAN);
    print_json_number("q_inv_angstrom_min", has_q ? place->q.min : NAN);
    print_json_number("q_inv_angstrom_max", has_q ? place->q.max : NAN);
    print_json_number("phi_deg", azimuth_of(scan, b));
    printf("\"n_pixels\":%zu,\"n_photons\":%zu,", bin->ttcf.n_pixels, bin->ttcf.n_photons);
    print_json_bool("matrix", true, bin->ttcf.matrix != NULL);
    print_json_fit(bin);
    putchar('}');
}

/* First all bins together, as one that knows of no bins reads it; then each. */
static void print_json(const struct scan *scan)
{
    putchar('{');
    print_json_text("master", scan->master_path);
    putchar(',');
    print_json_text("result", scan->arguments->result_path);
    printf(",\"n_frames\":%zu,\"n_pixels\":%zu,\"n_photons\":%zu,", scan->all.ttcf.n_frames, scan->all.ttcf.n_pixels,
           scan->all.ttcf.n_photons);
    print_json_fit(&scan->all);
    printf(",\"n_hits\":%zu", scan->hits ? hit_count(scan->hits) : 0);
    printf(",\"elapsed_s\":%.3f,\"bins\":[", scan->elapsed_s);
    for (int b = 0; b < scan->n_bins; b++)
        print_json_bin(scan, b);
    puts("]}");
}

static void print_bins(const struct scan *scan)
{
    printf("  bin  q 1/A    phi  pixels    photons  tau s               beta            contrast            matrix\n");
    for (int b = 0; b < scan->n_bins; b++) {
        const struct result_bin *bin = &scan->bins[b];
        printf("%5d  %-7.4g %5.0f  %-8zu  %-7zu  ", b + 1, scan->qmap->bins[b].q_mean, azimuth_of(scan, b),
               bin->ttcf.n_pixels, bin->ttcf.n_photons);
        if (bin->is_fitted)
            printf("%-8.4g +- %-7.2g %5.3f +- %5.3f  %7.5f +- %7.5f  %s\n", bin->fit.tau_s, bin->fit.tau_s_sigma,
                   bin->fit.beta, bin->fit.beta_sigma, bin->fit.contrast, bin->fit.contrast_sigma,
                   bin->ttcf.matrix ? "full" : "binned");
        else
            printf("no fit: %s\n", bin->reason);
    }
}

static void print_text(const struct scan *scan)
{
    const struct isf_fit *fit = &scan->all.fit;
    const struct ttcf *ttcf = &scan->all.ttcf;
    printf("%s: %zu frames, %zu pixels, %zu photons, %.2f s\n", scan->arguments->input_path, ttcf->n_frames,
           ttcf->n_pixels, ttcf->n_photons, scan->elapsed_s);
    if (ttcf->frames_per_row > 1)
        printf("two-time correlation of sums of %zu frames; g2 of shorter lags frame by frame\n", ttcf->frames_per_row);
    if (scan->all.is_fitted)
        printf("tau      %.4g +- %.2g s%s\n"
               "beta     %.3f +- %.3f\n"
               "contrast %.5f +- %.5f\n"
               "baseline %.5f +- %.5f\n"
               "|F|^2 = exp(-2 (t/tau)^beta); written to %s\n",
               fit->tau_s, fit->tau_s_sigma, fit->is_degenerate ? "  (degenerate: above a third of the scan)" : "",
               fit->beta, fit->beta_sigma, fit->contrast, fit->contrast_sigma, fit->baseline, fit->baseline_sigma,
               scan->arguments->result_path);
    else
        printf("no fit: %s; g2 is in %s\n", scan->all.reason, scan->arguments->result_path);
    if (scan->n_bins > 1)
        print_bins(scan);
    int n_full = 0;
    for (int b = 0; b < scan->n_bins; b++)
        n_full += scan->bins[b].ttcf.matrix != NULL;
    if (scan->arguments->with_matrix)
        printf("full matrices: %d of %d bins%s\n", n_full, scan->n_bins,
               n_full < scan->n_bins ? ", the others did not fit into the memory (--memory)" : "");
}

int main(int argc, char **argv)
{
    static struct arguments arguments;
    if (arguments_parse(argc, argv, &arguments) != 0) {
        fputs(arguments_usage, stderr);
        return 2;
    }
    static struct scan scan;
    struct err err = {0};
    scan.arguments = &arguments;
    int code = analyze(&scan, &err);
    if (code) {
        fprintf(stderr, "isobar-analyze: %s\n", err.message);
        if (arguments.is_json) {
            putchar('{');
            print_json_text("reason", err.message);
            puts("}");
        }
    } else if (arguments.is_json) {
        print_json(&scan);
    } else {
        print_text(&scan);
    }
    close_scan(&scan);
    return code == 0 && fflush(stdout) == 0 ? 0 : 1;
}
