/* For any processor. */
#define VECTOR_WORDS 2
#define TILE 2

#include "analysis/planes_vector.h"

/* By byte: bits are added to their neighbours, then pairs, then nibbles. */
INLINE vector count_ones(vector bits)
{
    bits -= bits >> 1 & UINT64_C(0x5555555555555555);
    bits = (bits & UINT64_C(0x3333333333333333)) + (bits >> 2 & UINT64_C(0x3333333333333333));
    return (bits + (bits >> 4)) & UINT64_C(0x0f0f0f0f0f0f0f0f);
}

INLINE vector sum_words(vector ones)
{
    ones = (ones & UINT64_C(0x00ff00ff00ff00ff)) + (ones >> 8 & UINT64_C(0x00ff00ff00ff00ff));
    ones += ones >> 16;
    return (ones + (ones >> 32)) & 0xffff;
}

INLINE void add_counts(uint32_t pairs[TILE], const vector counts[TILE], int shift)
{
    for (size_t i = 0; i < TILE; i++)
        pairs[i] += (uint32_t)((counts[i][0] + counts[i][1]) << shift);
}

void planes_portable_chunk(const struct planes_chunk *chunk) { count_chunk(chunk); }
