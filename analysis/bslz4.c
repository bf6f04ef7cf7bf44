#include "analysis/bslz4.h"

#include <assert.h>
#include <stdbool.h>

#include "analysis/bslz4_block.h"

#define HEADER_BYTES 12
#define BLOCK_BYTES_DEFAULT 8192
#define ELEMENTS_PER_BYTE 8
#define VECTOR_ELEMENTS 512
#define VECTOR_COUNT_MAX 3 /* the vector paths take counts up to this as photons without asking */

/* ---- paths --------------------------------------------------------------------------------------------------- */

#ifdef __x86_64__
static bslz4_decode_block *const block_decoders[BSLZ4_PATH_COUNT] = {bslz4_portable_block, bslz4_avx2_block,
                                                                     bslz4_avx512_block};

enum bslz4_path bslz4_best_path(void)
{
    if (__builtin_cpu_supports("avx512vbmi2") && __builtin_cpu_supports("avx512vbmi") &&
        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("bmi2"))
        return BSLZ4_AVX512;
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi2") ? BSLZ4_AVX2 : BSLZ4_PORTABLE;
}
#else
static bslz4_decode_block *const block_decoders[BSLZ4_PATH_COUNT] = {bslz4_portable_block};

enum bslz4_path bslz4_best_path(void) { return BSLZ4_PORTABLE; }
#endif

const char *bslz4_path_name(enum bslz4_path path)
{
    static const char *const names[BSLZ4_PATH_COUNT] = {"portable", "avx2", "avx512"};
    return names[path];
}

/* ---- a chunk ------------------------------------------------------------------------------------------------- */

static uint64_t read_big_endian(const uint8_t *bytes, int n)
{
    uint64_t value = 0;
    for (int i = 0; i < n; i++)
        value = value << 8 | bytes[i];
    return value;
}

static bool has_valid_pixel(const struct frame_shape *frame, size_t first_pixel, size_t n_elements)
{
    size_t n_words = (frame->n_pixels + 63) / 64;
    for (size_t i = 0; i < n_elements; i += 64) {
        uint64_t valid = bslz4_bits_at(frame->valid_bits, n_words, first_pixel + i);
        if (n_elements - i < 64)
            valid &= (UINT64_C(1) << (n_elements - i)) - 1;
        if (valid)
            return true;
    }
    return false;
}

/* The last few pixels stand uncompressed, little endian. */
static int scan_rest(const struct frame_shape *frame, const uint8_t *rest, size_t n_rest_bytes, size_t first_pixel,
                     struct event_sink *sink, struct err *err)
{
    size_t n_elements = frame->n_pixels - first_pixel, n_words = (frame->n_pixels + 63) / 64;
    if (n_rest_bytes != n_elements * (size_t)frame->element_bytes)
        return err_set(err, ERR_DATA, "%zu bytes after the last block, expected %zu", n_rest_bytes,
                       n_elements * (size_t)frame->element_bytes);
    for (size_t i = 0; i < n_elements; i++) {
        uint32_t count = 0;
        for (int b = frame->element_bytes - 1; b >= 0; b--)
            count = count << 8 | rest[i * (size_t)frame->element_bytes + (size_t)b];
        if (count && (bslz4_bits_at(frame->valid_bits, n_words, first_pixel + i) & 1))
            event_put(sink, frame, first_pixel + i, count);
    }
    return 0;
}

