#include "program.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <limits>
#include <thread>

#include "error.h"
#include "numbers.h"
#include "trigonometry.h"

namespace outrider {
namespace {

const char* const kNames[kOpcodes] = {"embed", "rmsNorm", "quantise", "matmul", "gated", "rotary",
                                      "rope",  "store",   "attend",   "add",    "select", "layerNorm",
                                      "route", "gatedExperts", "matmulExperts", "sumExperts"};

size_t padded(size_t n) { return (n + kLanes - 1) / kLanes * kLanes; }

const Kernels& kernelsFor(const std::string& wanted) {
  const std::vector<const Kernels*> fast = fastKernels();
  if (wanted.empty() && !fast.empty()) return *fast.front();
  for (const Kernels* table : fast)
    if (table->name == wanted) return *table;
  if (wanted.empty() || wanted == reference().name) return reference();
  std::string known;
  for (const std::string& name : instructionSets()) known += (known.empty() ? "" : ", ") + name;
  throw CoreError("ERR_PLATFORM", "instruction set \"" + wanted.substr(0, 40) + "\" is not usable on this processor; usable: " + known);
}

// Share [begin, end) of `total` pieces for one of `chunks` chunks.
struct Range { int begin, end; };
Range share(int total, int chunk, int chunks) {
  return {int(int64_t(total) * chunk / chunks), int(int64_t(total) * (chunk + 1) / chunks)};
}

// More than the caches of processors hold, as a rule.
constexpr size_t kMostCached = size_t(64) << 20;

// Tiles of a product that are finished for all rows of a step, and the room for their results.
constexpr int kStepFloats = 256 * kLanes;
int stepTiles(int rows) { return rows > 32 ? 4 : 8; }

// Share of a matrix's tiles; a pair stays together, of the weights or (`inPairs`) of what is made of them.
Range share(const Weight& w, int chunk, int chunks, bool inPairs = false) {
  const int together = w.paired || inPairs ? 2 : 1;
  const Range units = share(w.tiles / together, chunk, chunks);
  return {units.begin * together, units.end * together};
}

// Cuts a product into steps whose results fit kStepFloats: step(tile, tiles, row, rows).
template <class Step>
void forSteps(Range tiles, int rows, size_t rowBytes, Step step) {
  const int rowStep = stepRows(rowBytes), tileStep = stepTiles(std::min(rows, rowStep));
  for (int r = 0; r < rows; r += rowStep)
    for (int t = tiles.begin; t < tiles.end; t += tileStep)
      step(t, std::min(tileStep, tiles.end - t), r, std::min(rowStep, rows - r));
}

MatmulFn product(const Kernels& k, const Weight& w, bool quantised) {
  return (quantised ? k.matmulQuantised : k.matmulFloat)[typeIndex(w.type)];
}
// The cell of a position in a table of the pass, which must reach so far.
int cellIn(const RunInput& in, int table, int position) {
  return in.tables[size_t(in.tableOffsets[size_t(table)] + position / kLanes)] * kLanes + position % kLanes;
}

constexpr int kDecodingRows = 16;
constexpr int64_t kMostNormed = 4608;  // numbers that every thread normalises for itself (findNeighbours)
constexpr size_t kCachedBytes = size_t(512) << 10;  // keys and values of a head that stay in the second-level cache

}  // namespace

std::vector<std::string> instructionSets() {
  std::vector<std::string> usable;
  for (const Kernels* table : fastKernels()) usable.push_back(table->name);
  usable.push_back(reference().name);
  return usable;
}

Core::Core(int threads, const std::string& instructionSet) : kernels(kernelsFor(instructionSet)), pool(threads) {}

// Where a row's past lies: the table's positions below `base`, then its ancestors in the pass and itself.
struct Program::Path {
  int base;
  int firstIrregular;  // first block that must be gathered since a position is not in its table's cell
};

struct Program::Pass {
  const RunInput& in;
  int rows, outputs;
  std::vector<Path> paths;
  std::vector<int> outputRows;
  RunOutput* out;
  const std::atomic<bool>* cancelled;
  Program* program;
  std::mutex failure;
  std::string failureCode, failureMessage;
  std::atomic<bool> failed{false}, copied{false};

