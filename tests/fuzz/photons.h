/* What every frame of events must be, whoever has made it: of tests/fuzz_frames.c and tests/fuzz_event_cache.c. */
#ifndef TESTS_FUZZ_PHOTONS_H
#define TESTS_FUZZ_PHOTONS_H

#include "analysis/event.h"
#include "tests/fuzz.h"

static inline void fuzz_check_photons(const struct event_frame *frame, const uint64_t *valid_bits, size_t n_pixels)
{
    size_t next_bright = 0;
    for (size_t i = 0; i < frame->n_events; i++) {
        uint32_t pixel = event_pixel(frame, i), count = event_count(frame, i, &next_bright);
        FUZZ_CHECK(pixel < n_pixels && (i == 0 || pixel > event_pixel(frame, i - 1)), "pixel %u", pixel);
        FUZZ_CHECK((valid_bits[pixel / 64] >> pixel % 64 & 1) && count >= 1, "%u photons in pixel %u", count, pixel);
    }
}

#endif
