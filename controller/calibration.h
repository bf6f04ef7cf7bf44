/*
 * The calibration of the ruler: R1 of a free ruby, read many times, becomes lambda0. Pure; + - x / sqrt only.
 *
 * A person has put the ruby in place, or opened the cell: nothing here can tell a free ruby from one under pressure but
 * the limits below. Readings are judged as a whole when all are in, most telling reason first:
 *
 *   DRIFT     the line through them moves by more than 4 sigma, and by more than 0.001 nm, from the first to the last
 *   SCATTER   they scatter by more than twice their own sigmas, or more than a fifth of them stand off
 *   RANGE     lambda0 is outside 694.0 to 694.5 nm: not free, not ruby, or another wavelength axis
 *   STRANGE   lambda0 differs from the stated one by more than three sigmas of both and of the ruby's temperature
 *   PASSPORT  lambda0 differs from that of the cell's passport by more than two rulers may (controller/cell)
 *
 * Each R1 is brought to temperature_k_zero by the ruby's temperature at that reading, measured or stated: a room that
 * warms meanwhile, and a thermometer that says so, are no drift.
 *
 * The mean is taken over the readings within 4 sigma of their median. Its sigma has two parts: of the scatter, which
 * falls with the number of readings, and of the line model, which they have in common and which does not.
 */
#ifndef CONTROLLER_CALIBRATION_H
#define CONTROLLER_CALIBRATION_H

#include <stdint.h>

#define CALIBRATION_READINGS_MIN 5
#define CALIBRATION_READINGS_MAX 200
#define CALIBRATION_NM_MIN 694.0
#define CALIBRATION_NM_MAX 694.5

/* What the beamline file says, brought into numbers before the run. */
struct calibration_settings {
    double lambda0_nm;          /* as stated */
    double lambda0_nm_sigma;    /* of that; 0: as if it were exact */
    double passport_lambda0_nm; /* of the cell's passport, at temperature_k_zero; 0: the run has none */
    double temperature_k_zero;
    double gpa_per_nm;   /* slope of the scale at lambda0 */
    char correction[24]; /* for the temperature, by name; of another name: none */
};

enum calibration_verdict {
    CALIBRATION_GOOD,
    CALIBRATION_DRIFT,
    CALIBRATION_SCATTER,
    CALIBRATION_RANGE,
    CALIBRATION_STRANGE,
    CALIBRATION_PASSPORT,
    CALIBRATION_VERDICT_COUNT
};

struct calibration_reading {
    int64_t t_ns;
    double r1_nm;                              /* as measured, at the ruby's temperature */
    double r1_nm_sigma;                        /* with what the line model is uncertain by */
    double noise_nm_sigma;                     /* without */
    double temperature_k, temperature_k_sigma; /* of the ruby; the sigma is common to all readings */
};

struct calibration {
    int32_t n_wanted, n;
    struct calibration_reading readings[CALIBRATION_READINGS_MAX];
};

struct calibration_result {
    enum calibration_verdict verdict;
    int32_t n_used;
    double lambda0_nm;       /* at temperature_k_zero */
    double lambda0_nm_sigma; /* of the line; not of the temperature */
    double r1_nm;            /* mean, as measured */
    double scatter_nm;       /* of one reading */
    double noise_nm;         /* what the readings themselves say of it */
    double drift_nm;         /* from the first to the last */
    double tolerance_nm;     /* from the stated lambda0 */
    double temperature_k;    /* of the ruby, mean */
    double temperature_k_sigma;
};

/* n_wanted within CALIBRATION_READINGS_MIN to _MAX. */
void calibration_begin(struct calibration *calibration, int32_t n_wanted);

/* A reading; those beyond n_wanted are not taken. */
void calibration_add(struct calibration *calibration, const struct calibration_reading *reading);

/* All n_wanted are in. */
void calibration_judge(const struct calibration *calibration, const struct calibration_settings *settings,
                       struct calibration_result *ret_result);

#endif
