// Sixteen lanes of float32 or int32: the width over which sums are defined (kernels.h), on every instruction set.
// One set of operations, one back end per instruction set, chosen by what the including file is compiled for:
// AVX-512 (one register), AVX2 + FMA + F16C (two), NEON and WebAssembly's SIMD128 (four, in the compiler's vector
// types, which both of its compilers have). Another back end is another section with the same names.
//
// Everything is in an anonymous namespace and always inlined: an inline function with external linkage would be
// emitted with this file's instructions and the linker could pick that copy for code that must run anywhere.
#pragma once
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wuninitialized"  // GCC 12's own avx512fintrin.h (GCC bug 105593)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#elif defined(__wasm_simd128__)
#include <wasm_simd128.h>
#endif

#include <cstddef>
#include <cstdint>

#include "numbers.h"  // constants only: its functions have external linkage

#define LANES_INLINE [[gnu::always_inline]] inline

namespace outrider {
namespace {

#if defined(__AVX512F__)

constexpr int kAccumulators = 16;  // Floats that a loop may keep in registers beside its operands

struct Float { __m512 v; };
struct Int { __m512i v; };
struct Mask { __mmask16 v; };

LANES_INLINE Float broadcast(float f) { return {_mm512_set1_ps(f)}; }
LANES_INLINE Int broadcastInt(int32_t i) { return {_mm512_set1_epi32(i)}; }
LANES_INLINE Int laneIndex() { return {_mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)}; }

LANES_INLINE Float load(const float* p) { return {_mm512_loadu_ps(p)}; }
LANES_INLINE Int loadInt(const void* p) { return {_mm512_loadu_si512(p)}; }
LANES_INLINE void store(float* p, Float a) { _mm512_storeu_ps(p, a.v); }
LANES_INLINE void storeInt(int32_t* p, Int a) { _mm512_storeu_si512(p, a.v); }
// The first n lanes, 0 <= n <= 16; the others read as 0 and are not touched in memory.
LANES_INLINE Float loadPart(const float* p, int n) { return {_mm512_maskz_loadu_ps(__mmask16((1u << n) - 1), p)}; }
LANES_INLINE void storePart(float* p, Float a, int n) { _mm512_mask_storeu_ps(p, __mmask16((1u << n) - 1), a.v); }
LANES_INLINE Float loadHalf(const void* p) {
  return {_mm512_cvtph_ps(_mm256_loadu_si256(static_cast<const __m256i*>(p)))};
}
LANES_INLINE void storeHalf(uint16_t* p, Float a) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtps_ph(a.v, _MM_FROUND_TO_NEAREST_INT));
}
LANES_INLINE Float loadBfloat(const void* p) {
  const __m256i bits = _mm256_loadu_si256(static_cast<const __m256i*>(p));
  return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16))};
}
LANES_INLINE void storeBytes(int8_t* p, Int a) {  // the low byte of each lane
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(a.v));
}
LANES_INLINE Int loadBytes(const uint8_t* p) {  // 16 bytes, one a lane
  return {_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))};
}
// 16 pairs (even, odd) in 32 consecutive floats.
LANES_INLINE void loadPairs(const float* p, Float& even, Float& odd) {
  const __m512i evens = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
  const __m512 a = _mm512_loadu_ps(p), b = _mm512_loadu_ps(p + 16);
  even.v = _mm512_permutex2var_ps(a, evens, b);
  odd.v = _mm512_permutex2var_ps(a, _mm512_add_epi32(evens, _mm512_set1_epi32(1)), b);
}
LANES_INLINE void storePairs(float* p, Float even, Float odd) {
  const __m512i low = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
  _mm512_storeu_ps(p, _mm512_permutex2var_ps(even.v, low, odd.v));
  _mm512_storeu_ps(p + 16, _mm512_permutex2var_ps(even.v, _mm512_add_epi32(low, _mm512_set1_epi32(8)), odd.v));
}

LANES_INLINE Float fma(Float a, Float b, Float c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
LANES_INLINE Float add(Float a, Float b) { return {_mm512_add_ps(a.v, b.v)}; }
LANES_INLINE Float sub(Float a, Float b) { return {_mm512_sub_ps(a.v, b.v)}; }
LANES_INLINE Float mul(Float a, Float b) { return {_mm512_mul_ps(a.v, b.v)}; }
LANES_INLINE Float div(Float a, Float b) { return {_mm512_div_ps(a.v, b.v)}; }
LANES_INLINE Float max(Float a, Float b) { return {_mm512_max_ps(a.v, b.v)}; }  // a > b ? a : b
LANES_INLINE Float min(Float a, Float b) { return {_mm512_min_ps(a.v, b.v)}; }  // a < b ? a : b

LANES_INLINE Mask greater(Float a, Float b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_GT_OQ)}; }
LANES_INLINE Mask isNaN(Float a) { return {_mm512_cmp_ps_mask(a.v, a.v, _CMP_UNORD_Q)}; }
LANES_INLINE Mask either(Mask a, Mask b) { return {__mmask16(a.v | b.v)}; }
LANES_INLINE unsigned bits(Mask m) { return m.v; }  // lane i is bit i
// The lanes begin <= i < end.
LANES_INLINE Mask laneRange(int begin, int end) {
  const __m512i lane = laneIndex().v;
  const __mmask16 high = _mm512_cmplt_epi32_mask(lane, _mm512_set1_epi32(end));
  return {_mm512_mask_cmpge_epi32_mask(high, lane, _mm512_set1_epi32(begin))};
}
LANES_INLINE Float select(Mask m, Float yes, Float no) { return {_mm512_mask_blend_ps(m.v, no.v, yes.v)}; }
LANES_INLINE Int select(Mask m, Int yes, Int no) { return {_mm512_mask_blend_epi32(m.v, no.v, yes.v)}; }

