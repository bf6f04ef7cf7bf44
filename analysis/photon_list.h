/*
 * A scan's photons twice: frame by frame as they were read, and pixel by pixel in time. Pure (allocates).
 */
#ifndef ANALYSIS_PHOTON_LIST_H
#define ANALYSIS_PHOTON_LIST_H

#include <stddef.h>
#include <stdint.h>

#include "analysis/bslz4.h"
#include "base/err.h"

#define PHOTON_LIST_FRAMES_MAX 65535 /* frame numbers are 16 bits wide */

struct photon_list {
    size_t n_pixels;   /* valid pixels, numbered 0 .. n_pixels - 1 in the order of the detector */
    size_t n_frames;
    size_t n_photons;
    /* frame-major: events of frame t are first_event[t] .. first_event[t + 1] - 1, `pixel` is the valid pixel's number */
    size_t *first_event; /* [n_frames + 1] */
    struct photon_event *events;
    size_t n_events, size_events;
    /* pixel-major: the frames of pixel p's photons, ascending, one entry per photon */
    size_t *first_photon; /* [n_pixels + 1] */
    uint16_t *frames;     /* [n_photons] */
};

/* Errors: ERR_ARG (frames or pixels out of range), ERR_SYSTEM (memory). Free with photon_list_free. */
int photon_list_init(struct photon_list *list, size_t n_pixels, size_t n_frames, struct err *err);

/* Appends the events of the next frame, `pixel` in valid-pixel numbers, ascending. Errors: ERR_SYSTEM (memory). */
int photon_list_add_frame(struct photon_list *list, size_t frame_index, const struct photon_event *events, size_t n,
                          struct err *err);

/* After the last frame: makes the pixel-major view. Errors: ERR_SYSTEM. */
int photon_list_finish(struct photon_list *list, struct err *err);

void photon_list_free(struct photon_list *list);

#endif
