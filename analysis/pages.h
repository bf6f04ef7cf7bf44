/*
 * Memory in pages of 2 MB where the system has them: what is visited here and there, pixel by pixel or plane by plane,
 * is in a page of its own each time otherwise.
 */
#ifndef ANALYSIS_PAGES_H
#define ANALYSIS_PAGES_H

#include <stddef.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

/* Zero, and taken only where it is touched. NULL without memory; give it back with munmap. */
static inline void *pages_map(size_t n_bytes)
{
    void *memory = mmap(NULL, n_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        return NULL;
    madvise(memory, n_bytes, MADV_HUGEPAGE);
    return memory;
}

/* Bytes that can be had without pushing anybody out (MemAvailable, proc(5)); where the system does not say, a quarter
 * of what it has. */
static inline size_t pages_available(void)
{
    size_t kilobytes = 0;
    char line[200];
    FILE *stream = fopen("/proc/meminfo", "re");
    while (stream && fgets(line, sizeof line, stream) && sscanf(line, "MemAvailable: %zu kB", &kilobytes) != 1)
        continue;
    if (stream)
        fclose(stream);
    return kilobytes ? 1024 * kilobytes : (size_t)sysconf(_SC_PHYS_PAGES) / 4 * (size_t)sysconf(_SC_PAGESIZE);
}

#endif