LANES_INLINE Int add(Int a, Int b) { return {_mm512_add_epi32(a.v, b.v)}; }
LANES_INLINE Int sub(Int a, Int b) { return {_mm512_sub_epi32(a.v, b.v)}; }
LANES_INLINE Int mul(Int a, Int b) { return {_mm512_mullo_epi32(a.v, b.v)}; }
LANES_INLINE Int bitAnd(Int a, Int b) { return {_mm512_and_si512(a.v, b.v)}; }
LANES_INLINE Int bitOr(Int a, Int b) { return {_mm512_or_si512(a.v, b.v)}; }
LANES_INLINE Int bitXor(Int a, Int b) { return {_mm512_xor_si512(a.v, b.v)}; }
template <int n> LANES_INLINE Int shiftLeft(Int a) { return {_mm512_slli_epi32(a.v, n)}; }
template <int n> LANES_INLINE Int shiftRight(Int a) { return {_mm512_srli_epi32(a.v, n)}; }
template <int n> LANES_INLINE Int shiftRightSigned(Int a) { return {_mm512_srai_epi32(a.v, n)}; }

LANES_INLINE Float toFloat(Int a) { return {_mm512_cvtepi32_ps(a.v)}; }
LANES_INLINE Int asBits(Float a) { return {_mm512_castps_si512(a.v)}; }
LANES_INLINE Float asFloat(Int a) { return {_mm512_castsi512_ps(a.v)}; }

LANES_INLINE __m256 lowHalf(Float a) { return _mm512_castps512_ps256(a.v); }
LANES_INLINE __m256 highHalf(Float a) { return _mm512_extractf32x8_ps(a.v, 1); }
LANES_INLINE __m256i lowHalf(Int a) { return _mm512_castsi512_si256(a.v); }
LANES_INLINE __m256i highHalf(Int a) { return _mm512_extracti32x8_epi32(a.v, 1); }

// A register of 32-bit lanes, for bits that are unpacked a register at a time. 16 lanes are kParts of them.
constexpr int kParts = 1;
using Part = Int;
template <class T> T loadAs(const void* p);
template <class T> T broadcastAs(int32_t i);
template <> LANES_INLINE Part loadAs<Part>(const void* p) { return loadInt(p); }
template <> LANES_INLINE Part broadcastAs<Part>(int32_t i) { return broadcastInt(i); }
LANES_INLINE Part bitAndOr(Part a, Part mask, Part b) { return {_mm512_ternarylogic_epi32(a.v, mask.v, b.v, 0xea)}; }  // (a & mask) | b
LANES_INLINE Part lookUp(const int8_t* table, Part index) {  // of 16 bytes, by each byte's low half; the high half is 0
  const __m128i line = _mm_loadu_si128(reinterpret_cast<const __m128i*>(table));
  return {_mm512_shuffle_epi8(_mm512_broadcast_i32x4(line), index.v)};
}

#elif defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)

constexpr int kAccumulators = 4;

struct Float { __m256 a, b; };
struct Int { __m256i a, b; };
struct Mask { __m256 a, b; };

LANES_INLINE Float broadcast(float f) { const __m256 v = _mm256_set1_ps(f); return {v, v}; }
LANES_INLINE Int broadcastInt(int32_t i) { const __m256i v = _mm256_set1_epi32(i); return {v, v}; }
LANES_INLINE Int laneIndex() {
  return {_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), _mm256_setr_epi32(8, 9, 10, 11, 12, 13, 14, 15)};
}
// The lanes begin <= i < end.
LANES_INLINE Mask laneRange(int begin, int end) {
  const Int lane = laneIndex();
  const __m256i high = _mm256_set1_epi32(end), low = _mm256_set1_epi32(begin);
  return {_mm256_castsi256_ps(_mm256_andnot_si256(_mm256_cmpgt_epi32(low, lane.a), _mm256_cmpgt_epi32(high, lane.a))),
          _mm256_castsi256_ps(_mm256_andnot_si256(_mm256_cmpgt_epi32(low, lane.b), _mm256_cmpgt_epi32(high, lane.b)))};
}

LANES_INLINE Float load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
LANES_INLINE Int loadInt(const void* p) {
  const __m256i* words = static_cast<const __m256i*>(p);
  return {_mm256_loadu_si256(words), _mm256_loadu_si256(words + 1)};
}
LANES_INLINE void store(float* p, Float a) { _mm256_storeu_ps(p, a.a); _mm256_storeu_ps(p + 8, a.b); }
LANES_INLINE void storeInt(int32_t* p, Int a) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), a.a);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p + 8), a.b);
}
// The first n lanes, 0 <= n <= 16; the others read as 0 and are not touched in memory.
// Whole loads where n is 16: masked stores are slow on AMD (siluMul took twice as long).
LANES_INLINE Float loadPart(const float* p, int n) {
  if (n == 16) return load(p);
  const Mask m = laneRange(0, n);
  return {_mm256_maskload_ps(p, _mm256_castps_si256(m.a)), _mm256_maskload_ps(p + 8, _mm256_castps_si256(m.b))};
}
LANES_INLINE void storePart(float* p, Float a, int n) {
  if (n == 16) return store(p, a);
  const Mask m = laneRange(0, n);
  _mm256_maskstore_ps(p, _mm256_castps_si256(m.a), a.a);
  _mm256_maskstore_ps(p + 8, _mm256_castps_si256(m.b), a.b);
}
LANES_INLINE Float loadHalf(const void* p) {
  const __m128i* words = static_cast<const __m128i*>(p);
  return {_mm256_cvtph_ps(_mm_loadu_si128(words)), _mm256_cvtph_ps(_mm_loadu_si128(words + 1))};
}
LANES_INLINE void storeHalf(uint16_t* p, Float a) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(a.a, _MM_FROUND_TO_NEAREST_INT));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p + 8), _mm256_cvtps_ph(a.b, _MM_FROUND_TO_NEAREST_INT));
}
LANES_INLINE Float loadBfloat(const void* p) {
  const __m128i* words = static_cast<const __m128i*>(p);
  const __m256i a = _mm256_cvtepu16_epi32(_mm_loadu_si128(words)), b = _mm256_cvtepu16_epi32(_mm_loadu_si128(words + 1));
  return {_mm256_castsi256_ps(_mm256_slli_epi32(a, 16)), _mm256_castsi256_ps(_mm256_slli_epi32(b, 16))};
}
LANES_INLINE Int loadBytes(const uint8_t* p) {
  return {_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))),
          _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p + 8)))};
}
LANES_INLINE void storeBytes(int8_t* p, Int a) {  // the low byte of each lane
  const __m256i low = _mm256_set1_epi32(0xff);
  __m256i words = _mm256_packus_epi32(_mm256_and_si256(a.a, low), _mm256_and_si256(a.b, low));
  words = _mm256_permute4x64_epi64(words, _MM_SHUFFLE(3, 1, 2, 0));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p),
                   _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1)));
}
// 16 pairs (even, odd) in 32 consecutive floats.
LANES_INLINE void loadPairs(const float* p, Float& even, Float& odd) {
  __m256* evens[2] = {&even.a, &even.b};
  __m256* odds[2] = {&odd.a, &odd.b};
  for (int i = 0; i < 2; i++) {
    const __m256 a = _mm256_loadu_ps(p + 16 * i), b = _mm256_loadu_ps(p + 16 * i + 8);
    const __m256d e = _mm256_castps_pd(_mm256_shuffle_ps(a, b, 0x88)), o = _mm256_castps_pd(_mm256_shuffle_ps(a, b, 0xdd));
    *evens[i] = _mm256_castpd_ps(_mm256_permute4x64_pd(e, _MM_SHUFFLE(3, 1, 2, 0)));
    *odds[i] = _mm256_castpd_ps(_mm256_permute4x64_pd(o, _MM_SHUFFLE(3, 1, 2, 0)));
  }
}
LANES_INLINE void storePairs(float* p, Float even, Float odd) {
  const __m256 evens[2] = {even.a, even.b}, odds[2] = {odd.a, odd.b};
  for (int i = 0; i < 2; i++) {
    const __m256 low = _mm256_unpacklo_ps(evens[i], odds[i]), high = _mm256_unpackhi_ps(evens[i], odds[i]);
    _mm256_storeu_ps(p + 16 * i, _mm256_permute2f128_ps(low, high, 0x20));
    _mm256_storeu_ps(p + 16 * i + 8, _mm256_permute2f128_ps(low, high, 0x31));
  }
}

