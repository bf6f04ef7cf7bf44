/*
 * Hits: gamma quanta and cosmic particles in a frame, found and taken out before the correlation. Pure (allocates).
 *
 * A photon counter sees a particle as one count in each pixel of a track, or as many counts in one pixel (a sensor of
 * CdTe rings). Either is a burst of pairs that no speckle makes: k photons in a pixel are k (k - 1) / 2 pairs at once,
 * and k times the photons of the pixel later. Two rules, both derived from what light can do:
 *
 * A pixel with n photons: the intensity of speckle is exponential at worst, so photons of mean m come as
 * P(>= n) = (m / (1 + m))^n (Goodman, Speckle Phenomena in Optics, on the detection of polarised thermal light).
 *
 * A connected cluster (eight neighbours) with n photons in all: clusters of s pixels through one pixel are fewer than
 * 8^s, so P(>= n) is about (8 m)^n; with 8 m near 1 clusters are everywhere, and this rule is silent.
 *
 * n is implausible when less than one in a thousand scans would have such a thing anywhere. m is ten times the mean of
 * the frame's valid pixels, for the profile of the intensity. At 0.002 photons per pixel and 3e10 pixels in all frames
 * that is 8 photons in a pixel, 17 in a cluster; at 0.01, 13, and 143.
 *
 * A pixel that has HIT_REPEATS hits is no victim but a culprit: hot. Masked pixels make no hits.
 */
#ifndef ANALYSIS_HIT_H
#define ANALYSIS_HIT_H

#include <stddef.h>
#include <stdint.h>

#include "analysis/event.h"
#include "base/err.h"

#define HIT_REPEATS 4 /* two muons through one pixel in a scan are rare already */

struct hit_finder;

/*
 * For one scan.
 *   is_masked  [n_pixels], not copied; may change between frames
 * Memory: 2 bytes per pixel, and 24 per pixel with photons in a frame. Errors: ERR_SYSTEM (memory). Free with
 * hit_close.
 */
int hit_open(struct hit_finder **ret_finder, size_t n_columns, size_t n_pixels, size_t n_frames,
             const uint8_t *is_masked, struct err *err);

/* The frame without its hits, until the next call; `frame` itself where it has none. */
struct event_frame hit_filter(struct hit_finder *finder, const struct event_frame *frame);

/* Hits and the photons taken out with them, since hit_open or hit_forget. */
size_t hit_count(const struct hit_finder *finder);
size_t hit_count_photons(const struct hit_finder *finder);

/* Sets is_hot [n_pixels] to 1 for pixels with HIT_REPEATS hits that are not masked; leaves the others alone. */
void hit_mark_hot(const struct hit_finder *finder, uint8_t *is_hot);

/* The scan is read again. */
void hit_forget(struct hit_finder *finder);

void hit_close(struct hit_finder *finder); /* NULL is fine */

#endif
