#include "sample.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "error.h"
#include "numbers.h"

namespace outrider {
namespace {

struct Candidate {
  float logit;
  int token;
};
bool better(const Candidate& a, const Candidate& b) {
  return a.logit != b.logit ? a.logit > b.logit : a.token < b.token;
}

// The `count` best tokens in order. A scan that skips whatever cannot enter the list keeps it at memory speed.
std::vector<Candidate> best(const Kernels& kernels, const float* logits, int vocab, int count) {
  std::vector<Candidate> heap;  // the worst of the best on top
  count = std::min(count, vocab);
  heap.reserve(size_t(count));
  int i = 0;
  for (; i < count; i++) heap.push_back({logits[i], i});
  std::make_heap(heap.begin(), heap.end(), better);
  while ((i = kernels.firstAbove(logits, i, vocab, heap.front().logit)) < vocab) {
    std::pop_heap(heap.begin(), heap.end(), better);
    heap.back() = {logits[i], i};
    std::push_heap(heap.begin(), heap.end(), better);
    i++;
  }
  std::sort(heap.begin(), heap.end(), better);
  return heap;
}

// All tokens with a logit of at least `bound`, best first.
std::vector<Candidate> above(const Kernels& kernels, const float* logits, int vocab, float bound) {
  std::vector<Candidate> found;
  const float below = std::nextafter(bound, -__builtin_inff());
  for (int i = 0; (i = kernels.firstAbove(logits, i, vocab, below)) < vocab; i++) found.push_back({logits[i], i});
  std::sort(found.begin(), found.end(), better);
  return found;
}

// The smallest set of best tokens whose share of the whole mass is topP, from tokens in order; 0: more are needed.
size_t nucleus(const std::vector<Candidate>& sorted, float m, float inverse, double wanted) {
  double mass = 0;
  for (size_t i = 0; i < sorted.size(); i++) {
    mass += exp16((sorted[i].logit - m) * inverse);
    if (mass >= wanted) return i + 1;
  }
  return 0;
}

// Where the options leave out some tokens: the others, best first. At least one.
std::vector<Candidate> candidatesOf(const Kernels& kernels, const float* logits, int vocab, const PickSettings& s, float m) {
  const float inverse = 1.0f / s.temperature;
  std::vector<Candidate> candidates;
  if (s.topK > 0 && s.topK < vocab) {
    candidates = best(kernels, logits, vocab, s.topK);
    if (s.topP < 1.0f) {
      double mass = 0;
      for (const Candidate& c : candidates) mass += exp16((c.logit - m) * inverse);
      if (const size_t n = nucleus(candidates, m, inverse, double(s.topP) * mass)) candidates.resize(n);
    }
  } else if (s.topP < 1.0f) {
    const double wanted = double(s.topP) * kernels.sumExp(logits, vocab, m, inverse);
    for (float depth = 4.0f;; depth *= 2) {
      candidates = above(kernels, logits, vocab, m - depth * s.temperature);
      const size_t n = nucleus(candidates, m, inverse, wanted);
      if (n) candidates.resize(n);
      if (n || int(candidates.size()) == vocab || depth > 256.0f) break;
    }
  } else {
    candidates = above(kernels, logits, vocab, m - s.temperature * 100.0f);
  }
  if (s.minP > 0) {
    size_t n = 1;
    while (n < candidates.size() && exp16((candidates[n].logit - m) * inverse) >= s.minP) n++;
    candidates.resize(n);
  }
  return candidates;
}

bool leavesOut(const PickSettings& s, int vocab) { return (s.topK > 0 && s.topK < vocab) || s.topP < 1.0f || s.minP > 0; }

int drawByNoise(const Kernels& kernels, const float* logits, int vocab, const PickSettings& s, uint32_t position, float m) {
  const float inverse = 1.0f / s.temperature;
  const uint64_t key = noiseKey(s.seed, position);
  if (!leavesOut(s, vocab)) return kernels.gumbelArgmax(logits, vocab, m, inverse, key);
  int token = -1;
  float bestValue = 0;
  for (const Candidate& c : candidatesOf(kernels, logits, vocab, s, m)) {
    const float value = (c.logit - m) * inverse + gumbel(key, uint32_t(c.token));
    if (token < 0 || value > bestValue || (value == bestValue && c.token < token)) { bestValue = value; token = c.token; }
  }
  return token;
}

// The part of [0, total) that holds a point, parts coming one after another. A point that rounding left behind the last
// part is in the last one that is not empty.
struct Walk {
  double target, low = 0, part = 0;  // the found part begins at `low`
  double passed = 0;
  int token = -1;
  bool take(int candidate, double mass) {
    if (mass > 0) {
      low = passed;
      part = mass;
      token = candidate;
    }
    passed += mass;
    return mass > 0 && target < passed;
  }
};

constexpr int kCodeSpan = 1024;  // tokens whose masses are added up at memory speed before the walk
constexpr double kCoarse = 0x1p-30, kFine = 0x1p-53;

int drawByCode(const Kernels& kernels, const float* logits, int vocab, const PickSettings& s, uint32_t position, float m, Code& code) {
  const float inverse = 1.0f / s.temperature;
  Walk walk{code.point};
  double total = 0;
  if (leavesOut(s, vocab)) {
    const std::vector<Candidate> candidates = candidatesOf(kernels, logits, vocab, s, m);
    for (const Candidate& c : candidates) total += exp16((c.logit - m) * inverse);
    walk.target *= total;
    for (const Candidate& c : candidates)
      if (walk.take(c.token, exp16((c.logit - m) * inverse))) break;
  } else {
    const int spans = (vocab + kCodeSpan - 1) / kCodeSpan;
    std::vector<float> sums(static_cast<size_t>(spans));
    for (int i = 0; i < spans; i++) {
      sums[size_t(i)] = kernels.sumExp(logits + i * kCodeSpan, std::min(kCodeSpan, vocab - i * kCodeSpan), m, inverse);
      total += sums[size_t(i)];
    }
    walk.target *= total;
    Walk spanOf = walk;
    for (int i = 0; i < spans; i++)
      if (spanOf.take(i, sums[size_t(i)])) break;
    walk.passed = spanOf.low;
    const int first = spanOf.token * kCodeSpan, end = std::min(vocab, first + kCodeSpan);
    for (int i = first; i < end; i++)
      if (walk.take(i, exp16((logits[i] - m) * inverse))) break;
  }
  code.point = std::max(0.0, (walk.target - walk.low) / walk.part);
  code.resolution = code.resolution * total / walk.part;
  if (code.resolution > kCoarse) {
    uint64_t bits;
    std::memcpy(&bits, &code.point, sizeof bits);
    code.point += std::min(code.resolution, 1.0) * (double(noiseKey(s.seed ^ bits, position) >> 11) * kFine);
    code.resolution = kFine;
  }
  code.point = std::min(code.point, 1.0 - kFine);
  return walk.token;
}

int argmax(const Kernels& kernels, const float* logits, int vocab, float m) {
  const int i = kernels.firstAbove(logits, 0, vocab, std::nextafter(m, -__builtin_inff()));
  return i < vocab ? i : 0;
}

float checkedMaximum(const Kernels& kernels, const float* logits, int vocab, uint32_t position) {
  const float m = kernels.maximum(logits, vocab);
  if (!(std::fabs(m) <= 3.4e38f))
    throw CoreError("ERR_RUNTIME_NAN", "the logits for position " + std::to_string(position) +
                                           " are not finite: the weights hold NaN or infinity, or the model is not supported");
  return m;
}

}  // namespace

Pick pick(const Kernels& kernels, float* logits, int vocab, const PickSettings& s, const Adjustments& adjust,
          Mask allowed, uint32_t position, int scored, Code* code, int top, int32_t* topTokens, float* topLogprobs) {
  const float m = checkedMaximum(kernels, logits, vocab, position);
  const float logZ = log16(kernels.sumExp(logits, vocab, m, 1.0f));
  if (top > 0) {
    const std::vector<Candidate> list = best(kernels, logits, vocab, top);
    for (int i = 0; i < top; i++) {
      const bool exists = i < int(list.size());
      topTokens[i] = exists ? list[size_t(i)].token : -1;
      topLogprobs[i] = exists ? (list[size_t(i)].logit - m) - logZ : -__builtin_inff();
    }
  }
  std::vector<float> raw(static_cast<size_t>(adjust.count));
  for (int i = 0; i < adjust.count; i++) {
    float& l = logits[adjust.tokens[i]];
    raw[size_t(i)] = l;
    l = (l > 0 ? l / adjust.repetition[i] : l * adjust.repetition[i]) + adjust.add[i];
  }
  std::vector<float> masked;
  float* choices = logits;
  if (allowed) {
    masked.resize(size_t(vocab));
    for (int i = 0; i < vocab; i++) masked[size_t(i)] = allowed[i >> 5] >> (i & 31) & 1 ? logits[i] : -__builtin_inff();
    choices = masked.data();
  }
  const float adjusted = adjust.count || allowed ? checkedMaximum(kernels, choices, vocab, position) : m;
  const int token = s.temperature == 0 ? argmax(kernels, choices, vocab, adjusted)
                    : code             ? drawByCode(kernels, choices, vocab, s, position, adjusted, *code)
                                       : drawByNoise(kernels, choices, vocab, s, position, adjusted);
  for (int i = adjust.count; i-- > 0;) logits[adjust.tokens[i]] = raw[size_t(i)];
  return {token, (logits[token] - m) - logZ, (logits[scored] - m) - logZ};
}

}  // namespace outrider