LANES_INLINE Float fma(Float a, Float b, Float c) {
  return {_mm256_fmadd_ps(a.a, b.a, c.a), _mm256_fmadd_ps(a.b, b.b, c.b)};
}
LANES_INLINE Float add(Float a, Float b) { return {_mm256_add_ps(a.a, b.a), _mm256_add_ps(a.b, b.b)}; }
LANES_INLINE Float sub(Float a, Float b) { return {_mm256_sub_ps(a.a, b.a), _mm256_sub_ps(a.b, b.b)}; }
LANES_INLINE Float mul(Float a, Float b) { return {_mm256_mul_ps(a.a, b.a), _mm256_mul_ps(a.b, b.b)}; }
LANES_INLINE Float div(Float a, Float b) { return {_mm256_div_ps(a.a, b.a), _mm256_div_ps(a.b, b.b)}; }
LANES_INLINE Float max(Float a, Float b) { return {_mm256_max_ps(a.a, b.a), _mm256_max_ps(a.b, b.b)}; }  // a > b ? a : b
LANES_INLINE Float min(Float a, Float b) { return {_mm256_min_ps(a.a, b.a), _mm256_min_ps(a.b, b.b)}; }  // a < b ? a : b

LANES_INLINE Mask greater(Float a, Float b) {
  return {_mm256_cmp_ps(a.a, b.a, _CMP_GT_OQ), _mm256_cmp_ps(a.b, b.b, _CMP_GT_OQ)};
}
LANES_INLINE Mask isNaN(Float a) {
  return {_mm256_cmp_ps(a.a, a.a, _CMP_UNORD_Q), _mm256_cmp_ps(a.b, a.b, _CMP_UNORD_Q)};
}
LANES_INLINE Mask either(Mask a, Mask b) { return {_mm256_or_ps(a.a, b.a), _mm256_or_ps(a.b, b.b)}; }
LANES_INLINE unsigned bits(Mask m) {  // lane i is bit i
  return unsigned(_mm256_movemask_ps(m.a)) | unsigned(_mm256_movemask_ps(m.b)) << 8;
}
LANES_INLINE Float select(Mask m, Float yes, Float no) {
  return {_mm256_blendv_ps(no.a, yes.a, m.a), _mm256_blendv_ps(no.b, yes.b, m.b)};
}
LANES_INLINE Int select(Mask m, Int yes, Int no) {
  return {_mm256_blendv_epi8(no.a, yes.a, _mm256_castps_si256(m.a)), _mm256_blendv_epi8(no.b, yes.b, _mm256_castps_si256(m.b))};
}

LANES_INLINE Int add(Int a, Int b) { return {_mm256_add_epi32(a.a, b.a), _mm256_add_epi32(a.b, b.b)}; }
LANES_INLINE Int sub(Int a, Int b) { return {_mm256_sub_epi32(a.a, b.a), _mm256_sub_epi32(a.b, b.b)}; }
LANES_INLINE Int mul(Int a, Int b) { return {_mm256_mullo_epi32(a.a, b.a), _mm256_mullo_epi32(a.b, b.b)}; }
LANES_INLINE Int bitAnd(Int a, Int b) { return {_mm256_and_si256(a.a, b.a), _mm256_and_si256(a.b, b.b)}; }
LANES_INLINE Int bitOr(Int a, Int b) { return {_mm256_or_si256(a.a, b.a), _mm256_or_si256(a.b, b.b)}; }
LANES_INLINE Int bitXor(Int a, Int b) { return {_mm256_xor_si256(a.a, b.a), _mm256_xor_si256(a.b, b.b)}; }
template <int n> LANES_INLINE Int shiftLeft(Int a) { return {_mm256_slli_epi32(a.a, n), _mm256_slli_epi32(a.b, n)}; }
template <int n> LANES_INLINE Int shiftRight(Int a) { return {_mm256_srli_epi32(a.a, n), _mm256_srli_epi32(a.b, n)}; }
template <int n> LANES_INLINE Int shiftRightSigned(Int a) {
  return {_mm256_srai_epi32(a.a, n), _mm256_srai_epi32(a.b, n)};
}

