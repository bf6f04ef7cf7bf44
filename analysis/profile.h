/*
 * The profile of the mean intensity across a bin, for the normalisation of its correlation (analysis/ttcf.h). Pure
 * (allocates).
 *
 *     profile = <w^2>_p / <w>_p^2,   w the mean intensity of pixel p
 *
 * Where w differs from pixel to pixel (the structure factor across a band of q, absorption, polarisation, sensitivity),
 * <I I> of pixels that know nothing of each other is <w^2> and not <w>^2, and the baseline of g2 would stand at the
 * profile instead of at 1: at 1.083 for a factor of three across a bin.
 *
 * w is the mean over the scan and over a part of the bin that is small against the gradient and large against speckle,
 * as Lumma et al., Rev. Sci. Instrum. 71, 3274 (2000), doi 10.1063/1.1287637, smooth the intensity that they normalise
 * by; never the pixel's own, which would divide out frozen speckle with the gradient. Dividing the sum over the pixels,
 * and not each pixel, keeps the counts whole numbers and weighs a pixel by its photons, which is the least noisy.
 *
 * It is stated as the number of pixels that a flat bin of the same noise would have, n_effective = n_pixels / profile.
 * The square of a part's n photons is taken as n (n - 1), whose mean is the square of the mean (Poisson): the noise of
 * few photons does not pass for a profile. Without a group of pixels (the jackknife's) it is the same with the same w.
 */
#ifndef ANALYSIS_PROFILE_H
#define ANALYSIS_PROFILE_H

#include <stddef.h>
#include <stdint.h>

#include "analysis/ttcf.h"

/* The pixels of a scan, [n_pixels] each. */
struct profile_pixels {
    size_t n_pixels;
    const uint8_t *bin;       /* 0: in none */
    const uint16_t *part;     /* 1 .. n_parts where a pixel is in a bin, no part in two bins; NULL: each bin is one */
    const float *sensitivity; /* to any scale, above 0 where a pixel is in a bin; NULL: all alike */
    const uint32_t *photons; /* NULL only without parts and sensitivity: then nothing is known, and all bins are flat */
    int n_bins, n_parts;     /* without parts, n_parts is n_bins */
};

/* Of one bin. */
struct profile {
    double n_effective, n_effective_without[TTCF_GROUPS]; /* pixels */
};

/* ret_profiles [n_bins]. Errors: ERR_SYSTEM (memory). */
int profile_measure(const struct profile_pixels *pixels, struct profile *ret_profiles, struct err *err);

/* Sets ret_is_dead [n_pixels]: pixels without photons in parts with a mean of TTCF_DEAD_MEAN or more; the photons must
 * be there. Errors: ERR_SYSTEM (memory). */
int profile_mark_dead(const struct profile_pixels *pixels, uint8_t *ret_is_dead, struct err *err);

/* The part of a pixel that is in a bin. */
static inline size_t profile_part(const struct profile_pixels *pixels, size_t pixel)
{
    return pixels->part ? pixels->part[pixel] : pixels->bin[pixel];
}

#endif
