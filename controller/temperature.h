/*
 * Which temperature a ruby reading is corrected with: what the thermometer says as long as it can be believed; after
 * that the last one that was, with a wider uncertainty, because a cell does not change its temperature by losing its
 * thermometer. Pure.
 *
 *   UNREAD   no answer, no connection, severity INVALID
 *   STALE    its record has not been processed for a minute
 *   ABSURD   no number within 50 to 1000 K
 *   JUMP     another by more than 1 K and 0.1 K for each second since the last that was believed: no cell of steel does
 *            that; a change that is true is believed when there was time enough for it
 *
 * The loss is told once, and that it is over after a minute without another. A step from one reading to the next is
 * told as well: the pressure moves with it, 0.02 GPa for each kelvin, whether or not the ruby did, and a line through
 * the readings must not be taken for the sample's doing.
 */
#ifndef CONTROLLER_TEMPERATURE_H
#define CONTROLLER_TEMPERATURE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum temperature_doubt {
    TEMPERATURE_BELIEVED,
    TEMPERATURE_UNREAD,
    TEMPERATURE_STALE,
    TEMPERATURE_ABSURD,
    TEMPERATURE_JUMP,
    TEMPERATURE_DOUBT_COUNT
};

struct temperature {
    double temperature_k_sigma, temperature_k_sigma_lost; /* believed; not believed */
    double temperature_k;                                 /* last believed; at first the stated one */
    enum temperature_doubt doubt;
    bool has_believed;   /* at least once */
    int64_t believed_ns; /* when last */
    int64_t doubted_ns;
    bool is_loss_told;
    int64_t stamp_ns; /* of the record, as last seen, and since when it stands */
    int64_t stamp_wall_ns;
};

/* What was read at an instant. */
struct temperature_sample {
    bool is_read;
    double temperature_k;
    int64_t stamp_ns; /* of the record's processing, by any clock */
    int64_t t_ns, wall_ns;
};

struct temperature_use {
    double temperature_k, temperature_k_sigma;
    double step_k; /* from what was used before, when larger than twice temperature_k_sigma; else 0 */
    bool is_news;  /* a loss, or that it is over, or the first that is believed: to be told */
    double seen_k; /* NAN: nothing */
};

/* Nothing read yet: the stated temperature, which is not believed to be measured. */
struct temperature temperature_begin(double temperature_k_stated, double temperature_k_sigma,
                                     double temperature_k_sigma_lost);

struct temperature_use temperature_judge(struct temperature *temperature, const struct temperature_sample *sample);

/* What is new, as a sentence for the log; "" when there is nothing. `why_unread`: the driver's words. */
void temperature_text(const struct temperature *temperature, const struct temperature_use *use, const char *why_unread,
                      char *ret_text, size_t size);

#endif