LANES_INLINE Float toFloat(Int a) { return {_mm256_cvtepi32_ps(a.a), _mm256_cvtepi32_ps(a.b)}; }
LANES_INLINE Int asBits(Float a) { return {_mm256_castps_si256(a.a), _mm256_castps_si256(a.b)}; }
LANES_INLINE Float asFloat(Int a) { return {_mm256_castsi256_ps(a.a), _mm256_castsi256_ps(a.b)}; }

LANES_INLINE __m256 lowHalf(Float a) { return a.a; }
LANES_INLINE __m256 highHalf(Float a) { return a.b; }
LANES_INLINE __m256i lowHalf(Int a) { return a.a; }
LANES_INLINE __m256i highHalf(Int a) { return a.b; }

constexpr int kParts = 2;
struct Part { __m256i v; };
template <class T> T loadAs(const void* p);
template <class T> T broadcastAs(int32_t i);
template <> LANES_INLINE Int loadAs<Int>(const void* p) { return loadInt(p); }
template <> LANES_INLINE Int broadcastAs<Int>(int32_t i) { return broadcastInt(i); }
template <> LANES_INLINE Part loadAs<Part>(const void* p) { return {_mm256_loadu_si256(static_cast<const __m256i*>(p))}; }
template <> LANES_INLINE Part broadcastAs<Part>(int32_t i) { return {_mm256_set1_epi32(i)}; }
LANES_INLINE Part bitAnd(Part a, Part b) { return {_mm256_and_si256(a.v, b.v)}; }
template <int n> LANES_INLINE Part shiftLeft(Part a) { return {_mm256_slli_epi32(a.v, n)}; }
template <int n> LANES_INLINE Part shiftRight(Part a) { return {_mm256_srli_epi32(a.v, n)}; }
LANES_INLINE Part bitAndOr(Part a, Part mask, Part b) { return {_mm256_or_si256(_mm256_and_si256(a.v, mask.v), b.v)}; }
LANES_INLINE Int bitAndOr(Int a, Int mask, Int b) { return bitOr(bitAnd(a, mask), b); }
LANES_INLINE Part lookUp(const int8_t* table, Part index) {
  const __m128i line = _mm_loadu_si128(reinterpret_cast<const __m128i*>(table));
  return {_mm256_shuffle_epi8(_mm256_broadcastsi128_si256(line), index.v)};
}
LANES_INLINE Int lookUp(const int8_t* table, Int index) { return {lookUp(table, Part{index.a}).v, lookUp(table, Part{index.b}).v}; }

#elif defined(__aarch64__) || defined(__wasm_simd128__)

#if defined(__aarch64__)
constexpr int kAccumulators = 4;  // of 32 registers
#else
constexpr int kAccumulators = 3;
#endif

typedef float Float4 [[gnu::vector_size(16)]];
typedef int32_t Int4 [[gnu::vector_size(16)]];
typedef uint32_t Unsigned4 [[gnu::vector_size(16)]];
typedef int8_t Bytes16 [[gnu::vector_size(16)]];

struct Float { Float4 a, b, c, d; };
struct Int { Int4 a, b, c, d; };
struct Mask { Int4 a, b, c, d; };  // all bits of a lane, or none

LANES_INLINE Float4 loadFour(const float* p) { Float4 v; __builtin_memcpy(&v, p, 16); return v; }
LANES_INLINE Int4 loadFour(const int32_t* p) { Int4 v; __builtin_memcpy(&v, p, 16); return v; }
LANES_INLINE void storeFour(float* p, Float4 v) { __builtin_memcpy(p, &v, 16); }
LANES_INLINE void storeFour(int32_t* p, Int4 v) { __builtin_memcpy(p, &v, 16); }
LANES_INLINE Float4 broadcastFour(float f) { return Float4{f, f, f, f}; }
LANES_INLINE Int4 broadcastFour(int32_t i) { return Int4{i, i, i, i}; }
LANES_INLINE Float4 toFloatFour(Int4 v) { return __builtin_convertvector(v, Float4); }

LANES_INLINE Float broadcast(float f) { const Float4 v = broadcastFour(f); return {v, v, v, v}; }
LANES_INLINE Int broadcastInt(int32_t i) { const Int4 v = broadcastFour(i); return {v, v, v, v}; }
LANES_INLINE Int laneIndex() { return {Int4{0, 1, 2, 3}, Int4{4, 5, 6, 7}, Int4{8, 9, 10, 11}, Int4{12, 13, 14, 15}}; }
// The lanes begin <= i < end.
LANES_INLINE Mask laneRange(int begin, int end) {
  const Int i = laneIndex();
  const Int4 from = broadcastFour(int32_t(begin)), to = broadcastFour(int32_t(end));
  return {(i.a >= from) & (i.a < to), (i.b >= from) & (i.b < to), (i.c >= from) & (i.c < to), (i.d >= from) & (i.d < to)};
}

