#include "analysis/hit.h"

#include <assert.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define SCANS_PER_FALSE_HIT 1000.0
#define PROFILE_MAX 10.0 /* brightest part over the mean */
#define CLUSTER_GROWTH 8.0
#define CLUSTER_MAX 0.9 /* of CLUSTER_GROWTH * m: above it clusters are everywhere */

enum { LINKED = 1, HIT = 2 };

struct hit_finder {
    size_t n_columns, n_pixels, n_frames, n_valid;
    const uint8_t *is_masked;
    size_t n_hits, n_photons;
    uint8_t *hits_of_pixel; /* [n_pixels], up to HIT_REPEATS */
    /* Which pixels had photons a row ago and since: pixel + label of the frame, at pixel modulo the size, a power of
     * two above two rows. It stays in the first cache and is never cleared: what it says is looked up before it counts.
     */
    uint32_t *recent;
    uint32_t n_recent, label;
    /* of the present frame's events, [n_pixels] each; only what events need is ever touched */
    uint8_t *mark;     /* LINKED: in a cluster, if only of itself; HIT; 0 between frames */
    uint32_t *linked;  /* [n_linked], the events that are */
    uint32_t *cluster; /* of a linked event: an earlier one of its cluster; of the first one, itself */
    uint64_t *weight;  /* photons of the cluster, at its first event */
    size_t n_linked;
    uint32_t *events; /* what is left */
    struct event_bright *bright;
};

int hit_open(struct hit_finder **ret_finder, size_t n_columns, size_t n_pixels, size_t n_frames,
             const uint8_t *is_masked, struct err *err)
{
    struct hit_finder *finder = calloc(1, sizeof *finder);
    assert(finder && n_columns > 0 && n_pixels <= EVENT_PIXELS_MAX);
    *finder = (struct hit_finder){
        .n_columns = n_columns, .n_pixels = n_pixels, .n_frames = n_frames, .is_masked = is_masked, .n_recent = 1};
    while (finder->n_recent < 2 * (n_columns + 2))
        finder->n_recent *= 2;
    finder->hits_of_pixel = calloc(n_pixels, 1);
    finder->recent = calloc(finder->n_recent, sizeof *finder->recent);
    finder->mark = calloc(n_pixels, 1);
    finder->linked = malloc(n_pixels * sizeof *finder->linked);
    finder->cluster = malloc(n_pixels * sizeof *finder->cluster);
    finder->weight = malloc(n_pixels * sizeof *finder->weight);
    finder->events = malloc(n_pixels * sizeof *finder->events);
    finder->bright = malloc(n_pixels * sizeof *finder->bright);
    if (!finder->hits_of_pixel || !finder->recent || !finder->mark || !finder->linked || !finder->cluster ||
        !finder->weight || !finder->events || !finder->bright) {
        hit_close(finder);
        return err_set(err, ERR_SYSTEM, "no memory to find hits in %zu pixels", n_pixels);
    }
    for (size_t p = 0; p < n_pixels; p++)
        finder->n_valid += !is_masked[p];
    *ret_finder = finder;
    return 0;
}

/* ---- what is implausible ------------------------------------------------------------------------------------- */

struct limits {
    uint32_t pixel, cluster; /* photons that make a hit */
    bool has_clusters;
};

/* The mean is that of the pixels with photons, thermal: a hot pixel's counts have no say. */
static struct limits find_limits(const struct hit_finder *finder, size_t n_events)
{
    double share = (double)n_events / (double)finder->n_valid, mean = PROFILE_MAX * share / (1.0 - share);
    double rarity = log(SCANS_PER_FALSE_HIT * (double)finder->n_valid * (double)finder->n_frames);
    struct limits limits = {UINT32_MAX, UINT32_MAX, false};
    if (!(share > 0.0 && share < 1.0))
        return limits;
    double pixel = ceil(rarity / log1p(1.0 / mean)), cluster = ceil(rarity / -log(CLUSTER_GROWTH * mean));
    limits.has_clusters = CLUSTER_GROWTH * mean < CLUSTER_MAX;
    limits.pixel = pixel < 1e9 ? (uint32_t)pixel : UINT32_MAX;
    limits.cluster = limits.has_clusters ? (uint32_t)cluster : limits.pixel;
    return limits;
}

/* ---- clusters ------------------------------------------------------------------------------------------------ */

static uint32_t first_of(struct hit_finder *finder, uint32_t event)
{
    while (finder->cluster[event] != event)
        event = finder->cluster[event] = finder->cluster[finder->cluster[event]];
    return event;
}

static void take_in(struct hit_finder *finder, uint32_t event)
{
    if (finder->mark[event])
        return;
    finder->mark[event] = LINKED;
    finder->cluster[event] = event;
    finder->weight[event] = 0;
    finder->linked[finder->n_linked++] = event;
}

static void link_events(struct hit_finder *finder, uint32_t a, uint32_t b)
{
    take_in(finder, a);
    take_in(finder, b);
    a = first_of(finder, a);
    b = first_of(finder, b);
    finder->cluster[a < b ? b : a] = a < b ? a : b;
}

/* The event of a pixel among the first n, or n. */
static size_t find_event(const struct event_frame *frame, size_t n, size_t pixel)
{
    size_t low = 0, high = n;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (event_pixel(frame, middle) < pixel)
            low = middle + 1;
        else
            high = middle;
    }
    return low < n && event_pixel(frame, low) == pixel ? low : n;
}

