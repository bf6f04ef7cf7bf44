/*
 * Photon pairs of short lags, frame by frame, of scans whose two-time correlation sums frames into rows
 * (analysis/ttcf.h): what lies within a few rows is lost in their sums and counted here. Pure (allocates).
 *
 * The events of the last n_lags frames stand in a ring, and each names the one before it of the same pixel. So a photon
 * steps through no more than the pairs that it makes, which are few: 0.17 at 0.002 photons per pixel and 85 frames.
 * Counts are whole numbers and exact.
 */
#ifndef ANALYSIS_SHORT_LAGS_H
#define ANALYSIS_SHORT_LAGS_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct short_lags;

/*
 *   n_lags     1 .. n_lags are counted
 *   n_groups   of pixels: pixel / group_pixels % n_groups
 *   age_first  [n_ages + 1], slices of the first frame of a pair; copied
 * Memory: 4 bytes per pixel, 16 per event of n_lags frames. Errors: ERR_SYSTEM (memory). Free with short_lags_close.
 */
struct short_lags_settings {
    size_t n_pixels, n_lags, group_pixels;
    int n_bins, n_groups, n_ages;
    const size_t *age_first;
};

int short_lags_open(struct short_lags **ret_lags, const struct short_lags_settings *settings, struct err *err);

/* The n events of one bin, 0 .. n_bins - 1, in the present frame; each bin in turn, then short_lags_end_frame.
 *   bin_of_pixel  events of pixels where it is not bin + 1 are passed over
 * Errors: ERR_SYSTEM (memory). */
int short_lags_add(struct short_lags *lags, int bin, const uint32_t *pixel, const uint8_t *count, size_t n,
                   const uint8_t *bin_of_pixel, struct err *err);
void short_lags_end_frame(struct short_lags *lags);

/* Of the frames so far, summed over lags from `first` to `end` - 1. */
struct short_lags_sum {
    double pairs;        /* sum of I(t) I(t + lag) over the bin's pixels and t */
    double products;     /* sum of N(t) N(t + lag) over t, N the photons of all of the bin's pixels in a frame */
    double lag_products; /* the same, each times its lag */
};

struct short_lags_sum short_lags_of_age(const struct short_lags *lags, int bin, int age, size_t first, size_t end);

/* Pairs of the group's pixels, and products of the photons of all others. */
struct short_lags_sum short_lags_of_group(const struct short_lags *lags, int bin, int group, size_t first, size_t end);

void short_lags_close(struct short_lags *lags); /* NULL is fine */

#endif
