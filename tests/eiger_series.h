/*
 * Series as an EIGER2 4M would take them, for benchmarks: its module gaps, 300 bad pixels, and a ring, small-angle
 * scattering and a flat background in Poisson photons. Every frame is drawn anew: nothing repeats that a cache could
 * remember. Not correlated in time.
 */
#ifndef TESTS_EIGER_SERIES_H
#define TESTS_EIGER_SERIES_H

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "sim/eiger_file.h"
#include "sim/random.h"

#define SERIES_ROWS 2162
#define SERIES_COLUMNS 2068
#define SERIES_PIXELS ((size_t)SERIES_ROWS * SERIES_COLUMNS)
#define SERIES_BAD_PIXELS 300
#define SERIES_FOLDER "build/bench"

struct eiger_series {
    struct random random;
    double *sum;                        /* [SERIES_PIXELS], mean photons per frame in all pixels up to this one */
    struct speckle_event *events;       /* [SERIES_PIXELS], of the frame drawn last */
    uint32_t pixel_mask[SERIES_PIXELS]; /* bits of eiger_file_flaw */
};

/* An EIGER2 4M is 4 x 2 modules of 512 x 1028 pixels, with gaps of 38 rows and 12 columns. */
static inline void series_draw_mask(struct eiger_series *series)
{
    for (size_t i = 0; i < SERIES_PIXELS; i++) {
        size_t row = i / SERIES_COLUMNS, column = i % SERIES_COLUMNS;
        bool is_gap = row % 550 >= 512 || (column >= 1028 && column < 1040);
        series->pixel_mask[i] = is_gap ? EIGER_FILE_GAP : 0;
    }
    for (int i = 0; i < SERIES_BAD_PIXELS; i++)
        series->pixel_mask[(size_t)(random_uniform(&series->random) * (double)(SERIES_PIXELS - 1))] |= EIGER_FILE_DEAD;
}

/* The valid pixels' mean is photons_per_pixel. */
static inline void series_sum_up_intensity(struct eiger_series *series, double photons_per_pixel)
{
    double total = 0.0;
    size_t n_valid = 0;
    for (size_t i = 0; i < SERIES_PIXELS; i++) {
        double y = (double)(i / SERIES_COLUMNS) - SERIES_ROWS / 2.0;
        double x = (double)(i % SERIES_COLUMNS) - SERIES_COLUMNS / 2.0;
        double r = sqrt(x * x + y * y), off_ring = (r - 500.0) / 60.0;
        double intensity = 0.3 + exp(-0.5 * off_ring * off_ring) + 5.0 * exp(-r / 60.0);
        total += series->pixel_mask[i] ? 0.0 : intensity;
        n_valid += !series->pixel_mask[i];
        series->sum[i] = total;
    }
    for (size_t i = 0; i < SERIES_PIXELS; i++)
        series->sum[i] *= photons_per_pixel * (double)n_valid / total;
}

/* Seeded, with its mask drawn. Ends the program without memory. */
static inline struct eiger_series *series_new(unsigned long seed)
{
    struct eiger_series *series = calloc(1, sizeof *series);
    if (series) {
        series->random.state = seed;
        series->sum = malloc(SERIES_PIXELS * sizeof *series->sum);
        series->events = malloc(SERIES_PIXELS * sizeof *series->events);
    }
    if (!series || !series->sum || !series->events) {
        fprintf(stderr, "no memory for a series\n");
        exit(1);
    }
    series_draw_mask(series);
    return series;
}

static inline void series_free(struct eiger_series *series)
{
    free(series->sum);
    free(series->events);
    free(series);
}

/* First pixel from `i` on up to which `at` photons have arrived; SERIES_PIXELS: none. In leaps that double, then by
 * halves. */
static inline size_t series_find_pixel(const struct eiger_series *series, size_t i, double at)
{
    size_t leap = 1, end = i;
    while (end < SERIES_PIXELS && series->sum[end] < at) {
        i = end + 1;
        end += leap;
        leap *= 2;
    }
    end = end < SERIES_PIXELS ? end : SERIES_PIXELS;
    while (i < end) {
        size_t middle = (i + end) / 2;
        if (series->sum[middle] < at)
            i = middle + 1;
        else
            end = middle;
    }
    return i;
}

/* Photons are the arrivals of a Poisson process that runs along the summed intensity. Returns the number of events. */
static inline int series_draw_frame(struct eiger_series *series)
{
    int n = 0;
    double at = -log(random_uniform(&series->random));
    for (size_t i = series_find_pixel(series, 0, at); i < SERIES_PIXELS; i = series_find_pixel(series, i + 1, at)) {
        series->events[n] = (struct speckle_event){.pixel = (uint32_t)i};
        for (; series->sum[i] >= at; at -= log(random_uniform(&series->random)))
            series->events[n].count++;
        n++;
    }
    return n;
}

/* At 0.1 s per frame. */
static inline struct eiger_file_settings series_settings(const struct eiger_series *series, const char *stem,
                                                         int bit_depth, int n_frames, int n_per_file)
{
    return (struct eiger_file_settings){.directory = SERIES_FOLDER,
                                        .stem = stem,
                                        .width = SERIES_COLUMNS,
                                        .height = SERIES_ROWS,
                                        .bit_depth = bit_depth,
                                        .n_images = n_frames,
                                        .n_triggers = 1,
                                        .n_images_per_file = n_per_file,
                                        .pixel_mask = series->pixel_mask,
                                        .count_time_s = 0.0999,
                                        .frame_time_s = 0.1,
                                        .photon_energy_ev = 21000,
                                        .distance_m = 5,
                                        .pixel_size_m = 75e-6,
                                        .count_cutoff = 60000,
                                        .description = "bench",
                                        .serial_number = "0",
                                        .firmware_version = "0"};
}

/* Draws and writes the whole series. Errors: those of sim/eiger_file.h. */
static inline int series_write(struct eiger_series *series, const struct eiger_file_settings *settings, struct err *err)
{
    struct eiger_file *file;
    int code = eiger_file_open(&file, settings, err);
    if (code)
        return code;
    for (int t = 0; t < settings->n_images && code >= 0; t++)
        code = eiger_file_append(file, series->events, series_draw_frame(series), err);
    int code_close = eiger_file_close(file, code < 0 ? NULL : err);
    return code < 0 ? code : code_close;
}

#endif
