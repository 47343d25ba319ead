// SPDX-License-Identifier: Apache-2.0
// zlib, libdeflate and libzstd behind calls on whole buffers. Between calls only a decoder's memory
// is kept, one a thread.
#include "formats/common/deflate.h"

#ifdef IMGFSCK_LIBDEFLATE
#include <libdeflate.h>
#endif
#include <zlib.h>
#include <zstd.h>
#include <zstd_errors.h>

#include <limits>
#include <memory>

namespace imgfsck {
namespace {

constexpr int kDecodeWindow = -15;  // raw, and any window that a writer may have used
constexpr int kEncodeWindow = -12;  // raw, 4 KiB
constexpr int kEncodeMemory = 9;

struct FreeZstd {
  void operator()(ZSTD_DCtx* context) const { ZSTD_freeDCtx(context); }
  void operator()(ZSTD_CCtx* context) const { ZSTD_freeCCtx(context); }
};

bool FitsZlib(size_t size) { return size <= std::numeric_limits<uInt>::max(); }

Error OutOfMemory() { return {ErrorCode::kOutOfMemory, "no memory for compression", {}}; }
Error Undecodable(const char* why) { return {ErrorCode::kInvalid, why, {}}; }

// The ordinary case, quickly: a stream that ends where the output is full. Nothing for all others,
// which zlib is to judge.
std::optional<size_t> InflateQuickly([[maybe_unused]] Bytes stream,
                                     [[maybe_unused]] MutableBytes out) {
#ifdef IMGFSCK_LIBDEFLATE
  struct Free {
    void operator()(libdeflate_decompressor* d) const { libdeflate_free_decompressor(d); }
  };
  thread_local std::unique_ptr<libdeflate_decompressor, Free> decoder(
      libdeflate_alloc_decompressor());
  size_t consumed = 0;
  if (decoder &&
      libdeflate_deflate_decompress_ex(decoder.get(), stream.data(), stream.size(), out.data(),
                                       out.size(), &consumed, nullptr) == LIBDEFLATE_SUCCESS) {
    return consumed;
  }
#endif
  return std::nullopt;
}

}  // namespace

Decoded InflateRawPart(Bytes stream, MutableBytes out) {
  Decoded result;
  z_stream z{};
  if (!FitsZlib(stream.size()) || !FitsZlib(out.size()) ||
      inflateInit2(&z, kDecodeWindow) != Z_OK) {
    return result;
  }
  z.next_in = const_cast<Bytef*>(stream.data());
  z.avail_in = static_cast<uInt>(stream.size());
  z.next_out = out.data();
  z.avail_out = static_cast<uInt>(out.size());
  int outcome = inflate(&z, Z_FINISH);
  result.consumed = stream.size() - z.avail_in;
  result.produced = out.size() - z.avail_out;
  // Z_BUF_ERROR with a full output: the stream goes on, or lacks only its end mark.
  result.complete = z.avail_out == 0 && (outcome == Z_STREAM_END || outcome == Z_BUF_ERROR);
  inflateEnd(&z);
  return result;
}

Status InflateRaw(Bytes stream, MutableBytes out, size_t* consumed) {
  if (auto used = InflateQuickly(stream, out)) {
    if (consumed != nullptr) *consumed = *used;
    return Ok();
  }
  Decoded decoded = InflateRawPart(stream, out);
  if (consumed != nullptr) *consumed = decoded.consumed;
  if (!decoded.complete) return Undecodable("the compressed data does not decode to one cluster");
  return Ok();
}

Status ZstdDecode(Bytes stream, MutableBytes out, size_t* consumed) {
  thread_local std::unique_ptr<ZSTD_DCtx, FreeZstd> context(ZSTD_createDCtx());
  if (!context) return OutOfMemory();
  size_t in_at = 0, out_at = 0;
  do {
    Bytes rest = stream.subspan(in_at);
    size_t frame = ZSTD_findFrameCompressedSize(rest.data(), rest.size());
    if (ZSTD_isError(frame) != 0) return Undecodable("damaged or cut short zstd frame");
    size_t got = ZSTD_decompressDCtx(context.get(), out.data() + out_at, out.size() - out_at,
                                     rest.data(), frame);
    if (ZSTD_isError(got) != 0) return Undecodable("the zstd data does not decode to one cluster");
    in_at += frame;
    out_at += got;
  } while (out_at < out.size());
  if (consumed != nullptr) *consumed = in_at;
  return Ok();
}

Result<std::optional<ByteVector>> DeflateRaw(Bytes plain, size_t limit) {
  if (!FitsZlib(plain.size()) || !FitsZlib(limit)) {
    return Error{ErrorCode::kTooLarge, "more than one cluster to compress", {}};
  }
  z_stream z{};
  if (deflateInit2(&z, Z_DEFAULT_COMPRESSION, Z_DEFLATED, kEncodeWindow, kEncodeMemory,
                   Z_DEFAULT_STRATEGY) != Z_OK) {
    return OutOfMemory();
  }
  ByteVector out(limit);
  z.next_in = const_cast<Bytef*>(plain.data());
  z.avail_in = static_cast<uInt>(plain.size());
  z.next_out = out.data();
  z.avail_out = static_cast<uInt>(limit);
  int outcome = deflate(&z, Z_FINISH);
  out.resize(limit - z.avail_out);
  deflateEnd(&z);
  if (outcome != Z_STREAM_END) return std::optional<ByteVector>();
  return std::optional<ByteVector>(std::move(out));
}

Result<std::optional<ByteVector>> ZstdEncode(Bytes plain, size_t limit) {
  thread_local std::unique_ptr<ZSTD_CCtx, FreeZstd> context(ZSTD_createCCtx());
  if (!context) return OutOfMemory();
  ByteVector out(limit);
  size_t size = ZSTD_compressCCtx(context.get(), out.data(), limit, plain.data(), plain.size(),
                                  ZSTD_CLEVEL_DEFAULT);
  if (ZSTD_isError(size) != 0) {
    if (ZSTD_getErrorCode(size) == ZSTD_error_dstSize_tooSmall) return std::optional<ByteVector>();
    return OutOfMemory();
  }
  out.resize(size);
  return std::optional<ByteVector>(std::move(out));
}

}  // namespace imgfsck
