// A program is a list of operator records over numbered buffers, checked once when it is loaded and run on rows
// (token, position, sequence, parent). What it means is written in TypeScript (src/models).
#pragma once
#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "cache.h"
#include "kernels.h"
#include "memory.h"
#include "pool.h"
#include "sample.h"
#include "weight.h"

namespace outrider {

// Threads and an instruction set; programs share one.
struct Core {
  Core(int threads, const std::string& instructionSet);  // "" picks the best one of this processor
  const Kernels& kernels;
  Pool pool;
};
std::vector<std::string> instructionSets();  // usable here, best first

enum class Opcode : int32_t {
  Embed = 0,      // weight, out, by (0: token, 1: position)   scale
  RmsNorm = 1,    // in, constant, out (float or quantised), accumulate  epsilon
  Quantise = 2,   // in, out
  Matmul = 3,     // in, weight, out, accumulate, bias, Finish   factor or cap; out (+)= finish(in weight + bias)
  Gated = 4,      // in, gate weight, up weight, out, Activation  out = activation(in gate) * (in up)
  Rotary = 5,     // constant (frequencies), out               magnitude; out: cosines, sines of position * frequency
  Rope = 6,       // x, rotary, heads, headDim, interleaved, norm  epsilon; norm: RMSNorm of each head before
  Store = 7,      // keys, values, layer
  Attend = 8,     // queries, out, layer, heads, window (0: all), soft cap  scale
  Add = 9,        // a, b, out
  Select = 10,    // in, out                                    rows that want logits move to the front
  LayerNorm = 11, // in, weight, bias (constants), out (float or quantised)  epsilon
  // A mixture of experts. Slot s of a row belongs to the s-th of the experts that the row chose.
  Route = 12,       // scores, routes, Gating, normalise          factor of the weights
  GatedExperts = 13,  // in, routes, gate weight, up weight, out (slots), Activation
  MatmulExperts = 14, // in (slots), routes, weight, out (slots)
  SumExperts = 15,  // in (slots), routes, out, accumulate        out (+)= sum over s of weight_s * in_s
};
constexpr int kOpcodes = 16;
enum class Gating : int32_t { Softmax = 0, Sigmoid = 1 };
// Bias, norm and soft cap: 1 + the index of a constant, or 0 for none.
enum class Finish : int32_t { Scale = 0, Gelu = 1, SoftCap = 2 };  // times factor; gelu; soft-capped
enum class Activation : int32_t { Silu = 0, Gelu = 1 };
constexpr int kOpInts = 8;  // opcode and up to seven fields

struct ProgramSpec {
  struct BufferSpec {
    int32_t quantised;  // 0: float32, 1: QuantisedRow
    int32_t outputs;    // 0: one row per row of the pass, 1: one per wanted output
    int32_t width;      // numbers in a row
    int32_t slots;      // rows for each of those rows, side by side; 1 but between the operators of a mixture of experts
  };
  std::vector<BufferSpec> buffers;
  std::vector<int32_t> ops;    // kOpInts each
  std::vector<float> scalars;  // one per op
  std::vector<std::shared_ptr<Weight>> weights;
  std::vector<std::vector<float>> constants;
  std::shared_ptr<Cache> cache;
  int32_t logits;  // buffer, outputs, width >= vocab
  int32_t vocab;   // numbers of an output row that are drawn from
  int32_t tokens;  // token ids are below this: vocab, unless the program ends before the logits
  int32_t maxRows, maxOutputs, maxPosition;
};

struct Row {
  int32_t token;
  int32_t table;     // which block table of the pass
  int32_t position;  // 0 is the first token of the sequence
  int32_t parent;    // the row before it in this pass, or -1: the table's positions up to `position` are its past
  int32_t cell;      // where its keys and values go
  int32_t output;    // 1: logits and a pick are wanted
};
constexpr int kRowInts = 6;

struct RunInput {
  std::vector<Row> rows;
  std::vector<int32_t> tables;        // block ids, all tables one after another
  std::vector<int32_t> tableOffsets;  // [tables + 1]
  std::vector<PickSettings> settings; // one per output
  std::vector<int32_t> scored;        // [outputs] tokens whose log-probabilities are wanted, or empty
  std::vector<Code> codes;            // [outputs] points that draw, negative: noise does; or empty
  std::vector<int32_t> adjustOffsets, adjustTokens;  // [outputs + 1], [adjustments]
  std::vector<float> adjustRepetition, adjustAdd;
  std::vector<int32_t> maskOf;        // [outputs] which of `masks` bounds the pick, -1: none; or empty
  std::vector<uint32_t> masks;        // [n][(vocab + 31) / 32]
  int32_t top = 0;
  bool wantLogits = false;
  // A pass over one row goes on with the token that it drew, in the table's next cell, for so many more passes, until
  // the token is one of `ends`, they have taken `followMs` or another run waits for the threads. Nothing but sampling
  // settings and a code may bear on the draws.
  int32_t follow = 0;
  double followMs = 0;
  std::vector<int32_t> ends;
};

// Where passes followed, their numbers stand behind those of the first.
struct RunOutput {
  std::vector<int32_t> tokens;       // [outputs]
  std::vector<float> logprobs;       // [outputs]
  std::vector<float> scores;         // [outputs] of the tokens `scored`
  std::vector<Code> codes;           // [outputs] for the tokens after the drawn ones, where there were some
  std::vector<int32_t> topTokens;    // [outputs * top]
  std::vector<float> topLogprobs;
  std::vector<float> logits;         // [outputs * vocab] if wanted
  double milliseconds = 0;
  bool finished = false;             // false: cancelled
};

class Program {
 public:
  Program(std::shared_ptr<Core>, ProgramSpec);  // throws CoreError, naming the operator
  // What stops or fails behind the first pass ends the run with what the passes before gave.
  RunOutput run(RunInput, const std::atomic<bool>& cancelled);