static int check_header(const struct frame_shape *frame, const uint8_t *chunk, size_t n_chunk_bytes,
                        size_t *ret_block_bytes, struct err *err)
{
    uint64_t expected = (uint64_t)frame->n_pixels * (uint64_t)frame->element_bytes;
    if (n_chunk_bytes < HEADER_BYTES)
        return err_set(err, ERR_DATA, "chunk of %zu bytes: shorter than its own header", n_chunk_bytes);
    uint64_t n_bytes = read_big_endian(chunk, 8), block_bytes = read_big_endian(chunk + 8, 4);
    if (block_bytes == 0)
        block_bytes = BLOCK_BYTES_DEFAULT;
    if (n_bytes != expected)
        return err_set(err, ERR_DATA, "chunk announces %llu bytes, a frame has %llu", (unsigned long long)n_bytes,
                       (unsigned long long)expected);
    if (block_bytes > BSLZ4_BLOCK_BYTES_MAX || block_bytes % (8 * (uint64_t)frame->element_bytes))
        return err_set(err, ERR_DATA, "block size %llu bytes: expected a multiple of %d up to %d",
                       (unsigned long long)block_bytes, 8 * frame->element_bytes, BSLZ4_BLOCK_BYTES_MAX);
    *ret_block_bytes = (size_t)block_bytes;
    return 0;
}

/* One block by `path`, or by the portable one where a vector path does not apply. */
static int decode_block(enum bslz4_path path, const struct bslz4_block *block, size_t n_bytes_behind,
                        struct event_sink *sink)
{
    bool fits_vectors = block->n_elements % VECTOR_ELEMENTS == 0 && block->first_pixel % VECTOR_ELEMENTS == 0 &&
                        block->frame->count_max >= VECTOR_COUNT_MAX && n_bytes_behind >= BSLZ4_READ_SLACK;
    if (!has_valid_pixel(block->frame, block->first_pixel, block->n_elements))
        return 0;
    return block_decoders[fits_vectors ? path : BSLZ4_PORTABLE](block, sink);
}

int bslz4_decode_frame_by(enum bslz4_path path, const struct frame_shape *frame, const uint8_t *chunk,
                          size_t n_chunk_bytes, struct event_sink *sink, struct err *err)
{
    assert(frame->element_bytes == 1 || frame->element_bytes == 2 || frame->element_bytes == 4);
    assert(frame->n_pixels <= EVENT_PIXELS_MAX && path <= bslz4_best_path());
    size_t block_bytes = 0, element_bytes = (size_t)frame->element_bytes;
    sink->n_events = sink->n_bright = sink->n_invalid = 0;
    int code = check_header(frame, chunk, n_chunk_bytes, &block_bytes, err);
    if (code)
        return code;
    size_t at = HEADER_BYTES, pixel = 0, n_blocked = frame->n_pixels / ELEMENTS_PER_BYTE * ELEMENTS_PER_BYTE;
    while (pixel < n_blocked) {
        size_t n_elements = block_bytes / element_bytes;
        if (n_elements > n_blocked - pixel)
            n_elements = n_blocked - pixel;
        if (n_chunk_bytes - at < 4)
            return err_set(err, ERR_DATA, "chunk ends at byte %zu, before pixel %zu of %zu", n_chunk_bytes, pixel,
                           frame->n_pixels);
        size_t n_in = (size_t)read_big_endian(chunk + at, 4);
        at += 4;
        if (n_in == 0 || n_in > n_chunk_bytes - at)
            return err_set(err, ERR_DATA, "block at byte %zu announces %zu bytes, %zu are left", at - 4, n_in,
                           n_chunk_bytes - at);
        struct bslz4_block block = {frame, chunk + at, n_in, n_elements, pixel};
        if (decode_block(path, &block, n_chunk_bytes - at - n_in, sink) != 0)
            return err_set(err, ERR_DATA, "block at byte %zu is not LZ4 of %zu bytes", at - 4,
                           n_elements * element_bytes);
        at += n_in;
        pixel += n_elements;
    }
    return scan_rest(frame, chunk + at, n_chunk_bytes - at, pixel, sink, err);
}

int bslz4_decode_frame(const struct frame_shape *frame, const uint8_t *chunk, size_t n_chunk_bytes,
                       struct event_sink *sink, struct err *err)
{
    return bslz4_decode_frame_by(bslz4_best_path(), frame, chunk, n_chunk_bytes, sink, err);
}
