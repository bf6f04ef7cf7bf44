/*
 * A scan's photons twice: frame by frame as they were read, and pixel by pixel in time. Pure (allocates).
 *
 * Hot pixels are left out when the list is finished: those with more than PHOTON_LIST_HOT_MEANS times the mean photons
 * of the pixels that remain, and more than PHOTON_LIST_HOT_PHOTONS. Speckle, exponentially distributed at worst, does
 * not reach that; one such pixel would weigh like thousands in g2, and its pairs cost the square of its photons.
 *
 * Memory: 8 bytes per event while frames are added (at most twice that for room to grow), then 2 bytes per photon and
 * 8 per pixel beside it.
 */
#ifndef ANALYSIS_PHOTON_LIST_H
#define ANALYSIS_PHOTON_LIST_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define PHOTON_LIST_FRAMES_MAX 65535 /* frame numbers are 16 bits wide */
#define PHOTON_LIST_HOT_MEANS 50
#define PHOTON_LIST_HOT_PHOTONS 50

/* Of one frame; unpacked from analysis/event.h, its pixel renumbered. */
struct photon_event {
    uint32_t pixel;
    uint32_t count; /* photons, >= 1 */
};

struct photon_list {
    size_t
        n_pixels; /* numbered 0 .. n_pixels - 1 in the order of the detector; finishing closes the ranks of the hot */
    size_t n_frames;
    size_t n_photons;
    uint32_t *hot_pixels; /* [n_hot], ascending, by the numbers they had before */
    size_t n_hot;
    /* frame-major: events of frame t are first_event[t] .. first_event[t + 1] - 1, `pixel` is the valid pixel's number
     */
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

/* After the last frame: leaves out the hot pixels and makes the pixel-major view. Errors: ERR_SYSTEM (memory). */
int photon_list_finish(struct photon_list *list, struct err *err);

void photon_list_free(struct photon_list *list);

#endif
