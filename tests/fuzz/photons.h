/* What every frame of events must be, whoever has made it. */
#ifndef TESTS_FUZZ_PHOTONS_H
#define TESTS_FUZZ_PHOTONS_H

#include "analysis/event.h"
#include "tests/fuzz.h"

static inline void fuzz_check_photons(const struct event_frame *frame, const uint64_t *valid_bits, size_t n_pixels,
                                      uint32_t count_max)
{
    size_t next_bright = 0, n_valid = 0;
    for (size_t i = 0; i < frame->n_events; i++) {
        uint32_t pixel = event_pixel(frame, i), count = event_count(frame, i, &next_bright);
        FUZZ_CHECK(pixel < n_pixels && (i == 0 || pixel > event_pixel(frame, i - 1)), "event %zu in pixel %u", i,
                   pixel);
        FUZZ_CHECK(valid_bits[pixel / 64] >> pixel % 64 & 1, "pixel %u is masked", pixel);
        FUZZ_CHECK(count >= 1 && count <= count_max, "%u photons in pixel %u", count, pixel);
    }
    for (size_t i = 0; i < n_pixels; i++)
        n_valid += valid_bits[i / 64] >> i % 64 & 1;
    FUZZ_CHECK(frame->n_events + frame->n_invalid <= n_valid, "%zu events and %zu invalid of %zu", frame->n_events,
               frame->n_invalid, n_valid);
    FUZZ_CHECK(next_bright == frame->n_bright, "%zu of %zu bright events", next_bright, frame->n_bright);
}

#endif
