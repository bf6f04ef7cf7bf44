/*
 * Memory in pages of 2 MB where the system has them: what is visited here and there, pixel by pixel or plane by plane,
 * is in a page of its own each time otherwise.
 */
#ifndef ANALYSIS_PAGES_H
#define ANALYSIS_PAGES_H

#include <stddef.h>
#include <sys/mman.h>

/* Zero, and taken only where it is touched. NULL without memory; give it back with munmap. */
static inline void *pages_map(size_t n_bytes)
{
    void *memory = mmap(NULL, n_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        return NULL;
    madvise(memory, n_bytes, MADV_HUGEPAGE);
    return memory;
}

#endif
