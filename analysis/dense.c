#include "analysis/dense.h"

#include <string.h>

#include "analysis/lz4_strict.h"

#define HEADER_BYTES 12

static uint64_t read_big_endian(const uint8_t *bytes, int n)
{
    uint64_t value = 0;
    for (int i = 0; i < n; i++)
        value = value << 8 | bytes[i];
    return value;
}

static uint32_t read_count(const uint8_t *bytes, int n)
{
    uint32_t value = 0;
    for (int i = 0; i < n; i++)
        value |= (uint32_t)bytes[i] << 8 * i;
    return value;
}

/* Photons of 64 neighbouring pixels at most; most have none, so 8 bytes at a time are passed over. */
static void scan_pixels(const struct frame_shape *shape, const uint8_t *bytes, size_t first_pixel, size_t n,
                        uint64_t valid, struct event_sink *sink)
{
    size_t element_bytes = (size_t)shape->element_bytes, n_per_word = 8 / element_bytes;
    for (size_t i = 0; i < n; i++) {
        uint64_t word;
        while (i % n_per_word == 0 && n - i > n_per_word &&
               (memcpy(&word, bytes + i * element_bytes, sizeof word), word == 0))
            i += n_per_word;
        uint32_t count = read_count(bytes + i * element_bytes, shape->element_bytes);
        if (count && (valid >> i & 1))
            event_put(sink, shape, first_pixel + i, count);
    }
}

int dense_decode_frame(const struct frame_shape *shape, const uint8_t *bytes, size_t n_bytes, struct event_sink *sink,
                       struct err *err)
{
    size_t element_bytes = (size_t)shape->element_bytes;
    sink->n_events = sink->n_bright = sink->n_invalid = 0;
    if (n_bytes != shape->n_pixels * element_bytes)
        return err_set(err, ERR_DATA, "%zu bytes, a frame has %zu", n_bytes, shape->n_pixels * element_bytes);
    for (size_t pixel = 0; pixel < shape->n_pixels; pixel += 64) {
        size_t n = shape->n_pixels - pixel < 64 ? shape->n_pixels - pixel : 64;
        uint64_t valid = shape->valid_bits[pixel / 64];
        if (valid)
            scan_pixels(shape, bytes + pixel * element_bytes, pixel, n, valid, sink);
    }
    return 0;
}

int dense_decode_lz4(const struct frame_shape *shape, const uint8_t *chunk, size_t n_chunk_bytes, uint8_t *scratch,
                     struct event_sink *sink, struct err *err)
{
    size_t n_frame_bytes = shape->n_pixels * (size_t)shape->element_bytes, at = HEADER_BYTES, done = 0;
    sink->n_events = sink->n_bright = sink->n_invalid = 0;
    if (n_chunk_bytes < HEADER_BYTES)
        return err_set(err, ERR_DATA, "chunk of %zu bytes: shorter than its own header", n_chunk_bytes);
    uint64_t n_announced = read_big_endian(chunk, 8), block_bytes = read_big_endian(chunk + 8, 4);
    if (n_announced != n_frame_bytes || block_bytes == 0 || block_bytes > INT32_MAX)
        return err_set(err, ERR_DATA, "chunk announces %llu bytes in blocks of %llu, a frame has %zu",
                       (unsigned long long)n_announced, (unsigned long long)block_bytes, n_frame_bytes);
    while (done < n_frame_bytes) {
        size_t n_out = n_frame_bytes - done < block_bytes ? n_frame_bytes - done : (size_t)block_bytes;
        size_t n_in = n_chunk_bytes - at < 4 ? 0 : (size_t)read_big_endian(chunk + at, 4);
        if (n_in == 0 || n_in > n_chunk_bytes - at - 4)
            return err_set(err, ERR_DATA, "block at byte %zu announces %zu bytes, %zu are left", at, n_in,
                           n_chunk_bytes - at);
        at += 4;
        if (n_in == n_out)
            memcpy(scratch + done, chunk + at, n_out);
        else if (n_in > INT32_MAX || !lz4_decode_strict(chunk + at, n_in, scratch + done, n_out))
            return err_set(err, ERR_DATA, "block at byte %zu is not LZ4 of %zu bytes", at - 4, n_out);
        at += n_in;
        done += n_out;
    }
    if (at != n_chunk_bytes)
        return err_set(err, ERR_DATA, "%zu bytes after the last block, expected none", n_chunk_bytes - at);
    return dense_decode_frame(shape, scratch, n_frame_bytes, sink, err);
}