 private:
  struct Part { int op; int chunks; };  // one operator's share of a stage
  struct Buffer { uint8_t* data; size_t rowBytes; };
  struct Path;  // per row: where its own past lies
  struct Pass;
  struct Scratch {
    std::vector<float> floats;
    Memory keyBlocks, valueBlocks, expertRows;
    // While this thread attends: which operator of which pass, and whose keys and values are in its caches.
    uint32_t attendStamp = 0;
    int attendOp = -1, warmHead = -1, warmTable = -1;
    std::vector<const void*> keys, values;
    // The quantised rows of a norm that this thread computed for itself: which operator of which pass.
    Memory normed;
    uint32_t normedStamp = 0;
    int normedOp = -1;
  };
  // What an operator touches: buffers, and one number more for the cache.
  struct Access { std::vector<int> reads, writes; };
  // Operators next to an operator whose work its own chunks can do on the way; -1: none.
  struct Neighbours { int norm = -1, quantise = -1, store = -1; };

  void checkOps();
  void checkInput(const RunInput&) const;
  void checkFollow(const RunInput&) const;
  RunOutput runPass(const RunInput&, const std::atomic<bool>& cancelled);
  Access accessOf(int op) const;
  void findStages();
  void findNeighbours();
  void planChunks(int rows, int outputs, int texts);
  int chunksOf(int op, int rows, int outputs, int texts) const;
  void execute(Pass&, int op, int chunk, int chunks, int thread);
  void route(const int32_t* f, float scale, int row);
  template <class Step>
  void forExperts(int routes, int rows, int in, int inSlots, int experts, int tiles, int chunk, int chunks, int thread, Step step);
  const int32_t* fieldsIfMerged(int op) const;
  const uint8_t* inputRows(int op, int rows, int thread);
  void matmul(const int32_t* f, float scalar, const uint8_t* in, int rows, int chunk, int chunks);
  void draw(Pass&, int output);
  void attend(Pass&, const int32_t* f, float scale, int chunk, int chunks, int thread);
  const float* optionalConstant(int32_t field) const { return field == 0 ? nullptr : spec_.constants[size_t(field) - 1].data(); }
  const int32_t* fields(int op) const { return &spec_.ops[size_t(op) * kOpInts]; }
  float* floats(int buffer, int row) const {
    return reinterpret_cast<float*>(buffers_[size_t(buffer)].data + buffers_[size_t(buffer)].rowBytes * size_t(row));
  }
  uint8_t* bytes(int buffer, int row) const { return buffers_[size_t(buffer)].data + buffers_[size_t(buffer)].rowBytes * size_t(row); }

  std::shared_ptr<Core> core_;
  ProgramSpec spec_;
  Memory memory_;
  std::vector<Buffer> buffers_;
  bool streamed_ = false;  // MatmulArgs
  std::vector<std::vector<Part>> stages_;  // operators that may run side by side, with their chunks in this pass
  std::vector<Neighbours> neighbours_;     // of each operator
  std::vector<uint8_t> merged_;            // whether, in this pass, an operator's work is done by those next to it
  std::vector<int> chunks_;                // of the copies in the cache, of each stage, and of the picks
  int plannedRows_ = -1, plannedOutputs_ = -1, plannedTexts_ = -1;
  std::vector<Scratch> scratch_;          // one per thread
  std::vector<uint32_t> cellStamp_;       // run in which a cell was last written, to refuse two rows in one cell
  uint32_t stamp_ = 0;
  std::mutex running_;
};

}  // namespace outrider