LANES_INLINE Float load(const float* p) { return {loadFour(p), loadFour(p + 4), loadFour(p + 8), loadFour(p + 12)}; }
LANES_INLINE Int loadInt(const void* p) {
  const int32_t* words = static_cast<const int32_t*>(p);
  return {loadFour(words), loadFour(words + 4), loadFour(words + 8), loadFour(words + 12)};
}
LANES_INLINE void store(float* p, Float v) {
  storeFour(p, v.a);
  storeFour(p + 4, v.b);
  storeFour(p + 8, v.c);
  storeFour(p + 12, v.d);
}
LANES_INLINE void storeInt(int32_t* p, Int v) {
  storeFour(p, v.a);
  storeFour(p + 4, v.b);
  storeFour(p + 8, v.c);
  storeFour(p + 12, v.d);
}
// The first n lanes, 0 <= n <= 16; the others read as 0 and are not touched in memory.
LANES_INLINE Float loadPart(const float* p, int n) {
  if (n == 16) return load(p);
  float part[16] = {};
  for (int i = 0; i < n; i++) part[i] = p[i];
  return load(part);
}
LANES_INLINE void storePart(float* p, Float v, int n) {
  if (n == 16) return store(p, v);
  float part[16];
  store(part, v);
  for (int i = 0; i < n; i++) p[i] = part[i];
}
LANES_INLINE Int4 widen(const uint16_t* p) {  // four 16-bit numbers without sign
  typedef uint16_t Halves4 [[gnu::vector_size(8)]];
  Halves4 v;
  __builtin_memcpy(&v, p, 8);
  return __builtin_convertvector(v, Int4);
}
LANES_INLINE Float loadBfloat(const void* p) {
  const uint16_t* bits = static_cast<const uint16_t*>(p);
  return {Float4(widen(bits) << 16), Float4(widen(bits + 4) << 16), Float4(widen(bits + 8) << 16), Float4(widen(bits + 12) << 16)};
}
LANES_INLINE Bytes16 everySecond(Bytes16 a, Bytes16 b) {
  return __builtin_shufflevector(a, b, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
}
LANES_INLINE void storeBytes(int8_t* p, Int v) {  // the low byte of each lane
  const Bytes16 low = everySecond(Bytes16(v.a), Bytes16(v.b)), high = everySecond(Bytes16(v.c), Bytes16(v.d));
  const Bytes16 bytes = everySecond(low, high);
  __builtin_memcpy(p, &bytes, 16);
}
LANES_INLINE Int4 widen(const uint8_t* p) {
  typedef uint8_t Bytes4 [[gnu::vector_size(4)]];
  Bytes4 v;
  __builtin_memcpy(&v, p, 4);
  return __builtin_convertvector(v, Int4);
}
LANES_INLINE Int loadBytes(const uint8_t* p) { return {widen(p), widen(p + 4), widen(p + 8), widen(p + 12)}; }
// 16 pairs (even, odd) in 32 consecutive floats.
LANES_INLINE void loadPairs(const float* p, Float& even, Float& odd) {
  const Float x = load(p), y = load(p + 16);
  even = {__builtin_shufflevector(x.a, x.b, 0, 2, 4, 6), __builtin_shufflevector(x.c, x.d, 0, 2, 4, 6),
          __builtin_shufflevector(y.a, y.b, 0, 2, 4, 6), __builtin_shufflevector(y.c, y.d, 0, 2, 4, 6)};
  odd = {__builtin_shufflevector(x.a, x.b, 1, 3, 5, 7), __builtin_shufflevector(x.c, x.d, 1, 3, 5, 7),
         __builtin_shufflevector(y.a, y.b, 1, 3, 5, 7), __builtin_shufflevector(y.c, y.d, 1, 3, 5, 7)};
}
LANES_INLINE void storePairs(float* p, Float even, Float odd) {
  const Float4 evens[4] = {even.a, even.b, even.c, even.d}, odds[4] = {odd.a, odd.b, odd.c, odd.d};
  for (int i = 0; i < 4; i++) {
    storeFour(p + 8 * i, __builtin_shufflevector(evens[i], odds[i], 0, 4, 1, 5));
    storeFour(p + 8 * i + 4, __builtin_shufflevector(evens[i], odds[i], 2, 6, 3, 7));
  }
}

LANES_INLINE Float add(Float x, Float y) { return {x.a + y.a, x.b + y.b, x.c + y.c, x.d + y.d}; }
LANES_INLINE Float sub(Float x, Float y) { return {x.a - y.a, x.b - y.b, x.c - y.c, x.d - y.d}; }
LANES_INLINE Float mul(Float x, Float y) { return {x.a * y.a, x.b * y.b, x.c * y.c, x.d * y.d}; }
LANES_INLINE Float div(Float x, Float y) { return {x.a / y.a, x.b / y.b, x.c / y.c, x.d / y.d}; }
LANES_INLINE Mask greater(Float x, Float y) { return {x.a > y.a, x.b > y.b, x.c > y.c, x.d > y.d}; }
LANES_INLINE Mask isNaN(Float x) { return {x.a != x.a, x.b != x.b, x.c != x.c, x.d != x.d}; }
LANES_INLINE Mask either(Mask x, Mask y) { return {x.a | y.a, x.b | y.b, x.c | y.c, x.d | y.d}; }

LANES_INLINE Int add(Int x, Int y) { return {x.a + y.a, x.b + y.b, x.c + y.c, x.d + y.d}; }
LANES_INLINE Int sub(Int x, Int y) { return {x.a - y.a, x.b - y.b, x.c - y.c, x.d - y.d}; }
LANES_INLINE Int mul(Int x, Int y) { return {x.a * y.a, x.b * y.b, x.c * y.c, x.d * y.d}; }
LANES_INLINE Int bitAnd(Int x, Int y) { return {x.a & y.a, x.b & y.b, x.c & y.c, x.d & y.d}; }
LANES_INLINE Int bitOr(Int x, Int y) { return {x.a | y.a, x.b | y.b, x.c | y.c, x.d | y.d}; }
LANES_INLINE Int bitXor(Int x, Int y) { return {x.a ^ y.a, x.b ^ y.b, x.c ^ y.c, x.d ^ y.d}; }
template <int n> LANES_INLINE Int shiftLeft(Int x) { return {x.a << n, x.b << n, x.c << n, x.d << n}; }
template <int n> LANES_INLINE Int4 shiftRightFour(Int4 x) { return Int4(Unsigned4(x) >> n); }
template <int n> LANES_INLINE Int shiftRight(Int x) {
  return {shiftRightFour<n>(x.a), shiftRightFour<n>(x.b), shiftRightFour<n>(x.c), shiftRightFour<n>(x.d)};
}
template <int n> LANES_INLINE Int shiftRightSigned(Int x) { return {x.a >> n, x.b >> n, x.c >> n, x.d >> n}; }

constexpr int kParts = 4;
using Part = Int4;
template <class T> T loadAs(const void* p);
template <class T> T broadcastAs(int32_t i);
template <> LANES_INLINE Int loadAs<Int>(const void* p) { return loadInt(p); }
template <> LANES_INLINE Int broadcastAs<Int>(int32_t i) { return broadcastInt(i); }
template <> LANES_INLINE Part loadAs<Part>(const void* p) { return loadFour(static_cast<const int32_t*>(p)); }
template <> LANES_INLINE Part broadcastAs<Part>(int32_t i) { return broadcastFour(i); }
LANES_INLINE Part bitAnd(Part x, Part y) { return x & y; }
template <int n> LANES_INLINE Part shiftLeft(Part x) { return x << n; }
template <int n> LANES_INLINE Part shiftRight(Part x) { return shiftRightFour<n>(x); }
LANES_INLINE Part bitAndOr(Part x, Part mask, Part y) { return (x & mask) | y; }
LANES_INLINE Int bitAndOr(Int x, Int mask, Int y) { return bitOr(bitAnd(x, mask), y); }

LANES_INLINE Float toFloat(Int x) { return {toFloatFour(x.a), toFloatFour(x.b), toFloatFour(x.c), toFloatFour(x.d)}; }
LANES_INLINE Int asBits(Float x) { return {Int4(x.a), Int4(x.b), Int4(x.c), Int4(x.d)}; }
LANES_INLINE Float asFloat(Int x) { return {Float4(x.a), Float4(x.b), Float4(x.c), Float4(x.d)}; }

#if defined(__aarch64__)

LANES_INLINE Int4 selectFour(Int4 m, Int4 yes, Int4 no) { return Int4(vbslq_s32(uint32x4_t(m), int32x4_t(yes), int32x4_t(no))); }
LANES_INLINE Float4 loadHalfFour(const uint16_t* p) { return Float4(vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p)))); }
LANES_INLINE void storeHalfFour(uint16_t* p, Float4 v) { vst1_u16(p, vreinterpret_u16_f16(vcvt_f16_f32(float32x4_t(v)))); }
LANES_INLINE Float4 fmaFour(Float4 x, Float4 y, Float4 z) { return Float4(vfmaq_f32(float32x4_t(z), float32x4_t(x), float32x4_t(y))); }
LANES_INLINE unsigned bitsFour(Int4 m) { return unsigned(vaddvq_s32(int32x4_t(m & Int4{1, 2, 4, 8}))); }
LANES_INLINE Float4 maxFour(Float4 x, Float4 y) { return Float4(selectFour(x > y, Int4(x), Int4(y))); }
LANES_INLINE Float4 minFour(Float4 x, Float4 y) { return Float4(selectFour(x < y, Int4(x), Int4(y))); }
LANES_INLINE Part lookUp(const int8_t* table, Part index) {  // of 16 bytes, by each byte's low half; the high half is 0
  return Part(vqtbl1q_s8(vld1q_s8(table), uint8x16_t(index)));
}
// acc[c] += sum over i of w[i / 4][4 * c + i % 4] * x[i], i < 16: bytes with sign, x not -128.
LANES_INLINE Int4 dot16(Int4 acc, const Int4* w, const int8_t* x) {
  const int8x16_t quads = vld1q_s8(x);
#if defined(__ARM_FEATURE_DOTPROD)
  int32x4_t sum = int32x4_t(acc);
  sum = vdotq_laneq_s32(sum, int8x16_t(w[0]), quads, 0);
  sum = vdotq_laneq_s32(sum, int8x16_t(w[1]), quads, 1);
  sum = vdotq_laneq_s32(sum, int8x16_t(w[2]), quads, 2);
  sum = vdotq_laneq_s32(sum, int8x16_t(w[3]), quads, 3);
  return Int4(sum);
#else
  // Products in 16 bits, added in pairs: at most 2 * 128 * 127.
  const auto step = [&](int32x4_t sum, Int4 four, int8x16_t quad) __attribute__((always_inline)) {
    const int8x16_t bytes = int8x16_t(four);
    return vpadalq_s16(sum, vpaddq_s16(vmull_s8(vget_low_s8(bytes), vget_low_s8(quad)), vmull_high_s8(bytes, quad)));
  };
  const int32x4_t lanes = vreinterpretq_s32_s8(quads);
  int32x4_t sum = int32x4_t(acc);
  sum = step(sum, w[0], vreinterpretq_s8_s32(vdupq_laneq_s32(lanes, 0)));
  sum = step(sum, w[1], vreinterpretq_s8_s32(vdupq_laneq_s32(lanes, 1)));
  sum = step(sum, w[2], vreinterpretq_s8_s32(vdupq_laneq_s32(lanes, 2)));
  sum = step(sum, w[3], vreinterpretq_s8_s32(vdupq_laneq_s32(lanes, 3)));
  return Int4(sum);
#endif
}

