/*
 * Photons of a dynamic speckle pattern, drawn one by one: the cost goes with the photons, not with the pixels.
 *
 * Per pixel, E = M^-1/2 sum_k exp(i (w_k theta + phi_k)) with M = 8 modes, uniform phases phi_k, and frequencies w_k
 * drawn independently per pixel from the symmetric stable law of index beta (Chambers, Mallows and Stuck 1976), so that
 * g1 = exp(-|theta|^beta) and <|E|^4> = 2 - 1/M. theta is the internal time of the sample, the integral of dt / tau.
 * The cell adds a static speckle of its own, b, of mean 1 and small variance, so that with a = amplitude
 *
 *     I = (1 - a) b + a |E|^2,     g2(lag) - 1 = a^2 (1 - 1/M) g1^2 + (1 - a)^2 var(b)
 *
 * The static part is a base line above 1, as behind any diamond. Intensity is constant during a frame (frame time is
 * much shorter than tau). Seeded: the same seed, scan and calls give the same photons. No input or output.
 */
#ifndef SIM_SPECKLE_H
#define SIM_SPECKLE_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct speckle;

/* Photons in one pixel of one frame; a frame's events are sorted by pixel and name no pixel twice. */
struct speckle_event {
    uint32_t pixel; /* row major */
    uint32_t count; /* > 0 */
};

struct speckle_settings {
    int width, height;        /* pixels; at most 4096 each */
    double photons_per_pixel; /* mean per frame at flux 1; at most 1 */
    double amplitude;         /* a above, 0 to 1; 0.3 gives a contrast of 0.079 */
    const uint8_t *is_masked; /* [height * width], nonzero: no photons; NULL: all pixels live. Copied */
    uint64_t seed;
};

/* Draws the cell's static speckle. Errors: ERR_ARG (a setting out of its domain). Free with speckle_close. */
int speckle_open(struct speckle **ret_speckle, const struct speckle_settings *settings, struct err *err);
void speckle_close(struct speckle *speckle);

/* Draws the modes anew for a scan (about 0.1 s of work for 256 x 256 pixels). beta is clamped to 0.5 ... 2. */
void speckle_start_scan(struct speckle *speckle, double beta, uint64_t scan_index);

/*
 * The photons of one frame at internal time `theta` (counted from the start of the scan, so that it stays small),
 * with the beam at `flux` times its nominal flux. Returns the number of events, or ERR_FULL when they are more than
 * `n_max` (speckle_events_max is always enough at flux 1).
 */
int speckle_draw_frame(struct speckle *speckle, double theta, double flux, struct speckle_event *ret_events, int n_max);
int speckle_events_max(const struct speckle *speckle);

/* a^2 (1 - 1/M), and (1 - a)^2 var(b). */
double speckle_contrast(const struct speckle *speckle);
double speckle_baseline(const struct speckle *speckle);

#endif