/* With the events to the left and above that are there. */
static void link_neighbours(struct hit_finder *finder, const struct event_frame *frame, size_t event)
{
    size_t pixel = event_pixel(frame, event), n_columns = finder->n_columns, column = pixel % n_columns;
    const size_t back[] = {1, n_columns - 1, n_columns, n_columns + 1};
    for (size_t i = 0; i < 4; i++) {
        if (back[i] > pixel || finder->is_masked[pixel - back[i]])
            continue;
        size_t other_column = (pixel - back[i]) % n_columns, other = find_event(frame, event, pixel - back[i]);
        if (other < event && column <= other_column + 1 && other_column <= column + 1)
            link_events(finder, (uint32_t)other, (uint32_t)event);
    }
}

/* ---- the frame ----------------------------------------------------------------------------------------------- */

/* Photons of one event, wherever it stands. */
static uint32_t count_of(const struct event_frame *frame, uint32_t event)
{
    size_t low = 0, high = frame->n_bright;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (frame->bright[middle].index < event)
            low = middle + 1;
        else
            high = middle;
    }
    return event_count(frame, event, &low);
}

/* Marks the events of hits; returns how many. All other marks are gone afterwards. */
static size_t mark_hits(struct hit_finder *finder, const struct event_frame *frame, const struct limits *limits)
{
    size_t n = 0;
    for (size_t i = 0; i < finder->n_linked; i++) {
        uint32_t event = finder->linked[i], count = count_of(frame, event);
        finder->weight[first_of(finder, event)] += count >= limits->pixel ? limits->cluster : count;
    }
    for (size_t i = 0; i < finder->n_linked; i++) {
        uint32_t event = finder->linked[i], first = first_of(finder, event);
        uint8_t *hits = &finder->hits_of_pixel[event_pixel(frame, event)];
        bool is_hit = finder->weight[first] >= limits->cluster;
        finder->mark[event] = is_hit ? HIT : 0;
        if (!is_hit)
            continue;
        n++;
        *hits = (uint8_t)(*hits + (*hits < HIT_REPEATS));
        finder->n_hits += event == first;
        finder->n_photons += count_of(frame, event);
    }
    return n;
}

/* The events that are no hits, and the counts that stand beside them. */
static struct event_frame without_hits(struct hit_finder *finder, const struct event_frame *frame)
{
    struct event_frame left = *frame;
    size_t next_bright = 0;
    left.events = finder->events;
    left.bright = finder->bright;
    left.n_events = left.n_bright = 0;
    for (size_t i = 0; i < frame->n_events; i++) {
        bool is_bright = next_bright < frame->n_bright && frame->bright[next_bright].index == i;
        if (!finder->mark[i]) {
            if (is_bright)
                finder->bright[left.n_bright++] =
                    (struct event_bright){(uint32_t)left.n_events, frame->bright[next_bright].count};
            finder->events[left.n_events++] = frame->events[i];
        }
        finder->mark[i] = 0;
        next_bright += is_bright;
    }
    return left;
}

/* Few events are worth a second look: those with an event beside them or above, and those with many photons. That is
 * asked of all of them without a branch, for the answer cannot be foreseen one by one. */
static void look_through(struct hit_finder *finder, const struct event_frame *frame, const struct limits *limits)
{
    uint32_t escape = UINT32_MAX >> frame->pixel_bits, n_columns = (uint32_t)finder->n_columns;
    uint32_t many = limits->pixel - 1 < escape ? limits->pixel - 1 : escape, last = finder->n_recent - 1;
    uint32_t pixel_mask = (UINT32_C(1) << frame->pixel_bits) - 1, *recent = finder->recent;
    uint32_t label = finder->label += EVENT_PIXELS_MAX; /* comes round after 128 frames */
    for (size_t i = 0; i < frame->n_events; i++) {
        uint32_t pixel = frame->events[i] & pixel_mask, left = pixel - 1, above = pixel - n_columns;
        bool is_near = (recent[left & last] == label + left) | (recent[(above - 1) & last] == label + above - 1) |
                       (recent[above & last] == label + above) | (recent[(above + 1) & last] == label + above + 1);
        bool has_many = frame->events[i] >> frame->pixel_bits >= many;
        recent[pixel & last] = label + pixel;
        if (!(is_near | has_many) || finder->is_masked[pixel])
            continue;
        if (has_many && count_of(frame, (uint32_t)i) >= limits->pixel)
            take_in(finder, (uint32_t)i);
        if (limits->has_clusters)
            link_neighbours(finder, frame, i);
    }
}

struct event_frame hit_filter(struct hit_finder *finder, const struct event_frame *frame)
{
    const struct limits limits = find_limits(finder, frame->n_events);
    finder->n_linked = 0;
    look_through(finder, frame, &limits);
    return mark_hits(finder, frame, &limits) ? without_hits(finder, frame) : *frame;
}

/* ---- what was found ------------------------------------------------------------------------------------------ */

size_t hit_count(const struct hit_finder *finder) { return finder->n_hits; }

size_t hit_count_photons(const struct hit_finder *finder) { return finder->n_photons; }

void hit_mark_hot(const struct hit_finder *finder, uint8_t *is_hot)
{
    for (size_t p = 0; p < finder->n_pixels; p++)
        is_hot[p] |= finder->hits_of_pixel[p] == HIT_REPEATS && !finder->is_masked[p];
}

void hit_forget(struct hit_finder *finder)
{
    memset(finder->hits_of_pixel, 0, finder->n_pixels);
    finder->n_hits = finder->n_photons = 0;
}

void hit_close(struct hit_finder *finder)
{
    if (!finder)
        return;
    void *const memory[] = {finder->hits_of_pixel, finder->recent, finder->mark,   finder->linked,
                            finder->cluster,       finder->weight, finder->events, finder->bright};
    for (size_t i = 0; i < sizeof memory / sizeof memory[0]; i++)
        free(memory[i]);
    free(finder);
}