#else

LANES_INLINE Int4 selectFour(Int4 m, Int4 yes, Int4 no) { return Int4(wasm_v128_bitselect(v128_t(yes), v128_t(no), v128_t(m))); }
LANES_INLINE Float4 loadHalfFour(const uint16_t* p) {
  const Int4 h = widen(p), magnitude = (h & 0x7fff) << 13, exponent = magnitude & (31 << 23);
  const Int4 normal = magnitude + (112 << 23), special = normal + (112 << 23);                      // infinity, NaN
  const Int4 subnormal = Int4(Float4(normal + (1 << 23)) - broadcastFour(0x1p-14f));
  const Int4 value = selectFour(exponent == 0, subnormal, selectFour(exponent == (31 << 23), special, normal));
  return Float4(value | (h & 0x8000) << 16);
}
LANES_INLINE void storeHalfFour(uint16_t* p, Float4 v) {  // floatToHalf of numbers.h
  const Int4 u = Int4(v), sign = shiftRightFour<16>(u) & 0x8000, magnitude = u & INT32_MAX;
  const Int4 rounded = shiftRightFour<13>(magnitude + 0xfff + (shiftRightFour<13>(magnitude) & 1) - 0x38000000);
  const Int4 subnormal = Int4(Float4(magnitude) + broadcastFour(0.5f)) - 0x3f000000;
  const Int4 nan = (shiftRightFour<13>(magnitude) & 0x3ff) | 0x7e00;
  Int4 half = selectFour(magnitude < 0x38800000, subnormal, rounded);
  half = selectFour(magnitude >= 0x477ff000, broadcastFour(int32_t(0x7c00)), half);
  half = selectFour(magnitude > 0x7f800000, nan, half) | sign;
  const Bytes16 bytes = Bytes16(half);
  const Bytes16 packed = __builtin_shufflevector(bytes, bytes, 0, 1, 4, 5, 8, 9, 12, 13, 0, 1, 4, 5, 8, 9, 12, 13);
  __builtin_memcpy(p, &packed, 8);
}
LANES_INLINE unsigned bitsFour(Int4 m) { return wasm_i32x4_bitmask(v128_t(m)); }
LANES_INLINE Float4 maxFour(Float4 x, Float4 y) { return Float4(wasm_f32x4_pmax(v128_t(y), v128_t(x))); }
LANES_INLINE Float4 minFour(Float4 x, Float4 y) { return Float4(wasm_f32x4_pmin(v128_t(y), v128_t(x))); }

