/*
 * Photon events of one frame, compact: what decoders write and correlators read. Pure.
 *
 *     one uint32 per pixel with photons, in pixel order, no pixel twice
 *       bits 0 .. pixel_bits - 1   pixel, row * n_columns + column
 *       the bits above             photons - 1; all ones: they do not fit, and the count is the next of `bright`
 *
 * pixel_bits follows from the shape (event_pixel_bits): 23 for a 4M, so up to 511 photons fit; 24 for a 9M, 25 for a
 * 16M. At 0.01 photons per pixel a frame of events is smaller than its compressed chunk.
 */
#ifndef ANALYSIS_EVENT_H
#define ANALYSIS_EVENT_H

#include <stddef.h>
#include <stdint.h>

#define EVENT_PIXELS_MAX (UINT32_C(1) << 25) /* a 16M has 1.8e7 */
#define EVENT_SLACK 64                       /* decoders store whole vectors: so many events more must be writable */

struct event_bright {
    uint32_t index; /* of the event in its frame */
    uint32_t count; /* photons */
};

struct event_frame {
    const uint32_t *events;            /* [n_events] */
    const struct event_bright *bright; /* [n_bright], ascending by index */
    size_t n_events, n_bright;
    size_t n_invalid; /* valid pixels that were saturated or flagged in this frame: no event */
    unsigned pixel_bits;
};

/* What a decoder must know of the frames of a series. */
struct frame_shape {
    size_t n_pixels;
    int element_bytes;          /* 1, 2 or 4 */
    unsigned pixel_bits;        /* event_pixel_bits(n_pixels) */
    uint32_t count_max;         /* larger counts are not photons (saturated, or flagged invalid in this frame) */
    const uint64_t *valid_bits; /* [(n_pixels + 63) / 64], bit i of word w: pixel 64 w + i is valid; 0 beyond the end */
};

/* What a decoder fills. */
struct event_sink {
    uint32_t *events;            /* [n_pixels + EVENT_SLACK] */
    struct event_bright *bright; /* [n_pixels] */
    size_t n_events, n_bright, n_invalid;
};

/* Bits that number the pixels 0 .. n_pixels - 1; n_pixels at most EVENT_PIXELS_MAX, so 7 bits are left for photons. */
static inline unsigned event_pixel_bits(size_t n_pixels)
{
    unsigned bits = 1;
    while (n_pixels > (size_t)1 << bits)
        bits++;
    return bits;
}

static inline uint32_t event_pixel(const struct event_frame *frame, size_t i)
{
    return frame->events[i] & ((UINT32_C(1) << frame->pixel_bits) - 1);
}

/* Photons of event i. Ask for i = 0, 1, 2 and on, with *next_bright 0 before the first. */
static inline uint32_t event_count(const struct event_frame *frame, size_t i, size_t *next_bright)
{
    uint32_t field = frame->events[i] >> frame->pixel_bits;
    return field == UINT32_MAX >> frame->pixel_bits ? frame->bright[(*next_bright)++].count : field + 1;
}

/* One more valid pixel with photons, in pixel order; a count above count_max is a flag and no photons. */
static inline void event_put(struct event_sink *sink, const struct frame_shape *shape, size_t pixel, uint32_t count)
{
    uint32_t field = count - 1, escape = UINT32_MAX >> shape->pixel_bits;
    if (count > shape->count_max) {
        sink->n_invalid++;
        return;
    }
    if (field >= escape) {
        field = escape;
        sink->bright[sink->n_bright++] = (struct event_bright){(uint32_t)sink->n_events, count};
    }
    sink->events[sink->n_events++] = (uint32_t)pixel | field << shape->pixel_bits;
}

/* What was put, to be read. */
static inline struct event_frame event_frame_of(const struct event_sink *sink, unsigned pixel_bits)
{
    return (struct event_frame){.events = sink->events,
                                .bright = sink->bright,
                                .n_events = sink->n_events,
                                .n_bright = sink->n_bright,
                                .n_invalid = sink->n_invalid,
                                .pixel_bits = pixel_bits};
}

#endif
