#include "controller/temperature.h"

#include <math.h>
#include <stdio.h>

#include "base/clock.h"

#define TEMPERATURE_K_MIN 50.0
#define TEMPERATURE_K_MAX 1000.0
#define JUMP_K 1.0
#define JUMP_K_PER_S 0.1
#define STALE_NS (60 * NS_PER_S) /* of wall time */
#define STEP_SIGMAS 2.0
#define OVER_NS (60 * NS_PER_S) /* without doubt, until a loss is over */

struct temperature temperature_begin(double temperature_k_stated, double temperature_k_sigma,
                                     double temperature_k_sigma_lost)
{
    return (struct temperature){.temperature_k_sigma = temperature_k_sigma,
                                .temperature_k_sigma_lost = temperature_k_sigma_lost,
                                .temperature_k = temperature_k_stated};
}

static enum temperature_doubt doubt_of(const struct temperature *temperature, const struct temperature_sample *sample)
{
    if (!sample->is_read)
        return TEMPERATURE_UNREAD;
    if (sample->wall_ns - temperature->stamp_wall_ns > STALE_NS)
        return TEMPERATURE_STALE;
    if (!(sample->temperature_k >= TEMPERATURE_K_MIN && sample->temperature_k <= TEMPERATURE_K_MAX))
        return TEMPERATURE_ABSURD;
    double allowed_k = JUMP_K + JUMP_K_PER_S * s_from_ns(sample->t_ns - temperature->believed_ns);
    if (temperature->has_believed && !(fabs(sample->temperature_k - temperature->temperature_k) <= allowed_k))
        return TEMPERATURE_JUMP;
    return TEMPERATURE_BELIEVED;
}

static void believe(struct temperature *temperature, const struct temperature_sample *sample,
                    struct temperature_use *use)
{
    bool is_over = temperature->is_loss_told && sample->t_ns - temperature->doubted_ns > OVER_NS;
    double step_k = sample->temperature_k - temperature->temperature_k;
    bool is_step = fabs(step_k) > STEP_SIGMAS * temperature->temperature_k_sigma;
    use->is_news = is_over || !(temperature->has_believed || temperature->is_loss_told);
    use->step_k = temperature->has_believed && is_step ? step_k : 0;
    use->temperature_k_sigma = temperature->temperature_k_sigma;
    temperature->is_loss_told = temperature->is_loss_told && !is_over;
    temperature->temperature_k = sample->temperature_k;
    temperature->believed_ns = sample->t_ns;
    temperature->has_believed = true;
}

static void doubt(struct temperature *temperature, const struct temperature_sample *sample, struct temperature_use *use)
{
    use->is_news = !temperature->is_loss_told;
    use->temperature_k_sigma = temperature->temperature_k_sigma_lost;
    temperature->is_loss_told = true;
    temperature->doubted_ns = sample->t_ns;
}

struct temperature_use temperature_judge(struct temperature *temperature, const struct temperature_sample *sample)
{
    if (sample->is_read && (sample->stamp_ns != temperature->stamp_ns || temperature->stamp_wall_ns == 0)) {
        temperature->stamp_ns = sample->stamp_ns;
        temperature->stamp_wall_ns = sample->wall_ns;
    }
    temperature->doubt = doubt_of(temperature, sample);
    struct temperature_use use = {.seen_k = sample->is_read ? sample->temperature_k : NAN};
    if (temperature->doubt == TEMPERATURE_BELIEVED)
        believe(temperature, sample, &use);
    else
        doubt(temperature, sample, &use);
    use.temperature_k = temperature->temperature_k;
    return use;
}

void temperature_text(const struct temperature *temperature, const struct temperature_use *use, const char *why_unread,
                      char *ret_text, size_t size)
{
    char why[200] = "";
    ret_text[0] = '\0';
    switch (temperature->doubt) {
    case TEMPERATURE_BELIEVED:
        if (use->step_k != 0)
            snprintf(ret_text, size, "thermometer of the cell: %+.2f K from one ruby reading to the next, now %.2f K",
                     use->step_k, use->temperature_k);
        else if (use->is_news)
            snprintf(ret_text, size, "thermometer of the cell is believed: %.2f K, with every ruby reading",
                     use->temperature_k);
        return;
    case TEMPERATURE_UNREAD:
        snprintf(why, sizeof why, "not read (%.150s)", why_unread);
        break;
    case TEMPERATURE_STALE:
        snprintf(why, sizeof why, "stale: its record has not been processed for a minute, and holds %.2f K",
                 use->seen_k);
        break;
    case TEMPERATURE_ABSURD:
        snprintf(why, sizeof why, "absurd: %.4g K, expected %g to %g", use->seen_k, TEMPERATURE_K_MIN,
                 TEMPERATURE_K_MAX);
        break;
    case TEMPERATURE_JUMP:
        snprintf(why, sizeof why, "jumped to %.2f K, as no cell does", use->seen_k);
        break;
    case TEMPERATURE_DOUBT_COUNT:
        break;
    }
    if (use->is_news)
        snprintf(ret_text, size,
                 "thermometer of the cell %s; ruby readings go on with %s %.2f K, known to %.2g K; check the sensor",
                 why, temperature->has_believed ? "the last that was believed," : "the stated", use->temperature_k,
                 use->temperature_k_sigma);
}
