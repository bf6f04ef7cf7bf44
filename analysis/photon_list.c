#include "analysis/photon_list.h"

#include <assert.h>
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
    memcpy(list->events + list->n_events, events, n * sizeof *events);
    list->n_events += n;
    list->first_event[frame_index + 1] = list->n_events;
    return 0;
}

/* A counting sort by pixel: count, sum up, deal out in the order of the frames. */
int photon_list_finish(struct photon_list *list, struct err *err)
{
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
    *list = (struct photon_list){0};
}
