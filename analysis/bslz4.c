#include "analysis/bslz4.h"

#include <assert.h>
#include <lz4.h>
#include <string.h>

#define HEADER_BYTES 12
#define BLOCK_BYTES_DEFAULT 8192
#define ELEMENTS_PER_BYTE 8

/* What is being written, handed from block to block. */
struct sink {
    struct photon_event *events;
    size_t n, n_invalid;
    uint32_t count_max;
};

static uint64_t read_big_endian(const uint8_t *bytes, int n)
{
    uint64_t value = 0;
    for (int i = 0; i < n; i++)
        value = value << 8 | bytes[i];
    return value;
}

static void emit(struct sink *sink, size_t pixel, uint32_t count)
{
    if (count > sink->count_max) {
        sink->n_invalid++;
        return;
    }
    sink->events[sink->n++] = (struct photon_event){.pixel = (uint32_t)pixel, .count = count};
}

/* 64 bits of `bits` from bit `first` on; bits beyond the end are 0. */
static uint64_t bits_at(const uint64_t *bits, size_t n_words, size_t first)
{
    size_t word = first / 64, shift = first % 64;
    uint64_t value = word < n_words ? bits[word] >> shift : 0;
    if (shift && word + 1 < n_words)
        value |= bits[word + 1] << (64 - shift);
    return value;
}

/* 64 pixels of one plane; `n` bytes are there, at most 8. */
static uint64_t plane_word(const uint8_t *plane, size_t n)
{
    uint64_t word = 0;
    memcpy(&word, plane, n < 8 ? n : 8);
    return word;
}

/* Photons of one decompressed block of `n_elements` pixels, the first of them `first_pixel`. */
static void scan_planes(const struct bslz4_frame *frame, const uint8_t *block, size_t n_elements, size_t first_pixel,
                        struct sink *sink)
{
    size_t plane_bytes = n_elements / ELEMENTS_PER_BYTE, n_words = (frame->n_pixels + 63) / 64;
    int n_planes = 8 * frame->element_bytes;
    for (size_t byte = 0; byte < plane_bytes; byte += 8) {
        size_t n_bytes = plane_bytes - byte;
        uint64_t valid = bits_at(frame->valid_bits, n_words, first_pixel + 8 * byte);
        if (n_bytes < 8)
            valid &= (UINT64_C(1) << (8 * n_bytes)) - 1;
        uint64_t planes[32], any = 0;
        for (int p = 0; p < n_planes; p++) {
            planes[p] = plane_word(block + (size_t)p * plane_bytes + byte, n_bytes) & valid;
            any |= planes[p];
        }
        for (; any; any &= any - 1) {
            int bit = __builtin_ctzll(any);
            uint32_t count = 0;
            for (int p = 0; p < n_planes; p++)
                count |= (uint32_t)(planes[p] >> bit & 1) << p;
            emit(sink, first_pixel + 8 * byte + (size_t)bit, count);
        }
    }
}

/* The last few pixels stand uncompressed, little endian. */
static int scan_rest(const struct bslz4_frame *frame, const uint8_t *rest, size_t n_rest_bytes, size_t first_pixel,
                     struct sink *sink, struct err *err)
{
    size_t n_elements = frame->n_pixels - first_pixel, n_words = (frame->n_pixels + 63) / 64;
    if (n_rest_bytes != n_elements * (size_t)frame->element_bytes)
        return err_set(err, ERR_DATA, "%zu bytes after the last block, expected %zu", n_rest_bytes,
                       n_elements * (size_t)frame->element_bytes);
    for (size_t i = 0; i < n_elements; i++) {
        uint32_t count = 0;
        for (int b = frame->element_bytes - 1; b >= 0; b--)
            count = count << 8 | rest[i * (size_t)frame->element_bytes + (size_t)b];
        if (count && (bits_at(frame->valid_bits, n_words, first_pixel + i) & 1))
            emit(sink, first_pixel + i, count);
    }
    return 0;
}

static int check_header(const struct bslz4_frame *frame, const uint8_t *chunk, size_t n_chunk_bytes,
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

int bslz4_decode_frame(const struct bslz4_frame *frame, const uint8_t *chunk, size_t n_chunk_bytes,
                       struct photon_event *ret_events, size_t *ret_n, size_t *ret_n_invalid, struct err *err)
{
    assert(frame->element_bytes == 2 || frame->element_bytes == 4);
    size_t block_bytes = 0, element_bytes = (size_t)frame->element_bytes;
    int code = check_header(frame, chunk, n_chunk_bytes, &block_bytes, err);
    if (code)
        return code;
    uint8_t block[BSLZ4_BLOCK_BYTES_MAX];
    struct sink sink = {.events = ret_events, .count_max = frame->count_max};
    size_t at = HEADER_BYTES, pixel = 0, n_blocked = frame->n_pixels / ELEMENTS_PER_BYTE * ELEMENTS_PER_BYTE;
    while (pixel < n_blocked) {
        size_t n_elements = block_bytes / element_bytes;
        if (n_elements > n_blocked - pixel)
            n_elements = n_blocked - pixel;
        if (n_chunk_bytes - at < 4)
            return err_set(err, ERR_DATA, "chunk ends at byte %zu, before pixel %zu of %zu", n_chunk_bytes, pixel,
                           frame->n_pixels);
        size_t n_compressed = (size_t)read_big_endian(chunk + at, 4);
        at += 4;
        if (n_compressed == 0 || n_compressed > n_chunk_bytes - at)
            return err_set(err, ERR_DATA, "block at byte %zu announces %zu bytes, %zu are left", at - 4, n_compressed,
                           n_chunk_bytes - at);
        int n_out = LZ4_decompress_safe((const char *)chunk + at, (char *)block, (int)n_compressed,
                                        (int)(n_elements * element_bytes));
        if (n_out != (int)(n_elements * element_bytes))
            return err_set(err, ERR_DATA, "block at byte %zu is not LZ4 of %zu bytes", at - 4,
                           n_elements * element_bytes);
        scan_planes(frame, block, n_elements, pixel, &sink);
        at += n_compressed;
        pixel += n_elements;
    }
    code = scan_rest(frame, chunk + at, n_chunk_bytes - at, pixel, &sink, err);
    if (code)
        return code;
    *ret_n = sink.n;
    *ret_n_invalid = sink.n_invalid;
    return 0;
}