  const int32_t* table(const Row& row) const { return in.tables.data() + in.tableOffsets[size_t(row.table)]; }
  bool hasCode(int output) const { return !in.codes.empty() && in.codes[size_t(output)].point >= 0; }
  // The output of the row before an output's own, in this pass; -1: there is none.
  int outputBefore(int output) const {
    const int parent = in.rows[size_t(outputRows[size_t(output)])].parent;
    if (parent < 0 || !in.rows[size_t(parent)].output) return -1;
    return int(std::lower_bound(outputRows.begin(), outputRows.end(), parent) - outputRows.begin());
  }
  bool followsCode(int output) const { return hasCode(output) && outputBefore(output) >= 0 && hasCode(outputBefore(output)); }
  int codeRoot(int output) const {
    while (followsCode(output)) output = outputBefore(output);
    return output;
  }
  // The cell of position t on the way to row r.
  int cellOf(int r, int t) const {
    const Row* row = &in.rows[size_t(r)];
    if (t < paths[size_t(r)].base) return cellIn(in, row->table, t);
    while (row->position > t) row = &in.rows[size_t(row->parent)];
    return row->cell;
  }
};

Program::Program(std::shared_ptr<Core> core, ProgramSpec spec) : core_(std::move(core)), spec_(std::move(spec)) {
  const auto bounded = [](int64_t value, int64_t least, int64_t most, const char* what) {
    if (value < least || value > most)
      throw programError(std::string(what) + " is " + std::to_string(value) + ", expected " + std::to_string(least) +
                         " to " + std::to_string(most));
  };
  bounded(spec_.maxRows, 1, 1 << 16, "maxRows");
  bounded(spec_.maxOutputs, 1, spec_.maxRows, "maxOutputs");
  bounded(spec_.maxPosition, 1, 1 << 26, "maxPosition");
  bounded(spec_.vocab, 1, 1 << 24, "vocab");
  bounded(spec_.tokens, 1, 1 << 24, "tokens");
  bounded(int64_t(spec_.buffers.size()), 1, 1 << 16, "the number of buffers");
  bounded(int64_t(spec_.ops.size()) / kOpInts, 1, 1 << 16, "the number of operators");
  if (spec_.ops.size() % kOpInts != 0 || spec_.scalars.size() != spec_.ops.size() / kOpInts)
    throw programError("operators: " + std::to_string(spec_.ops.size()) + " numbers and " + std::to_string(spec_.scalars.size()) +
                       " scalars do not belong together");
  if (!spec_.cache) throw programError("a program needs a cache");
  for (const auto& weight : spec_.weights)
    if (!weight) throw programError("a weight is missing");
  size_t total = 0;
  std::vector<size_t> offsets;
  for (const auto& b : spec_.buffers) {
    bounded(b.width, 1, 1 << 24, "a buffer's width");
    bounded(b.slots, 1, 1024, "a buffer's slots");
    if (b.quantised && b.width % kBlock != 0)
      throw programError("a quantised buffer's width is " + std::to_string(b.width) + ", expected a multiple of 32");
    const size_t rowBytes = b.quantised ? QuantisedRow::bytes(b.width) : padded(size_t(b.width)) * 4;
    buffers_.push_back({nullptr, rowBytes});
    offsets.push_back(total);
    const size_t rows = size_t(b.outputs ? spec_.maxOutputs : spec_.maxRows) * size_t(b.slots);
    addressable(double(total) + double(rowBytes) * double(rows), "a program's buffers");
    total += (rowBytes * rows + 63) / 64 * 64;
  }
  checkOps();
  findStages();
  findNeighbours();
  size_t weightBytes = 0;
  for (const auto& weight : spec_.weights) weightBytes += Weight::packedBytes(int(weight->type), weight->rows, weight->k);
  streamed_ = weightBytes > kMostCached;
  memory_ = Memory(total);
  for (size_t i = 0; i < buffers_.size(); i++) buffers_[i].data = memory_.data() + offsets[i];
  // The rows of a decoding pass are touched now, or the first pass of each length would seem dear to whoever measures.
  for (size_t i = 0; i < buffers_.size(); i++) {
    const int rows = std::min(kDecodingRows, spec_.buffers[i].outputs ? spec_.maxOutputs : spec_.maxRows);
    std::memset(buffers_[i].data, 0, buffers_[i].rowBytes * size_t(rows) * size_t(spec_.buffers[i].slots));
  }
  scratch_.resize(size_t(core_->pool.threads()));
  for (Scratch& s : scratch_) {
    s.keyBlocks = Memory(spec_.cache->keyBlockBytes());
    s.valueBlocks = Memory(spec_.cache->valueBlockBytes());
  }
  cellStamp_.assign(size_t(spec_.cache->cells()), 0);
}

void Program::checkOps() {
  const int count = int(spec_.ops.size()) / kOpInts;
  for (int op = 0; op < count; op++) {
    const int32_t* f = fields(op);
    if (f[0] < 0 || f[0] >= kOpcodes) throw programError("operator " + std::to_string(op) + ": unknown opcode " + std::to_string(f[0]));
    const std::string where = "operator " + std::to_string(op) + " (" + kNames[f[0]] + "): ";
    const auto fail = [&](const std::string& what) { throw programError(where + what); };
    const auto index = [&](int field, size_t size, const char* what) {
      if (f[field] < 0 || size_t(f[field]) >= size)
        fail(std::string(what) + " " + std::to_string(f[field]) + ", expected 0 to " + std::to_string(int64_t(size) - 1));
    };
    const auto buffer = [&](int field, int quantised, const char* what, bool slots = false) -> const ProgramSpec::BufferSpec& {
      index(field, spec_.buffers.size(), what);
      const auto& b = spec_.buffers[size_t(f[field])];
      if (!slots && b.slots != 1) fail(std::string(what) + " must have one slot");
      if (quantised >= 0 && (b.quantised != 0) != (quantised != 0))
        fail(std::string(what) + " must be " + (quantised ? "quantised" : "float32"));
      return b;
    };
    const auto same = [&](int64_t a, int64_t b, const char* what) {
      if (a != b) fail(std::string(what) + ": " + std::to_string(a) + " and " + std::to_string(b) + " differ");
    };
    const auto weight = [&](int field) -> const Weight& {
      index(field, spec_.weights.size(), "weight");
      return *spec_.weights[size_t(f[field])];
    };
    const auto constant = [&](int field) -> const std::vector<float>& {
      index(field, spec_.constants.size(), "constant");
      return spec_.constants[size_t(f[field])];
    };
    const auto optional = [&](int field, int64_t size, const char* what) {
      if (f[field] == 0) return;
      if (f[field] < 0 || size_t(f[field]) > spec_.constants.size())
        fail(std::string(what) + " " + std::to_string(f[field]) + ", expected 0 to " + std::to_string(spec_.constants.size()));
      same(int64_t(spec_.constants[size_t(f[field]) - 1].size()), size, what);
    };
    const auto choice = [&](int field, int count, const char* what) {
      if (f[field] < 0 || f[field] >= count)
        fail(std::string(what) + " " + std::to_string(f[field]) + ", expected 0 to " + std::to_string(count - 1));
    };
    const auto scalar = [&](bool ok, const char* what) {
      if (!ok) fail(what);
    };
    const float s = spec_.scalars[size_t(op)];
    const auto positive = [&](int field, const char* what) {
      if (f[field] < 1) fail(std::string(what) + " is " + std::to_string(f[field]) + ", expected 1 or more");
    };
    const auto distinct = [&](int a, int b) {
      if (f[a] == f[b]) fail("input and output are the same buffer");
    };
    const auto product = [&](const ProgramSpec::BufferSpec& in, const Weight& w, const ProgramSpec::BufferSpec& out) {
      same(in.width, w.k, "input width and weight's row length");
      same(out.width, w.rows, "output width and weight's rows");
      same(in.outputs, out.outputs, "the rows of input and output");
      if (in.quantised && !isBlockQuantised(w.type)) fail("a float weight takes float32 input");
    };
    // Routes have a weight and an expert's number for each of the experts that a row uses.
    const auto routes = [&](int field) -> const ProgramSpec::BufferSpec& {
      const auto& b = buffer(field, 0, "routes");
      if (b.width % 2 != 0) fail("the routes' width must be even");
      return b;
    };
    const auto experts = [&](const ProgramSpec::BufferSpec& in, const Weight& w, const ProgramSpec::BufferSpec& out) {
      same(in.width, w.k, "input width and weight's row length");
      if (in.quantised && !isBlockQuantised(w.type)) fail("a float weight takes float32 input");
      if (out.width % kLanes != 0) fail("an expert's output width is " + std::to_string(out.width) + ", expected a multiple of 16");
      if (w.rows % out.width != 0) fail("the weight's rows are not those of whole experts");
    };
    const Cache& cache = *spec_.cache;
    switch (Opcode(f[0])) {
      case Opcode::Embed: {
        const Weight& w = weight(1);
        const auto& out = buffer(2, 0, "output");
        same(out.width, w.k, "output width and weight's row length");
        same(out.outputs, 0, "embedding rows");
        choice(3, 2, "by");
        if (f[3] == 0 && w.rows < spec_.tokens) fail("the weight has fewer rows than the vocabulary");
        if (f[3] == 1 && w.rows < spec_.maxPosition) fail("the weight has fewer rows than there are positions");
        break;
      }
      case Opcode::RmsNorm: {
        const auto& in = buffer(1, 0, "input");
        const auto& out = buffer(3, -1, "output");
        same(in.width, int64_t(constant(2).size()), "input width and weight");
        same(in.width, out.width, "input and output width");
        same(in.outputs, out.outputs, "the rows of input and output");
        if (f[4] != 0) {
          buffer(3, 0, "output");
          distinct(1, 3);
        }
        scalar(s >= 0, "epsilon must be 0 or more");
        break;
      }
      case Opcode::LayerNorm: {
        const auto& in = buffer(1, 0, "input");
        const auto& out = buffer(4, -1, "output");
        same(in.width, int64_t(constant(2).size()), "input width and weight");
        same(in.width, int64_t(constant(3).size()), "input width and bias");
        same(in.width, out.width, "input and output width");
        same(in.outputs, out.outputs, "the rows of input and output");
        scalar(s >= 0, "epsilon must be 0 or more");
        break;
      }
      case Opcode::Quantise: {
        const auto& in = buffer(1, 0, "input", true);
        const auto& out = buffer(2, 1, "output", true);
        same(in.width, out.width, "input and output width");
        same(in.outputs, out.outputs, "the rows of input and output");
        same(in.slots, out.slots, "the slots of input and output");
        break;
      }
      case Opcode::Matmul: {
        const auto& in = buffer(1, -1, "input");
        const Weight& w = weight(2);
        product(in, w, buffer(3, 0, "output"));
        distinct(1, 3);
        optional(5, w.rows, "output width and bias");
        choice(6, 3, "finish");
        scalar(s > -1e30f && s < 1e30f, "the factor must be finite");
        if (Finish(f[6]) == Finish::SoftCap) scalar(s >= 1e-3f, "the soft cap must be 0.001 or more");
        break;
      }
      case Opcode::Gated: {
        const auto& in = buffer(1, -1, "input");
        const Weight& gate = weight(2);
        const Weight& up = weight(3);
        const auto& out = buffer(4, 0, "output");
        product(in, gate, out);
        product(in, up, out);
        distinct(1, 4);
        choice(5, 2, "activation");
        break;
      }
      case Opcode::Rotary: {
        const auto& out = buffer(2, 0, "output");
        same(out.width, int64_t(constant(1).size()) * 2, "output width and twice the frequencies");
        same(out.outputs, 0, "rotary rows");
        for (const float frequency : constant(1))
          if (!(frequency >= 0 && frequency <= 1e6f)) fail("a frequency is not between 0 and 10^6");
        break;
      }
      case Opcode::Rope: {
        const auto& x = buffer(1, 0, "input");
        const auto& rotary = buffer(2, 0, "rotary");
        positive(3, "heads");
        positive(4, "head size");
        same(x.width, int64_t(f[3]) * f[4], "input width and heads x head size");
        if (rotary.width > f[4]) fail("the rotary part is larger than a head");
        same(x.outputs, 0, "rope rows");
        same(rotary.outputs, 0, "rotary rows");
        optional(6, f[4], "head size and norm");
        scalar(s >= 0, "epsilon must be 0 or more");
        distinct(1, 2);
        break;
      }
      case Opcode::Store: {
        const auto& k = buffer(1, 0, "keys");
        const auto& v = buffer(2, 0, "values");
        index(3, size_t(cache.layers), "layer");
        same(k.width, int64_t(cache.heads) * cache.headDim, "keys' width and the cache's heads x head size");
        same(v.width, k.width, "values' and keys' width");
        same(k.outputs, 0, "store rows");
        same(v.outputs, 0, "store rows");
        break;
      }
      case Opcode::Attend: {
        const auto& q = buffer(1, 0, "queries");
        const auto& out = buffer(2, 0, "output");
        index(3, size_t(cache.layers), "layer");
        positive(4, "heads");
        if (f[4] % cache.heads != 0) fail("heads " + std::to_string(f[4]) + " must be a multiple of the cache's heads " + std::to_string(cache.heads));
        same(q.width, int64_t(f[4]) * cache.headDim, "queries' width and heads x head size");
        same(out.width, q.width, "output and queries' width");
        same(q.outputs, 0, "attention rows");
        same(out.outputs, 0, "attention rows");
        if (f[5] < 0) fail("the window must be 0 or more");
        optional(6, 1, "soft cap");
        if (f[6] != 0) scalar(*optionalConstant(f[6]) >= 1e-3f && *optionalConstant(f[6]) < 1e30f, "the soft cap must be 0.001 or more");
        distinct(1, 2);
        break;
      }
      case Opcode::Add: {
        const auto& a = buffer(1, 0, "input");
        const auto& b = buffer(2, 0, "input");
        const auto& out = buffer(3, 0, "output");
        same(a.width, b.width, "input widths");
        same(a.width, out.width, "input and output width");
        same(a.outputs, b.outputs, "the rows of the inputs");
        same(a.outputs, out.outputs, "the rows of input and output");
        break;
      }
      case Opcode::Select: {
        const auto& in = buffer(1, 0, "input");
        const auto& out = buffer(2, 0, "output");
        same(in.width, out.width, "input and output width");
        same(in.outputs, 0, "select input rows");
        same(out.outputs, 1, "select output rows");
        break;
      }
      case Opcode::Route: {
        const auto& in = buffer(1, 0, "scores");
        const auto& out = routes(2);
        same(in.outputs, out.outputs, "the rows of scores and routes");
        if (out.width / 2 > in.width) fail("more experts are used than there are");
        choice(3, 2, "gating");
        distinct(1, 2);
        scalar(s > -1e30f && s < 1e30f, "the factor must be finite");
        break;
      }
      case Opcode::GatedExperts: {
        const auto& in = buffer(1, -1, "input");
        const auto& r = routes(2);
        const auto& out = buffer(5, 0, "output", true);
        experts(in, weight(3), out);
        experts(in, weight(4), out);
        same(weight(3).rows, weight(4).rows, "the rows of both weights");
        same(out.slots, r.width / 2, "output slots and experts that are used");
        same(in.outputs, out.outputs, "the rows of input and output");
        same(in.outputs, r.outputs, "the rows of input and routes");
        choice(6, 2, "activation");
        distinct(1, 5);
        distinct(2, 5);
        break;
      }
      case Opcode::MatmulExperts: {
        const auto& in = buffer(1, -1, "input", true);
        const auto& r = routes(2);
        const auto& out = buffer(4, 0, "output", true);
        experts(in, weight(3), out);
        same(in.slots, r.width / 2, "input slots and experts that are used");
        same(out.slots, in.slots, "output and input slots");
        same(in.outputs, out.outputs, "the rows of input and output");
        same(in.outputs, r.outputs, "the rows of input and routes");
        distinct(1, 4);
        distinct(2, 4);
        break;
      }
      case Opcode::SumExperts: {
        const auto& in = buffer(1, 0, "input", true);
        const auto& r = routes(2);
        const auto& out = buffer(3, 0, "output");
        same(in.slots, r.width / 2, "input slots and experts that are used");
        same(in.width, out.width, "input and output width");
        same(in.outputs, out.outputs, "the rows of input and output");
        same(in.outputs, r.outputs, "the rows of input and routes");
        distinct(1, 3);
        distinct(2, 3);
        break;
      }
    }
  }
  if (spec_.logits < 0 || size_t(spec_.logits) >= spec_.buffers.size()) throw programError("logits: no such buffer");
  const auto& logits = spec_.buffers[size_t(spec_.logits)];
  if (logits.quantised || !logits.outputs || logits.slots != 1 || logits.width < spec_.vocab)
    throw programError("logits: expected a float32 buffer of wanted rows, at least as wide as the vocabulary");
}

Program::Access Program::accessOf(int op) const {
  const int32_t* f = fields(op);
  const int cache = int(spec_.buffers.size());
  switch (Opcode(f[0])) {
    case Opcode::Embed: return {{}, {f[2]}};
    case Opcode::RmsNorm: return {f[4] ? std::vector<int>{f[1], f[3]} : std::vector<int>{f[1]}, {f[3]}};
    case Opcode::LayerNorm: return {{f[1]}, {f[4]}};
    case Opcode::Quantise: case Opcode::Select: return {{f[1]}, {f[2]}};
    case Opcode::Matmul: return {f[4] ? std::vector<int>{f[1], f[3]} : std::vector<int>{f[1]}, {f[3]}};
    case Opcode::Gated: return {{f[1]}, {f[4]}};
    case Opcode::Rotary: return {{}, {f[2]}};
    case Opcode::Rope: return {{f[1], f[2]}, {f[1]}};
    case Opcode::Store: return {{f[1], f[2]}, {cache}};
    case Opcode::Attend: return {{f[1], cache}, {f[2]}};
    case Opcode::Add: return {{f[1], f[2]}, {f[3]}};
    case Opcode::Route: return {{f[1]}, {f[2]}};
    case Opcode::GatedExperts: return {{f[1], f[2]}, {f[5]}};
    case Opcode::MatmulExperts: return {{f[1], f[2]}, {f[4]}};
    case Opcode::SumExperts: return {f[4] ? std::vector<int>{f[1], f[2], f[3]} : std::vector<int>{f[1], f[2]}, {f[3]}};
  }
  return {};
}

// Operators in order go into one stage as long as none depends on another in it: q, k and v run side by side.
void Program::findStages() {
  const int count = int(spec_.ops.size()) / kOpInts;
  std::vector<int> reads, writes;
  for (int op = 0; op < count; op++) {
    const auto [r, w] = accessOf(op);
    const auto meets = [](const std::vector<int>& a, const std::vector<int>& b) {
      return std::find_first_of(a.begin(), a.end(), b.begin(), b.end()) != a.end();
    };
    if (stages_.empty() || meets(r, writes) || meets(w, writes) || meets(w, reads)) {
      stages_.emplace_back();
      reads.clear();
      writes.clear();
    }
    stages_.back().push_back({op, 0});
    reads.insert(reads.end(), r.begin(), r.end());
    writes.insert(writes.end(), w.begin(), w.end());
  }
}

// Where a stage of little work lies between two others, its work can be done by the chunks of one of them: a product's
// threads each normalise its input for themselves, who computes a gated product or attends quantises the result, who rotates
// keys stores them. For few rows that costs less than to meet once more and to hand the numbers from core to core, all the
// more where cores do not share a cache.
void Program::findNeighbours() {
  const int count = int(spec_.ops.size()) / kOpInts;
  neighbours_.resize(size_t(count));
  merged_.resize(size_t(count));
  std::vector<int> stageOf(size_t(count), 0);
  for (size_t s = 0; s < stages_.size(); s++)
    for (const Part& part : stages_[s]) stageOf[size_t(part.op)] = int(s);
  std::vector<Access> access;
  for (int op = 0; op < count; op++) access.push_back(accessOf(op));
  const auto has = [](const std::vector<int>& list, int buffer) { return std::find(list.begin(), list.end(), buffer) != list.end(); };
  const auto reads = [&](int op, int buffer) { return has(access[size_t(op)].reads, buffer); };
  const auto writes = [&](int op, int buffer) { return has(access[size_t(op)].writes, buffer); };
  // Whether an operator of the stages [first, last], but `except` itself, is one of those.
  const auto any = [&](int first, int last, int except, auto those) {
    for (int s = first; s <= last; s++)
      for (const Part& part : stages_[size_t(s)])
        if (part.op != except && those(part.op)) return true;
    return false;
  };
  // Those that read what `op` wrote to `buffer`, in order.
  const auto readersOf = [&](int op, int buffer) {
    std::vector<int> found;
    for (int next = op + 1; next < count; next++) {
      if (reads(next, buffer)) found.push_back(next);
      if (writes(next, buffer)) break;
    }
    return found;
  };
  for (int op = 0; op < count; op++) {
    const int32_t* f = fields(op);
    const int stage = stageOf[size_t(op)];
    if (Opcode(f[0]) == Opcode::RmsNorm && spec_.buffers[size_t(f[3])].quantised) {
      const std::vector<int> users = readersOf(op, f[3]);
      if (users.empty()) continue;
      const int last = stageOf[size_t(users.back())];
      const bool products = std::all_of(users.begin(), users.end(), [&](int user) {
        const Opcode code = Opcode(fields(user)[0]);
        return (code == Opcode::Matmul || code == Opcode::Gated) && !writes(user, f[3]);
      });
      // What is normalised must be the same until the last of them is done.
      if (products && !any(stage, last, op, [&](int other) { return writes(other, f[1]); }))
        for (const int user : users) neighbours_[size_t(user)].norm = op;
    } else if (Opcode(f[0]) == Opcode::Gated || Opcode(f[0]) == Opcode::Attend) {
      const bool gated = Opcode(f[0]) == Opcode::Gated;
      const int out = gated ? f[4] : f[2];
      const std::vector<int> users = readersOf(op, out);
      if (users.size() != 1 || Opcode(fields(users[0])[0]) != Opcode::Quantise || out == spec_.logits) continue;
      const int to = fields(users[0])[2];
      // A thread quantises blocks of 32 numbers that are all its own.
      if ((gated ? spec_.weights[size_t(f[2])]->tiles % 2 : spec_.cache->headDim % kBlock) != 0) continue;
      if (!any(stage, stageOf[size_t(users[0])], users[0], [&](int other) { return reads(other, to) || writes(other, to); }))
        neighbours_[size_t(op)].quantise = users[0];
    } else if (Opcode(f[0]) == Opcode::Rope) {
      const std::vector<int> users = readersOf(op, f[1]);
      if (users.empty() || Opcode(fields(users[0])[0]) != Opcode::Store || fields(users[0])[1] != f[1] || fields(users[0])[2] == f[1]) continue;
      const int values = fields(users[0])[2], cache = int(spec_.buffers.size());
      if (!any(stage, stageOf[size_t(users[0])], users[0], [&](int other) { return writes(other, values) || reads(other, cache) || writes(other, cache); }))
        neighbours_[size_t(op)].store = users[0];
    }
  }
}

// Passes of the same size follow each other while decoding, so the plan is kept.
void Program::planChunks(int rows, int outputs, int texts) {
  if (rows == plannedRows_ && outputs == plannedOutputs_ && texts == plannedTexts_) return;
  plannedRows_ = -1;  // until the plan is whole
  chunks_.assign(1, 0);  // the first stage: copies in the cache, where there are some
  std::fill(merged_.begin(), merged_.end(), uint8_t(0));
  for (const Neighbours& n : neighbours_) {
    if (n.norm >= 0) {
      const auto& x = spec_.buffers[size_t(fields(n.norm)[1])];
      merged_[size_t(n.norm)] = int64_t(x.outputs ? outputs : rows) * x.width <= kMostNormed;
    }
    if (n.quantise >= 0) merged_[size_t(n.quantise)] = rows <= kDecodingRows;
    if (n.store >= 0) merged_[size_t(n.store)] = rows <= kDecodingRows;
  }
  for (std::vector<Part>& stage : stages_) {
    int total = 0;
    for (Part& part : stage) total += part.chunks = chunksOf(part.op, rows, outputs, texts);
    chunks_.push_back(total);
  }
  chunks_.push_back(outputs);  // the last stage: one pick a chunk
  plannedRows_ = rows;
  plannedOutputs_ = outputs;
  plannedTexts_ = texts;
}

int Program::chunksOf(int op, int rows, int outputs, int texts) const {
  if (merged_[size_t(op)]) return 0;
  const int32_t* f = fields(op);
  const int threads = core_->pool.threads();
  const auto rowsOf = [&](int buffer) {
    const auto& b = spec_.buffers[size_t(buffer)];
    return (b.outputs ? outputs : rows) * b.slots;
  };
  const auto byRow = [&](int n, int grain) { return std::min(threads * 4, (n + grain - 1) / grain); };
  const auto byTile = [&](int n, const Weight& w) { return n == 0 ? 0 : threads == 1 ? 1 : std::min(threads * 4, w.paired ? w.tiles / 2 : w.tiles); };
  switch (Opcode(f[0])) {
    case Opcode::Embed: return byRow(rows, 4);
    case Opcode::RmsNorm: return byRow(rowsOf(f[1]), 2);
    case Opcode::LayerNorm: return byRow(rowsOf(f[1]), 2);
    case Opcode::Quantise: return byRow(rowsOf(f[1]), 2);
    case Opcode::Matmul: return byTile(rowsOf(f[1]), *spec_.weights[size_t(f[2])]);
    case Opcode::Gated: return byTile(rowsOf(f[1]), *spec_.weights[size_t(f[2])]);
    case Opcode::Rotary: return byRow(rows, 16);
    case Opcode::Rope: return byRow(rows, fieldsIfMerged(neighbours_[size_t(op)].store) ? 16 : 2);
    // Positions that follow each other share cache lines, which two threads would take from each other.
    case Opcode::Store: return byRow(rows, 16);
    case Opcode::Add: return byRow(rowsOf(f[1]), 4);
    case Opcode::Select: return byRow(outputs, 16);
    case Opcode::Route: return byRow(rowsOf(f[1]), 4);
    case Opcode::GatedExperts: return byTile(rowsOf(f[1]), *spec_.weights[size_t(f[3])]);
    case Opcode::MatmulExperts: return byTile(rowsOf(f[1]), *spec_.weights[size_t(f[3])]);
    case Opcode::SumExperts: return byRow(rowsOf(f[3]), 4);
    case Opcode::Attend: {
      // A chunk is a run of queries of one key/value head after another, so that a thread loads keys and values for as
      // many of them as it can: one chunk a thread where there are few. Texts have pasts of their own, of different length.
      const int queries = rows * f[4], calls = (queries + kMaxQueries - 1) / kMaxQueries;
      const int few = texts > 1 ? std::min(threads * 4, rows * spec_.cache->heads) : threads;
      return std::min({queries, calls <= 2 * few ? few : (calls + threads - 1) / threads * threads, threads * 16});
    }
  }
  return 0;
}

void Program::execute(Pass& pass, int op, int chunk, int chunks, int thread) {
  const int32_t* f = fields(op);
  const float scalar = spec_.scalars[size_t(op)];
  const Kernels& k = core_->kernels;
  const auto rowsOf = [&](int buffer) {
    const auto& b = spec_.buffers[size_t(buffer)];
    return (b.outputs ? pass.outputs : pass.rows) * b.slots;
  };
  const auto width = [&](int buffer) { return spec_.buffers[size_t(buffer)].width; };
  // A norm writes float rows, quantised rows, or adds to float rows.
  const auto norm = [&](int in, int out, bool accumulate, auto normalise) {
    const Range r = share(rowsOf(in), chunk, chunks);
    const int n = width(in);
    const bool quantised = spec_.buffers[size_t(out)].quantised != 0;
    std::vector<float>& y = scratch_[size_t(thread)].floats;
    if ((quantised || accumulate) && y.size() < padded(size_t(n))) y.resize(padded(size_t(n)));
    for (int i = r.begin; i < r.end; i++) {
      normalise(floats(in, i), n, quantised || accumulate ? y.data() : floats(out, i));
      if (quantised) k.quantise(y.data(), n, 0, n, bytes(out, i));
      else if (accumulate) k.add(floats(out, i), y.data(), n, floats(out, i));
    }
  };
  switch (Opcode(f[0])) {
    case Opcode::Embed: {
      const Range r = share(pass.rows, chunk, chunks);
      for (int i = r.begin; i < r.end; i++) {
        float* out = floats(f[2], i);
        const Row& row = pass.in.rows[size_t(i)];
        spec_.weights[size_t(f[1])]->unpackRow(f[3] == 0 ? row.token : row.position, out);
        if (scalar != 1.0f) k.scale(out, width(f[2]), scalar, out);
      }
      break;
    }
    case Opcode::RmsNorm: {
      const float* weight = spec_.constants[size_t(f[2])].data();
      norm(f[1], f[3], f[4] != 0, [&](const float* x, int n, float* y) { k.rmsNorm(x, weight, n, scalar, y); });
      break;
    }
    case Opcode::LayerNorm: {
      const float* weight = spec_.constants[size_t(f[2])].data();
      const float* bias = spec_.constants[size_t(f[3])].data();
      norm(f[1], f[4], false, [&](const float* x, int n, float* y) { k.layerNorm(x, weight, bias, n, scalar, y); });
      break;
    }
    case Opcode::Quantise: {
      const Range r = share(rowsOf(f[1]), chunk, chunks);
      for (int i = r.begin; i < r.end; i++) k.quantise(floats(f[1], i), width(f[1]), 0, width(f[1]), bytes(f[2], i));
      break;
    }
    case Opcode::Matmul: matmul(f, scalar, inputRows(op, rowsOf(f[1]), thread), rowsOf(f[1]), chunk, chunks); break;
    case Opcode::Gated: {
      const Weight& gate = *spec_.weights[size_t(f[2])];
      const Weight& up = *spec_.weights[size_t(f[3])];
      const bool quantised = spec_.buffers[size_t(f[1])].quantised;
      const int32_t* quantise = fieldsIfMerged(neighbours_[size_t(op)].quantise);
      const Range tiles = share(gate, chunk, chunks, quantise != nullptr);
      const uint8_t* in = inputRows(op, rowsOf(f[1]), thread);
      const size_t inBytes = buffers_[size_t(f[1])].rowBytes;
      const auto activate = Activation(f[5]) == Activation::Gelu ? k.geluMul : k.siluMul;
      float g[kStepFloats], u[kStepFloats];
      forSteps(tiles, rowsOf(f[1]), inBytes, [&](int tile, int count, int row, int n) {
        const int stride = count * kLanes;
        MatmulArgs args{gate.data(), gate.k, gate.paired, tile, tile + count, in + inBytes * size_t(row), inBytes, n, g, size_t(stride), false, streamed_};
        product(k, gate, quantised)(args);
        args.weights = up.data();
        args.paired = up.paired;
        args.out = u;
        product(k, up, quantised)(args);
        for (int i = 0; i < n; i++) {
          float* out = quantise ? g + i * stride : floats(f[4], row + i) + tile * kLanes;
          activate(g + i * stride, u + i * stride, stride, out);
          if (quantise) k.quantise(out, width(f[4]), tile * kLanes, stride, bytes(quantise[2], row + i));
        }
      });
      break;
    }
    case Opcode::Rotary: {
      const std::vector<float>& frequencies = spec_.constants[size_t(f[1])];
      const Range r = share(pass.rows, chunk, chunks);
      for (int i = r.begin; i < r.end; i++)
        for (size_t j = 0; j < frequencies.size(); j++) {
          double sine, cosine;
          sinCos(double(pass.in.rows[size_t(i)].position) * double(frequencies[j]), sine, cosine);
          floats(f[2], i)[j] = float(cosine * double(scalar));
          floats(f[2], i)[frequencies.size() + j] = float(sine * double(scalar));
        }
      break;
    }
    case Opcode::Rope: {
      const Range r = share(pass.rows, chunk, chunks);
      const float* weight = optionalConstant(f[6]);
      const int32_t* store = fieldsIfMerged(neighbours_[size_t(op)].store);
      for (int i = r.begin; i < r.end; i++) {
        float* x = floats(f[1], i);
        if (weight)
          for (int head = 0; head < f[3]; head++) k.rmsNorm(x + head * f[4], weight, f[4], scalar, x + head * f[4]);
        k.rope(x, f[3], f[4], width(f[2]), f[5] != 0, floats(f[2], i));
        if (store) spec_.cache->store(k, store[3], pass.in.rows[size_t(i)].cell, x, floats(store[2], i));
      }
      break;
    }
    case Opcode::Store: {
      const Range r = share(pass.rows, chunk, chunks);
      for (int i = r.begin; i < r.end; i++)
        spec_.cache->store(k, f[3], pass.in.rows[size_t(i)].cell, floats(f[1], i), floats(f[2], i));
      break;
    }
    case Opcode::Add: {
      const Range r = share(rowsOf(f[1]), chunk, chunks);
      for (int i = r.begin; i < r.end; i++) k.add(floats(f[1], i), floats(f[2], i), width(f[1]), floats(f[3], i));
      break;
    }
    case Opcode::Select: {
      const Range r = share(pass.outputs, chunk, chunks);
      for (int i = r.begin; i < r.end; i++)
        std::memcpy(floats(f[2], i), floats(f[1], pass.outputRows[size_t(i)]), size_t(width(f[1])) * 4);
      break;
    }
    case Opcode::Route: {
      const Range r = share(rowsOf(f[1]), chunk, chunks);
      for (int i = r.begin; i < r.end; i++) route(f, scalar, i);
      break;
    }
    case Opcode::GatedExperts: {
      const Weight& gate = *spec_.weights[size_t(f[3])];
      const Weight& up = *spec_.weights[size_t(f[4])];
      const int tiles = width(f[5]) / kLanes;
      const auto activate = Activation(f[6]) == Activation::Gelu ? k.geluMul : k.siluMul;
      const bool quantised = spec_.buffers[size_t(f[1])].quantised != 0;
      float g[kStepFloats], u[kStepFloats];
      forExperts(f[2], rowsOf(f[1]), f[1], 1, gate.tiles / tiles, tiles, chunk, chunks, thread,
                 [&](int expert, int tile, int count, const uint8_t* x, size_t xStride, const int* slots, int n) {
        const int stride = count * kLanes;
        const int first = expert * tiles + tile;
        MatmulArgs args{gate.data(), gate.k, gate.paired, first, first + count, x, xStride, n, g, size_t(stride), false, streamed_};
        product(k, gate, quantised)(args);
        args.weights = up.data();
        args.paired = up.paired;
        args.out = u;
        product(k, up, quantised)(args);
        for (int i = 0; i < n; i++) activate(g + i * stride, u + i * stride, stride, floats(f[5], slots[i]) + tile * kLanes);
      });
      break;
    }
    case Opcode::MatmulExperts: {
      const Weight& w = *spec_.weights[size_t(f[3])];
      const int tiles = width(f[4]) / kLanes, slotsOfRow = spec_.buffers[size_t(f[1])].slots;
      const bool quantised = spec_.buffers[size_t(f[1])].quantised != 0;
      float y[kStepFloats];
      forExperts(f[2], rowsOf(f[1]) / slotsOfRow, f[1], slotsOfRow, w.tiles / tiles, tiles, chunk, chunks, thread,
                 [&](int expert, int tile, int count, const uint8_t* x, size_t xStride, const int* slots, int n) {
        const int stride = count * kLanes;
        const int first = expert * tiles + tile;
        product(k, w, quantised)({w.data(), w.k, w.paired, first, first + count, x, xStride, n, y, size_t(stride), false, streamed_});
        for (int i = 0; i < n; i++) std::memcpy(floats(f[4], slots[i]) + tile * kLanes, y + i * stride, size_t(stride) * 4);
      });
      break;
    }
    case Opcode::SumExperts: {
      const Range r = share(rowsOf(f[3]), chunk, chunks);
      const int n = width(f[3]), used = width(f[2]) / 2;
      std::vector<float>& sum = scratch_[size_t(thread)].floats;
      if (sum.size() < padded(size_t(n))) sum.resize(padded(size_t(n)));
      for (int i = r.begin; i < r.end; i++) {
        float* out = floats(f[3], i);
        std::fill(sum.begin(), sum.begin() + n, 0.0f);
        for (int s = 0; s < used; s++) k.addScaled(floats(f[1], i * used + s), n, floats(f[2], i)[s], sum.data());
        if (f[4] != 0) k.add(out, sum.data(), n, out);
        else std::memcpy(out, sum.data(), size_t(n) * 4);
      }
      break;
    }
    case Opcode::Attend: attend(pass, f, scalar, chunk, chunks, thread); break;
  }
}

// The experts with the highest scores, the lowest number first where scores are equal, and their weights: softmax over
// all experts or a sigmoid of each, divided by their sum where wanted. Depends on the row's own scores only.
void Program::route(const int32_t* f, float scale, int row) {
  const Kernels& k = core_->kernels;
  const float* scores = floats(f[1], row);
  const int experts = spec_.buffers[size_t(f[1])].width, used = spec_.buffers[size_t(f[2])].width / 2;
  float* weights = floats(f[2], row);
  float* numbers = weights + used;
  const bool softmax = Gating(f[3]) == Gating::Softmax;
  const float largest = k.maximum(scores, experts);
  float sum = 0;
  for (int s = 0; s < used; s++) {
    int best = -1;
    for (int e = 0; e < experts; e++) {
      bool taken = false;
      for (int t = 0; t < s; t++) taken |= numbers[t] == float(e);
      if (!taken && (best < 0 || scores[e] > scores[best])) best = e;
    }
    numbers[s] = float(best);
    weights[s] = softmax ? exp16(scores[best] - largest) : 1.0f / (1.0f + exp16(-scores[best]));
    sum += weights[s];
  }
  const float divisor = f[4] != 0 ? sum : softmax ? k.sumExp(scores, experts, largest, 1.0f) : 1.0f;
  // A score that is not a number makes the row's result not a number, so that the pass ends with an error.
  for (int s = 0; s < used; s++) weights[s] = largest == largest ? weights[s] / divisor * scale : largest;
}

// Calls step(expert, tile, tiles, x, xStride, slots, rows) for this chunk's share of the tiles of each expert that a row
// has chosen, with the rows that chose it side by side; slots[i] = row * used + slot says whose x i is. Row by row the
// arithmetic is the same in any company; experts that nobody chose are not read.
template <class Step>
void Program::forExperts(int routes, int rows, int in, int inSlots, int experts, int tiles, int chunk, int chunks, int thread, Step step) {
  const int used = spec_.buffers[size_t(routes)].width / 2;
  thread_local std::vector<int> begin, chosen;
  begin.assign(size_t(experts) + 1, 0);
  chosen.resize(size_t(rows) * used);
  const auto expertOf = [&](int row, int slot) {
    const float number = floats(routes, row)[used + slot];
    if (!(number >= 0 && number < float(experts))) throw programError("run: a route to no expert");
    return int(number);
  };
  for (int r = 0; r < rows; r++)
    for (int s = 0; s < used; s++) begin[size_t(expertOf(r, s)) + 1]++;
  for (int e = 0; e < experts; e++) begin[size_t(e) + 1] += begin[size_t(e)];
  std::vector<int>& next = begin;  // of each expert, moved on as rows are put down: afterwards the end of its rows
  for (int r = 0; r < rows; r++)
    for (int s = 0; s < used; s++) chosen[size_t(next[size_t(expertOf(r, s))]++)] = r * used + s;

  // Reading an expert costs as much as a few rows, so tiles are shared out by that.
  constexpr int kReadingRows = 4;
  const auto countOf = [&](int e) { return next[size_t(e)] - (e == 0 ? 0 : next[size_t(e) - 1]); };
  const auto costOf = [&](int count) { return int64_t(count == 0 ? 0 : std::max(count, kReadingRows)); };
  int64_t total = 0;
  for (int e = 0; e < experts; e++) total += costOf(countOf(e)) * tiles;
  const int64_t low = total * chunk / chunks, high = total * (chunk + 1) / chunks;
  const Buffer& x = buffers_[size_t(in)];
  Memory& gathered = scratch_[size_t(thread)].expertRows;
  int64_t before = 0;
  for (int e = 0; e < experts; e++) {
    const int count = countOf(e);
    const int64_t cost = costOf(count);
    if (count == 0) continue;
    const auto tileAt = [&](int64_t at) {
      return int(std::min<int64_t>(tiles, std::max<int64_t>(0, (at - before + cost - 1) / cost)));
    };
    const int first = low <= before ? 0 : tileAt(low), last = high <= before ? 0 : tileAt(high);
    before += cost * tiles;
    if (first >= last) continue;
    const int* slots = chosen.data() + next[size_t(e)] - count;
    const int rowStep = stepRows(x.rowBytes);
    for (int i = 0; i < count; i += rowStep) {
      const int n = std::min(rowStep, count - i);
      const auto rowOf = [&](int j) { return x.data + x.rowBytes * size_t(inSlots == 1 ? slots[i + j] / used : slots[i + j]); };
      const uint8_t* from = rowOf(0);
      if (n > 1) {
        if (gathered.bytes() < x.rowBytes * size_t(rowStep)) gathered = Memory(x.rowBytes * size_t(rowStep));
        for (int j = 0; j < n; j++) std::memcpy(gathered.data() + x.rowBytes * size_t(j), rowOf(j), x.rowBytes);
        from = gathered.data();
      }
      const int tileStep = stepTiles(n);
      for (int t = first; t < last; t += tileStep) step(e, t, std::min(tileStep, last - t), from, x.rowBytes, slots + i, n);
    }
  }
}

// The fields of an operator whose work those next to it do in this pass; of any other, or of -1, nullptr.
const int32_t* Program::fieldsIfMerged(int op) const { return op >= 0 && merged_[size_t(op)] ? fields(op) : nullptr; }

// The rows that a product reads, where need be normalised by this thread for itself, once for all products that read them.
const uint8_t* Program::inputRows(int op, int rows, int thread) {
  const int norm = neighbours_[size_t(op)].norm;
  const Buffer& in = buffers_[size_t(fields(op)[1])];
  const int32_t* f = fieldsIfMerged(norm);
  if (!f) return in.data;
  Scratch& own = scratch_[size_t(thread)];
  if (own.normedStamp == stamp_ && own.normedOp == norm) return own.normed.data();
  const int n = spec_.buffers[size_t(f[1])].width;
  if (own.normed.bytes() < in.rowBytes * size_t(rows)) own.normed = Memory(in.rowBytes * size_t(rows));
  if (own.floats.size() < padded(size_t(n))) own.floats.resize(padded(size_t(n)));
  for (int i = 0; i < rows; i++) {
    core_->kernels.rmsNorm(floats(f[1], i), spec_.constants[size_t(f[2])].data(), n, spec_.scalars[size_t(norm)], own.floats.data());
    core_->kernels.quantise(own.floats.data(), n, 0, n, own.normed.data() + in.rowBytes * size_t(i));
  }
  own.normedStamp = stamp_;
  own.normedOp = norm;
  return own.normed.data();
}

void Program::matmul(const int32_t* f, float scalar, const uint8_t* in, int rows, int chunk, int chunks) {
  const Kernels& k = core_->kernels;
  const Weight& w = *spec_.weights[size_t(f[2])];
  const Range tiles = share(w, chunk, chunks);
  const size_t inBytes = buffers_[size_t(f[1])].rowBytes;
  const Buffer& out = buffers_[size_t(f[3])];
  const auto run = product(k, w, spec_.buffers[size_t(f[1])].quantised != 0);
  const bool accumulate = f[4] != 0;
  const float* bias = optionalConstant(f[5]);
  const Finish finish = Finish(f[6]);
  if (!bias && finish == Finish::Scale && scalar == 1.0f)
    return run({w.data(), w.k, w.paired, tiles.begin, tiles.end, in, inBytes, rows,
                reinterpret_cast<float*>(out.data) + tiles.begin * kLanes, out.rowBytes / 4, accumulate, streamed_});
  float y[kStepFloats];
  forSteps(tiles, rows, inBytes, [&](int tile, int count, int row, int n) {
    const int stride = count * kLanes, column = tile * kLanes, columns = std::min(stride, w.rows - column);
    run({w.data(), w.k, w.paired, tile, tile + count, in + inBytes * size_t(row), inBytes, n, y, size_t(stride), false, streamed_});
    for (int i = 0; i < n; i++) {
      float* from = y + i * stride;
      float* to = floats(f[3], row + i) + column;
      if (bias) k.add(from, bias + column, columns, from);
      if (finish == Finish::Gelu) k.gelu(from, columns, from);
      else if (finish == Finish::SoftCap) k.softCap(from, columns, scalar, from);
      else if (scalar != 1.0f) k.scale(from, columns, scalar, from);
      if (accumulate) k.add(to, from, columns, to);
      else std::memcpy(to, from, size_t(columns) * 4);
    }
  });
}

void Program::attend(Pass& pass, const int32_t* f, float scale, int chunk, int chunks, int thread) {
  const Cache& cache = *spec_.cache;
  const int layer = f[3], heads = f[4], window = f[5], group = heads / cache.heads, dim = cache.headDim;
  const float softCap = f[6] == 0 ? 0.0f : *optionalConstant(f[6]);
  Scratch& scratch = scratch_[size_t(thread)];
  const auto run = cache.half ? core_->kernels.attentionF16 : core_->kernels.attentionF32;

  const int op = int((f - fields(0)) / kOpInts);
  const int32_t* quantise = fieldsIfMerged(neighbours_[size_t(op)].quantise);
  if (scratch.attendStamp != stamp_ || scratch.attendOp != op) {
    scratch.attendStamp = stamp_;
    scratch.attendOp = op;
    scratch.warmHead = -1;
  }

  const auto firstBlock = [&](int r) { return window > 0 ? std::max(0, pass.in.rows[size_t(r)].position - window + 1) / kLanes : 0; };
  // The blocks of a head that a row sees: from the first one of its window to the one with its position. Those from the
  // row's first irregular one on are put together in scratch memory.
  const auto locate = [&](int r, int firstRow, int kvHead) {
    const Row& row = pass.in.rows[size_t(r)];
    const int blocks = row.position / kLanes + 1, irregular = std::min(blocks, pass.paths[size_t(r)].firstIrregular);
    const int from = firstBlock(firstRow);
    const int32_t* table = pass.table(row);
    scratch.keys.resize(size_t(blocks));
    scratch.values.resize(size_t(blocks));
    for (int b = 0; b < blocks; b++) {
      const int block = b >= from && b < irregular ? table[b] : 0;  // blocks before the window are never read
      scratch.keys[size_t(b)] = cache.keys(layer, block, kvHead);
      scratch.values[size_t(b)] = cache.values(layer, block, kvHead);
    }
    if (irregular == blocks) return;
    const size_t needed = size_t(blocks - irregular);
    if (scratch.keyBlocks.bytes() < needed * cache.keyBlockBytes()) scratch.keyBlocks = Memory(needed * cache.keyBlockBytes());
    if (scratch.valueBlocks.bytes() < needed * cache.valueBlockBytes()) scratch.valueBlocks = Memory(needed * cache.valueBlockBytes());
    for (int b = irregular; b < blocks; b++) {
      uint8_t* key = scratch.keyBlocks.data() + size_t(b - irregular) * cache.keyBlockBytes();
      uint8_t* value = scratch.valueBlocks.data() + size_t(b - irregular) * cache.valueBlockBytes();
      for (int t = b * kLanes; t <= std::min(row.position, b * kLanes + kLanes - 1); t++)
        cache.gather(layer, kvHead, pass.cellOf(r, t), t % kLanes, key, value);
      scratch.keys[size_t(b)] = key;
      scratch.values[size_t(b)] = value;
    }
  };
  const int perHead = pass.rows * group;
  const auto rowOf = [&](int query) { return query % perHead / group; };

  const Range range = share(pass.rows * heads, chunk, chunks);
  // One call of the kernel: queries [begin, end) of the list that runs over key/value heads, rows and the head's group.
  // More than one row only where they follow each other in one sequence.
  const auto call = [&](int begin, int end) {
    const int kvHead = begin / perHead, lastRow = rowOf(end - 1), table = pass.in.rows[size_t(lastRow)].table;
    locate(lastRow, rowOf(begin), kvHead);
    const int blocks = int(scratch.keys.size());
    const bool fits = size_t(blocks) * (cache.keyBlockBytes() + cache.valueBlockBytes()) <= kCachedBytes;
    const bool never = !fits && pass.rows <= kDecodingRows;  // too much to stay in the caches until the next call
    const bool cold = never || scratch.warmHead != kvHead || scratch.warmTable != table;
    scratch.warmHead = kvHead;
    scratch.warmTable = table;
    const size_t needed = (size_t(blocks) * kLanes + size_t(cache.valueStride)) * size_t(end - begin);
    if (scratch.floats.size() < needed) scratch.floats.resize(needed);
    const float* queries[kMaxQueries];
    float* outs[kMaxQueries];
    int firsts[kMaxQueries], ends[kMaxQueries];
    for (int i = begin; i < end; i++) {
      const int row = rowOf(i), position = pass.in.rows[size_t(row)].position, n = i - begin;
      const size_t head = size_t(kvHead * group + i % group) * size_t(dim);
      queries[n] = floats(f[1], row) + head;
      outs[n] = floats(f[2], row) + head;
      ends[n] = position + 1;
      firsts[n] = window > 0 ? std::max(0, position + 1 - window) : 0;
    }
    const void* next[kMostAhead];
    int nextCount = 0;
    if (end < range.end) {
      const int nextHead = end / perHead, r = rowOf(end);
      const Row& row = pass.in.rows[size_t(r)];
      const int first = firstBlock(r), last = std::min(row.position / kLanes + 1, pass.paths[size_t(r)].firstIrregular);
      if (never || nextHead != kvHead || row.table != table)
        for (; nextCount < kMostAhead && first + nextCount < last; nextCount++)
          next[nextCount] = cache.keys(layer, pass.table(row)[first + nextCount], nextHead);
    }
    run({dim, cache.valueStride, scratch.keys.data(), scratch.values.data(), end - begin, queries, firsts, ends, outs, scale, softCap,
         cold, next, nextCount, scratch.floats.data()});
    if (quantise)
      for (int i = begin; i < end; i++)
        core_->kernels.quantise(outs[i - begin], heads * dim, (kvHead * group + i % group) * dim, dim, bytes(quantise[2], rowOf(i)));
  };

  const auto regular = [&](int r) { return pass.paths[size_t(r)].firstIrregular > pass.in.rows[size_t(r)].position / kLanes; };
  const auto follows = [&](int r) {
    const Row& before = pass.in.rows[size_t(r) - 1];
    const Row& row = pass.in.rows[size_t(r)];
    return regular(r - 1) && regular(r) && row.table == before.table && row.position == before.position + 1;
  };
  for (int begin = range.begin; begin < range.end;) {
    // Queries that could go together, in calls of equal size: the kernel is made for many at once.
    const int limit = std::min(range.end, (begin / perHead + 1) * perHead);
    int together = begin + 1;
    while (together < limit && (together % group != 0 || follows(rowOf(together)))) together++;
    // As many as keep their scores in the second-level cache.
    const size_t scoreBytes = size_t(pass.in.rows[size_t(rowOf(together - 1))].position + 1) * 4;
    const int most = int(std::clamp(kCachedBytes / scoreBytes, size_t(kMaxQueries) / 3, size_t(kMaxQueries)));
    const int calls = (together - begin + most - 1) / most;
    for (int i = 0; i < calls; i++) {
      const Range part = share(together - begin, i, calls);
      call(begin + part.begin, begin + part.end);
    }
    begin = together;
  }
}

void Program::draw(Pass& p, int output) {
  const RunInput& in = p.in;
  const size_t i = size_t(output), begin = size_t(in.adjustOffsets[i]), best = size_t(in.top);
  const Adjustments adjust{in.adjustOffsets[i + 1] - in.adjustOffsets[i], in.adjustTokens.data() + begin,
                           in.adjustRepetition.data() + begin, in.adjustAdd.data() + begin};
  const Row& row = in.rows[size_t(p.outputRows[i])];
  Code* code = nullptr;
  if (p.hasCode(output)) {
    code = &p.out->codes[i];
    // Behind a token that was not drawn the point means nothing, and the row's draw will not be used.
    const int before = p.followsCode(output) ? p.outputBefore(output) : -1;
    *code = before >= 0 && p.out->tokens[size_t(before)] == row.token ? p.out->codes[size_t(before)] : in.codes[i];
  }
  const int mask = in.maskOf.empty() ? -1 : in.maskOf[i];
  const Mask allowed = mask < 0 ? nullptr : in.masks.data() + size_t(mask) * ((size_t(spec_.vocab) + 31) / 32);
  const Pick picked = pick(core_->kernels, floats(spec_.logits, output), spec_.vocab, in.settings[i], adjust, allowed, uint32_t(row.position) + 1,
                           in.scored.empty() ? 0 : in.scored[i], code, in.top, p.out->topTokens.data() + i * best,
                           p.out->topLogprobs.data() + i * best);
  p.out->tokens[i] = picked.token;
  p.out->logprobs[i] = picked.logprob;
  if (!in.scored.empty()) p.out->scores[i] = picked.score;
}

void Program::checkInput(const RunInput& in) const {
  const auto fail = [](const std::string& what) { throw programError("run: " + what); };
  const int tables = int(in.tableOffsets.size()) - 1;
  if (in.rows.empty() || in.rows.size() > size_t(spec_.maxRows))
    fail(std::to_string(in.rows.size()) + " rows, expected 1 to " + std::to_string(spec_.maxRows));
  if (tables < 1 || in.tableOffsets.front() != 0 || size_t(in.tableOffsets.back()) != in.tables.size()) fail("bad table offsets");
  for (int t = 0; t < tables; t++)
    if (in.tableOffsets[size_t(t)] > in.tableOffsets[size_t(t) + 1]) fail("bad table offsets");
  for (const int32_t block : in.tables)
    if (block < 0 || block >= spec_.cache->blocks)
      fail("block " + std::to_string(block) + ", expected 0 to " + std::to_string(spec_.cache->blocks - 1));
  size_t outputs = 0;
  for (size_t r = 0; r < in.rows.size(); r++) {
    const Row& row = in.rows[r];
    const std::string where = "row " + std::to_string(r) + ": ";
    if (row.token < 0 || row.token >= spec_.tokens)
      fail(where + "token " + std::to_string(row.token) + ", expected 0 to " + std::to_string(spec_.tokens - 1));
    if (row.table < 0 || row.table >= tables) fail(where + "no table " + std::to_string(row.table));
    if (row.position < 0 || row.position >= spec_.maxPosition) fail(where + "position " + std::to_string(row.position));
    if (row.cell < 0 || row.cell >= spec_.cache->cells()) fail(where + "cell " + std::to_string(row.cell));
    if (row.parent < -1 || row.parent >= int64_t(r)) fail(where + "parent " + std::to_string(row.parent));
    if (row.output != 0 && row.output != 1) fail(where + "output must be 0 or 1");
    if (row.parent >= 0) {
      const Row& parent = in.rows[size_t(row.parent)];
      if (parent.table != row.table || parent.position + 1 != row.position) fail(where + "its parent is not the position before it");
    } else if (int64_t(row.position) > int64_t(in.tableOffsets[size_t(row.table) + 1] - in.tableOffsets[size_t(row.table)]) * kLanes) {
      fail(where + "its past is longer than its table");
    }
    outputs += size_t(row.output);
  }
  if (outputs > size_t(spec_.maxOutputs)) fail(std::to_string(outputs) + " outputs, expected at most " + std::to_string(spec_.maxOutputs));
  if (in.settings.size() != outputs || (!in.scored.empty() && in.scored.size() != outputs) || in.adjustOffsets.size() != outputs + 1 || in.adjustOffsets.front() != 0 ||
      size_t(in.adjustOffsets.back()) != in.adjustTokens.size() || in.adjustTokens.size() != in.adjustAdd.size() ||
      in.adjustTokens.size() != in.adjustRepetition.size())
    fail("settings or adjustments do not fit the outputs");
  for (size_t i = 0; i < outputs; i++)
    if (in.adjustOffsets[i] > in.adjustOffsets[i + 1]) fail("bad adjustment offsets");
  for (const int32_t token : in.adjustTokens)
    if (token < 0 || token >= spec_.vocab) fail("adjusted token " + std::to_string(token));
  for (const int32_t token : in.scored)
    if (token < 0 || token >= spec_.vocab) fail("scored token " + std::to_string(token));
  for (const PickSettings& s : in.settings)
    if (!(s.temperature == 0 || (s.temperature >= 1e-3f && s.temperature <= 1e3f)) || !(s.topP > 0) || !(s.minP >= 0 && s.minP <= 1) || s.topK < 0)
      fail("sampling settings out of range");
  const size_t words = (size_t(spec_.vocab) + 31) / 32, masks = in.masks.size() / words;
  if (in.masks.size() % words != 0 || (!in.maskOf.empty() && in.maskOf.size() != outputs)) fail("masks do not fit the outputs");
  for (const int32_t mask : in.maskOf)
    if (mask < -1 || int64_t(mask) >= int64_t(masks)) fail("mask " + std::to_string(mask) + " of " + std::to_string(masks));
  for (size_t i = 0; i < masks; i++) {
    const uint32_t* mask = in.masks.data() + i * words;
    const uint32_t beyond = spec_.vocab % 32 ? ~0u << spec_.vocab % 32 : 0;
    bool any = (mask[words - 1] & ~beyond) != 0;
    for (size_t w = 0; w + 1 < words; w++) any = any || mask[w] != 0;
    if (!any) fail("mask " + std::to_string(i) + " allows no token");
  }
  if (!in.codes.empty() && in.codes.size() != outputs) fail("codes do not fit the outputs");
  for (const Code& c : in.codes)
    if (!(c.point < 1) || !(c.resolution > 0 && c.resolution <= 1)) fail("a code is out of range");
  if (in.top < 0 || in.top > 1024) fail("top is " + std::to_string(in.top) + ", expected 0 to 1024");
  if (in.follow != 0) checkFollow(in);
}

void Program::checkFollow(const RunInput& in) const {
  const auto fail = [](const std::string& what) { throw programError("run: to follow a pass, " + what); };
  if (in.rows.size() != 1 || in.settings.size() != 1) fail("it must have one row and draw from it");
  if (!in.adjustTokens.empty() || !in.maskOf.empty() || !in.scored.empty() || in.wantLogits)
    fail("adjustments, masks, scores and logits must be left out");
  const Row& row = in.rows[0];
  const int64_t positions = std::min(int64_t(in.tableOffsets[size_t(row.table) + 1] - in.tableOffsets[size_t(row.table)]) * kLanes, int64_t(spec_.maxPosition));
  if (!(in.followMs >= 0)) fail("its time must be 0 ms or more");
  if (in.follow < 0 || row.position + int64_t(in.follow) >= positions)
    fail(std::to_string(in.follow) + " more behind position " + std::to_string(row.position) + " do not fit " + std::to_string(positions));
  if (row.cell != cellIn(in, row.table, row.position)) fail("its row must be in its table's cell");
}

RunOutput Program::run(RunInput in, const std::atomic<bool>& cancelled) {
  checkInput(in);
  const std::lock_guard<std::mutex> one(running_);
  const std::lock_guard<std::mutex> cacheLock(spec_.cache->busy);
  RunOutput out = runPass(in, cancelled);
  for (; out.finished && in.follow > 0 && out.milliseconds < in.followMs && !core_->pool.isAwaited(); in.follow--) {
    Row& row = in.rows[0];
    row.token = out.tokens.back();
    if (row.token < 0 || row.token >= spec_.tokens || std::find(in.ends.begin(), in.ends.end(), row.token) != in.ends.end()) break;
    row.position++;
    row.cell = cellIn(in, row.table, row.position);
    if (!in.codes.empty()) in.codes[0] = out.codes.back();
    RunOutput next;
    try {
      next = runPass(in, cancelled);
    } catch (const std::exception&) {
      break;  // it fails again, and is told then, when it is asked for alone
    }
    if (!next.finished) break;
    const auto append = [](auto& all, const auto& more) { all.insert(all.end(), more.begin(), more.end()); };
    append(out.tokens, next.tokens);
    append(out.logprobs, next.logprobs);
    append(out.codes, next.codes);
    append(out.topTokens, next.topTokens);
    append(out.topLogprobs, next.topLogprobs);
    out.milliseconds += next.milliseconds;
  }
  return out;
}

RunOutput Program::runPass(const RunInput& in, const std::atomic<bool>& cancelled) {
  if (++stamp_ == 0) {
    std::fill(cellStamp_.begin(), cellStamp_.end(), 0);
    for (Scratch& s : scratch_) s.normedOp = -1;
    stamp_ = 1;
  }
  RunOutput out;
  Pass pass{in, int(in.rows.size()), 0, {}, {}, &out, &cancelled, this, {}, {}, {}, {}, {}};
  for (int r = 0; r < pass.rows; r++) {
    const Row& row = in.rows[size_t(r)];
    uint32_t& stamp = cellStamp_[size_t(row.cell)];
    if (stamp == stamp_) throw programError("run: row " + std::to_string(r) + ": cell " + std::to_string(row.cell) + " is written twice");
    stamp = stamp_;
    if (row.output) pass.outputRows.push_back(r);
    const size_t tableLength = size_t(in.tableOffsets[size_t(row.table) + 1] - in.tableOffsets[size_t(row.table)]);
    const size_t block = size_t(row.position) / kLanes;
    const bool regular = block < tableLength && cellIn(in, row.table, row.position) == row.cell;
    const Path before = row.parent >= 0 ? pass.paths[size_t(row.parent)] : Path{row.position, std::numeric_limits<int>::max()};
    pass.paths.push_back({before.base, regular ? before.firstIrregular : std::min(before.firstIrregular, int(block))});
  }
  pass.outputs = int(pass.outputRows.size());
  const size_t outputs = size_t(pass.outputs), top = size_t(in.top);
  out.tokens.resize(outputs);
  out.logprobs.resize(outputs);
  out.scores.resize(in.scored.size());
  out.codes = in.codes;
  out.topTokens.resize(outputs * top);
  out.topLogprobs.resize(outputs * top);

  planChunks(pass.rows, pass.outputs, int(in.tableOffsets.size()) - 1);
  Cache& cache = *spec_.cache;
  chunks_[0] = cache.hasCopies() ? cache.layers : 0;

  const auto work = [](void* context, int stage, int chunk, int thread) {
    Pass& p = *static_cast<Pass*>(context);
    try {
      if (stage == 0) {
        p.program->spec_.cache->copyLayer(chunk);
        p.copied = true;
        return;
      }
      if (stage <= int(p.program->stages_.size())) {
        for (const Part& part : p.program->stages_[size_t(stage) - 1]) {
          if (chunk < part.chunks) return p.program->execute(p, part.op, chunk, part.chunks, thread);
          chunk -= part.chunks;
        }
        return;
      }
      // A code is known once the token before was drawn: rows that follow each other in the pass are drawn in order.
      if (p.followsCode(chunk)) return;
      p.program->draw(p, chunk);
      for (int i = chunk + 1; i < p.outputs && p.hasCode(chunk); i++)
        if (p.followsCode(i) && p.codeRoot(i) == chunk) p.program->draw(p, i);
    } catch (const std::exception& error) {
      const std::lock_guard<std::mutex> lock(p.failure);
      const auto* core = dynamic_cast<const CoreError*>(&error);
      p.failureCode = core ? core->code : "ERR_RUNTIME";
      p.failureMessage = error.what();
      p.failed = true;
    }
  };
  const auto stop = [](void* context) {
    Pass& p = *static_cast<Pass*>(context);
    return p.cancelled->load(std::memory_order_relaxed) || p.failed.load(std::memory_order_relaxed);
  };
  const auto begin = std::chrono::steady_clock::now();
  out.finished = core_->pool.run(chunks_.data(), int(chunks_.size()), work, stop, &pass);
  out.milliseconds = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin).count();
  if (pass.copied) cache.endCopies();  // a pass cancelled before leaves them to the next
  if (pass.failed) {
    // Codes are string literals: give back the one that matches.
    for (const char* code : {"ERR_RUNTIME_NAN", "ERR_PROGRAM"})
      if (pass.failureCode == code) throw CoreError(code, pass.failureMessage);
    throw CoreError("ERR_RUNTIME", pass.failureMessage);
  }
  if (out.finished && in.wantLogits) {
    out.logits.resize(outputs * size_t(spec_.vocab));
    for (int i = 0; i < pass.outputs; i++)
      std::memcpy(out.logits.data() + size_t(i) * size_t(spec_.vocab), floats(spec_.logits, i), size_t(spec_.vocab) * 4);
  }
  return out;
}

}  // namespace outrider