#if defined(__wasm_relaxed_simd__)
// One rounding on every processor with an instruction for it; who loads this build asks first (outrider_fused).
LANES_INLINE Float4 fmaFour(Float4 x, Float4 y, Float4 z) {
  return Float4(wasm_f32x4_relaxed_madd(v128_t(x), v128_t(y), v128_t(z)));
}
#else
[[gnu::noinline]] Float4 fmaSlowly(Float4 x, Float4 y, Float4 z) {
  return Float4{__builtin_fmaf(x[0], y[0], z[0]), __builtin_fmaf(x[1], y[1], z[1]), __builtin_fmaf(x[2], y[2], z[2]),
                __builtin_fmaf(x[3], y[3], z[3])};
}
// In double the product is exact. The sum, rounded to double and then to float, is wrong only where the double lies
// just between two floats: its low 29 bits say so, or it is below the normal floats.
LANES_INLINE Float4 fmaFour(Float4 x, Float4 y, Float4 z) {
  const auto low = [](Float4 v) { return wasm_f64x2_promote_low_f32x4(v128_t(v)); };
  const auto high = [](Float4 v) { return wasm_f64x2_promote_low_f32x4(v128_t(__builtin_shufflevector(v, v, 2, 3, 2, 3))); };
  const auto doubtful = [](v128_t s) {
    const v128_t between = wasm_i64x2_eq(wasm_v128_and(s, wasm_i64x2_const_splat(0x1fffffff)), wasm_i64x2_const_splat(0x10000000));
    const v128_t tiny = wasm_f64x2_lt(wasm_f64x2_abs(s), wasm_f64x2_const_splat(0x1p-126));
    return wasm_v128_or(between, wasm_v128_and(tiny, wasm_f64x2_ne(s, wasm_f64x2_const_splat(0))));
  };
  const v128_t a = wasm_f64x2_add(wasm_f64x2_mul(low(x), low(y)), low(z));
  const v128_t b = wasm_f64x2_add(wasm_f64x2_mul(high(x), high(y)), high(z));
  if (wasm_v128_any_true(wasm_v128_or(doubtful(a), doubtful(b)))) return fmaSlowly(x, y, z);
  return Float4(wasm_i32x4_shuffle(wasm_f32x4_demote_f64x2_zero(a), wasm_f32x4_demote_f64x2_zero(b), 0, 1, 4, 5));
}
#endif

LANES_INLINE Part lookUp(const int8_t* table, Part index) {  // of 16 bytes, by each byte's low half; the high half is 0
  return Part(wasm_i8x16_swizzle(wasm_v128_load(table), v128_t(index)));
}
// acc[c] += sum over i of w[i / 4][4 * c + i % 4] * x[i], i < 16: bytes with sign, x not -128.
LANES_INLINE Int4 dot16(Int4 acc, const Int4* w, const int8_t* x) {
  v128_t low = wasm_i32x4_const_splat(0), high = low;  // two sums of each column
  for (int g = 0; g < 4; g++) {
    const v128_t quad = wasm_i16x8_extend_low_i8x16(wasm_v128_load32_splat(x + 4 * g));
    low = wasm_i32x4_add(low, wasm_i32x4_dot_i16x8(wasm_i16x8_extend_low_i8x16(v128_t(w[g])), quad));
    high = wasm_i32x4_add(high, wasm_i32x4_dot_i16x8(wasm_i16x8_extend_high_i8x16(v128_t(w[g])), quad));
  }
  return acc + Int4(wasm_i32x4_add(wasm_i32x4_shuffle(low, high, 0, 2, 4, 6), wasm_i32x4_shuffle(low, high, 1, 3, 5, 7)));
}
#endif

LANES_INLINE Int lookUp(const int8_t* table, Int index) {
  return {lookUp(table, index.a), lookUp(table, index.b), lookUp(table, index.c), lookUp(table, index.d)};
}

LANES_INLINE Float loadHalf(const void* p) {
  const uint16_t* h = static_cast<const uint16_t*>(p);
  return {loadHalfFour(h), loadHalfFour(h + 4), loadHalfFour(h + 8), loadHalfFour(h + 12)};
}
LANES_INLINE void storeHalf(uint16_t* p, Float v) {
  storeHalfFour(p, v.a);
  storeHalfFour(p + 4, v.b);
  storeHalfFour(p + 8, v.c);
  storeHalfFour(p + 12, v.d);
}
LANES_INLINE Float fma(Float x, Float y, Float z) {
  return {fmaFour(x.a, y.a, z.a), fmaFour(x.b, y.b, z.b), fmaFour(x.c, y.c, z.c), fmaFour(x.d, y.d, z.d)};
}
LANES_INLINE Float max(Float x, Float y) {  // x > y ? x : y
  return {maxFour(x.a, y.a), maxFour(x.b, y.b), maxFour(x.c, y.c), maxFour(x.d, y.d)};
}
LANES_INLINE Float min(Float x, Float y) {  // x < y ? x : y
  return {minFour(x.a, y.a), minFour(x.b, y.b), minFour(x.c, y.c), minFour(x.d, y.d)};
}
LANES_INLINE unsigned bits(Mask m) {  // lane i is bit i
  return bitsFour(m.a) | bitsFour(m.b) << 4 | bitsFour(m.c) << 8 | bitsFour(m.d) << 12;
}
LANES_INLINE Int select(Mask m, Int yes, Int no) {
  return {selectFour(m.a, yes.a, no.a), selectFour(m.b, yes.b, no.b), selectFour(m.c, yes.c, no.c), selectFour(m.d, yes.d, no.d)};
}
LANES_INLINE Float select(Mask m, Float yes, Float no) { return asFloat(select(m, asBits(yes), asBits(no))); }

