/*
 * Seeded random numbers for the simulator: splitmix64 (Steele, Lea and Flood, OOPSLA 2014,
 * doi 10.1145/2660193.2660195), a state of one word that can be copied with what it belongs to.
 */
#ifndef SIM_RANDOM_H
#define SIM_RANDOM_H

#include <math.h>
#include <stdint.h>

struct random {
    uint64_t state;
};

static inline uint64_t random_bits(struct random *random)
{
    uint64_t z = (random->state += UINT64_C(0x9e3779b97f4a7c15));
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

/* Uniform on (0, 1): never 0, never 1. */
static inline double random_uniform(struct random *random)
{
    return ((double)(random_bits(random) >> 11) + 0.5) * 0x1p-53;
}

/* Normal with mean 0 and variance 1 (Box and Muller). */
static inline double random_normal(struct random *random)
{
    double radius = sqrt(-2.0 * log(random_uniform(random)));
    return radius * cos(6.283185307179586 * random_uniform(random));
}

#endif
