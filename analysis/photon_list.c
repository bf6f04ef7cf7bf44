#include "analysis/photon_list.h"

#include <assert.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

int photon_list_init(struct photon_list *list, size_t n_pixels, size_t n_frames, struct err *err)
{
    *list = (struct photon_list){.n_pixels = n_pixels, .n_frames = n_frames};
    if (n_frames < 2 || n_frames > PHOTON_LIST_FRAMES_MAX)
        return err_set(err, ERR_ARG, "%zu frames: a correlation needs 2 to %d", n_frames, PHOTON_LIST_FRAMES_MAX);
    if (n_pixels < 1 || n_pixels > UINT32_MAX)
        return err_set(err, ERR_ARG, "%zu valid pixels: nothing to correlate; check the mask", n_pixels);
    list->first_event = calloc(n_frames + 1, sizeof *list->first_event);
    list->first_photon = calloc(n_pixels + 2, sizeof *list->first_photon);
    if (!list->first_event || !list->first_photon) {
        photon_list_free(list);
        return err_set(err, ERR_SYSTEM, "no memory for %zu pixels", n_pixels);
    }
    return 0;
}

int photon_list_add_frame(struct photon_list *list, size_t frame_index, const struct photon_event *events, size_t n,
                          struct err *err)
{
    assert(frame_index < list->n_frames);
    if (list->n_events + n > list->size_events) {
        size_t size = 2 * (list->n_events + n);
        struct photon_event *larger = realloc(list->events, size * sizeof *larger);
        if (!larger)
            return err_set(err, ERR_SYSTEM, "no memory for %zu events", size);
        list->events = larger;
        list->size_events = size;
    }
    if (n > 0) /* the first frame may be empty, and then there is no array yet */
        memcpy(list->events + list->n_events, events, n * sizeof *events);
    list->n_events += n;
    list->first_event[frame_index + 1] = list->n_events;
    return 0;
}

/* ---- hot pixels ---------------------------------------------------------------------------------------------- */

static uint64_t *count_photons(const struct photon_list *list)
{
    uint64_t *photons = calloc(list->n_pixels, sizeof *photons);
    for (size_t i = 0; photons && i < list->n_events; i++)
        photons[list->events[i].pixel] += list->events[i].count;
    return photons;
}

/* The limit falls with each pixel that is left out, so it is asked again until it stands. */
static uint64_t hot_limit(const uint64_t *photons, size_t n_pixels)
{
    uint64_t limit = UINT64_MAX;
    for (;;) {
        double sum = 0.0;
        size_t n = 0;
        for (size_t p = 0; p < n_pixels; p++)
            if (photons[p] <= limit) {
                sum += (double)photons[p];
                n++;
            }
        uint64_t next = (uint64_t)(PHOTON_LIST_HOT_MEANS * sum / (double)(n ? n : 1));
        if (next < PHOTON_LIST_HOT_PHOTONS)
            next = PHOTON_LIST_HOT_PHOTONS;
        if (next >= limit)
            return limit;
        limit = next;
    }
}

/* Closes the ranks of the events; `number` is the new number of each pixel, UINT32_MAX for a hot one. */
static void renumber_events(struct photon_list *list, const uint32_t *number)
{
    size_t kept = 0, i = 0;
    for (size_t t = 0; t < list->n_frames; t++) {
        for (; i < list->first_event[t + 1]; i++)
            if (number[list->events[i].pixel] != UINT32_MAX)
                list->events[kept++] = (struct photon_event){number[list->events[i].pixel], list->events[i].count};
        list->first_event[t + 1] = kept;
    }
    list->n_events = kept;
}

static int drop_hot_pixels(struct photon_list *list, struct err *err)
{
    uint64_t *photons = count_photons(list);
    uint32_t *number = malloc(list->n_pixels * sizeof *number);
    uint64_t limit = photons ? hot_limit(photons, list->n_pixels) : 0;
    for (size_t p = 0; photons && p < list->n_pixels; p++)
        list->n_hot += photons[p] > limit;
    list->hot_pixels = malloc((list->n_hot ? list->n_hot : 1) * sizeof *list->hot_pixels);
    bool has_memory = photons && number && list->hot_pixels;
    uint32_t n = 0, n_hot = 0;
    for (uint32_t p = 0; has_memory && p < list->n_pixels; p++) {
        number[p] = photons[p] > limit ? UINT32_MAX : n++;
        if (photons[p] > limit)
            list->hot_pixels[n_hot++] = p;
    }
    if (has_memory && n_hot > 0) {
        renumber_events(list, number);
        list->n_pixels = n;
    }
    free(photons);
    free(number);
    return has_memory ? 0 : err_set(err, ERR_SYSTEM, "no memory for %zu pixels", list->n_pixels);
}

/* ---- pixel by pixel ------------------------------------------------------------------------------------------ */

/* A counting sort by pixel: count, sum up, deal out in the order of the frames. */
int photon_list_finish(struct photon_list *list, struct err *err)
{
    int code = drop_hot_pixels(list, err);
    if (code)
        return code;
    size_t *next = list->first_photon + 1; /* shifted by one: after dealing out, next[p] is first_photon[p + 1] */
    for (size_t i = 0; i < list->n_events; i++)
        next[list->events[i].pixel + 1] += list->events[i].count;
    for (size_t p = 1; p <= list->n_pixels; p++)
        next[p] += next[p - 1];
    list->n_photons = next[list->n_pixels];
    list->frames = malloc((list->n_photons ? list->n_photons : 1) * sizeof *list->frames);
    if (!list->frames)
        return err_set(err, ERR_SYSTEM, "no memory for %zu photons", list->n_photons);
    for (size_t t = 0; t < list->n_frames; t++)
        for (size_t i = list->first_event[t]; i < list->first_event[t + 1]; i++)
            for (uint32_t k = 0; k < list->events[i].count; k++)
                list->frames[next[list->events[i].pixel]++] = (uint16_t)t;
    return 0;
}

void photon_list_free(struct photon_list *list)
{
    free(list->first_event);
    free(list->events);
    free(list->first_photon);
    free(list->frames);
    free(list->hot_pixels);
    *list = (struct photon_list){0};
}