LANES_INLINE float reduceAdd(Float v) {  // reduce16 of numbers.h
  const Float4 four = (v.a + v.c) + (v.b + v.d);
  const float low = four[0] + four[2], high = four[1] + four[3];
  return low + high;
}
LANES_INLINE float reduceMax(Float v) {  // of lanes without NaN; the sign of a zero is not defined
  const Float4 four = maxFour(maxFour(v.a, v.c), maxFour(v.b, v.d));
  const float low = four[0] > four[2] ? four[0] : four[2], high = four[1] > four[3] ? four[1] : four[3];
  return low > high ? low : high;
}
LANES_INLINE int32_t reduceAdd(Int v) {
  const Int4 four = (v.a + v.c) + (v.b + v.d);
  return (four[0] + four[2]) + (four[1] + four[3]);
}

#else
#error "lanes.h: this file needs -mavx512f -mavx512bw -mavx512vl -mavx512dq, or -mavx2 -mfma -mf16c, or NEON, or -msimd128"
#endif

#if defined(__x86_64__)
// From 16 lanes to one number. Both x86 back ends meet at two registers of eight.

LANES_INLINE float reduceAdd(Float v) {  // reduce16 of numbers.h
  const __m256 eight = _mm256_add_ps(lowHalf(v), highHalf(v));
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps(two, two, 1)));
}
LANES_INLINE float reduceMax(Float v) {  // of lanes without NaN; the sign of a zero is not defined
  const __m256 eight = _mm256_max_ps(lowHalf(v), highHalf(v));
  const __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(two, _mm_shuffle_ps(two, two, 1)));
}
LANES_INLINE int32_t reduceAdd(Int v) {
  const __m256i eight = _mm256_add_epi32(lowHalf(v), highHalf(v));
  const __m128i four = _mm_add_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256(eight, 1));
  const __m128i two = _mm_add_epi32(four, _mm_shuffle_epi32(four, _MM_SHUFFLE(1, 0, 3, 2)));
  return _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32(two, 1)));
}
#endif

LANES_INLINE Float negate(Float a) { return asFloat(bitXor(asBits(a), broadcastInt(INT32_MIN))); }
LANES_INLINE Float absolute(Float a) { return asFloat(bitAnd(asBits(a), broadcastInt(INT32_MAX))); }

// exp16, tanh16, gelu16, log16, gumbel of numbers.h, operation for operation.

LANES_INLINE Float exp16(Float x) {
  const Mask inRange = greater(x, broadcast(kExpLow));
  x = min(x, broadcast(kExpHigh));
  const Float shifted = fma(x, broadcast(kLog2e), broadcast(kRoundMagic));
  const Float n = sub(shifted, broadcast(kRoundMagic));
  Float r = fma(n, broadcast(-kLn2High), x);
  r = fma(n, broadcast(-kLn2Low), r);
  Float p = fma(broadcast(kExp0), r, broadcast(kExp1));
  p = fma(p, r, broadcast(kExp2));
  p = fma(p, r, broadcast(kExp3));
  p = fma(p, r, broadcast(kExp4));
  p = fma(p, r, broadcast(kExp5));
  p = add(fma(p, mul(r, r), r), broadcast(1.0f));
  return select(inRange, asFloat(add(asBits(p), shiftLeft<23>(asBits(shifted)))), broadcast(0.0f));
}

LANES_INLINE Float tanh16(Float x) {
  const Float a = absolute(x);
  const Float far = sub(broadcast(1.0f), div(broadcast(2.0f), add(exp16(add(a, a)), broadcast(1.0f))));
  const Float z = mul(x, x);
  Float p = fma(broadcast(kTanh0), z, broadcast(kTanh1));
  p = fma(p, z, broadcast(kTanh2));
  p = fma(p, z, broadcast(kTanh3));
  p = fma(p, z, broadcast(kTanh4));
  const Float near = fma(mul(p, z), x, x);
  // |far| is 0.5 or more, so its sign bit is clear and takes x's.
  const Float signedFar = asFloat(bitXor(asBits(far), bitAnd(asBits(x), broadcastInt(INT32_MIN))));
  return select(isNaN(x), x, select(greater(broadcast(kTanhSplit), a), near, signedFar));
}

LANES_INLINE Float gelu16(Float x) {
  const Float e = exp16(mul(x, fma(broadcast(kGelu3), mul(x, x), broadcast(kGelu1))));
  return div(x, add(broadcast(1.0f), e));
}

LANES_INLINE Float log16(Float x) {
  const Int offset = sub(asBits(x), broadcastInt(kLogSplit));
  const Float e = toFloat(shiftRightSigned<23>(offset));
  const Float f = sub(asFloat(add(bitAnd(offset, broadcastInt(0x7fffff)), broadcastInt(kLogSplit))), broadcast(1.0f));
  Float p = fma(broadcast(kLog0), f, broadcast(kLog1));
  p = fma(p, f, broadcast(kLog2));
  p = fma(p, f, broadcast(kLog3));
  p = fma(p, f, broadcast(kLog4));
  p = fma(p, f, broadcast(kLog5));
  p = fma(p, f, broadcast(kLog6));
  p = fma(p, f, broadcast(kLog7));
  p = fma(p, f, broadcast(kLog8));
  const Float f2 = mul(f, f);
  p = mul(mul(p, f), f2);
  p = fma(e, broadcast(-2.12194440e-4f), p);
  p = fma(f2, broadcast(-0.5f), p);
  return fma(e, broadcast(0.693359375f), add(f, p));
}

LANES_INLINE Int mix32(Int h) {
  h = bitXor(h, shiftRight<16>(h));
  h = mul(h, broadcastInt(int32_t(0x85ebca6bu)));
  h = bitXor(h, shiftRight<13>(h));
  h = mul(h, broadcastInt(int32_t(0xc2b2ae35u)));
  return bitXor(h, shiftRight<16>(h));
}
LANES_INLINE Float gumbel(uint64_t key, Int token) {
  const Int low = broadcastInt(int32_t(uint32_t(key))), high = broadcastInt(int32_t(uint32_t(key >> 32)));
  const Int h = mix32(bitXor(mix32(add(token, low)), high));
  Float u = mul(add(toFloat(shiftRight<8>(h)), broadcast(0.5f)), broadcast(0x1p-24f));
  u = min(u, broadcast(0x1.fffffep-1f));
  return negate(log16(negate(log16(u))));
}

}  // namespace
}  // namespace outrider
