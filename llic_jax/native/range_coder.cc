// The range coder of tfc streams, as a plain C interface for ctypes (which lets go of the GIL).
//
// docs/bitstream.md states the stream bit by bit; llic_jax/coding/range_coders/pure_python.py is the same in
// Python. The interval is [base, base + size) of a window of 32 bits. Carries are not followed when
// they occur: words are kept with 17 bits, and the encoder adds up the carries when it finishes.
//
// Nothing here trusts its arguments: tables are checked when a coder is made, rows and symbols as
// they come, and a decoder takes any bytes. Every symbol takes bounded time.

#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <vector>

#if defined(_WIN32)
#define LLIC_EXPORT extern "C" __declspec(dllexport)
#else
#define LLIC_EXPORT extern "C" __attribute__((visibility("default")))
#endif

namespace {

// As in llic_jax/coding/range_coders/native.py.
enum Status : int32_t {
  kDone = 0,
  kNoMemory = 1,
  kBadArgument = 2,  // a null handle, lengths that differ, a row that does not exist
  kNotListed = 3,    // a symbol that a row without escape does not list
  kDamaged = 4,      // an escape code that no int32 has
};

constexpr int kMaxPrecision = 16;
constexpr int kWordBits = 16;
constexpr uint64_t kWord = uint64_t{1} << kWordBits;
constexpr uint64_t kWindow = uint64_t{1} << 32;
constexpr int kMaxGammaZeros = 32;  // a symbol's distance to a row's ends is at most 2^32
constexpr int kBucketBits = 8;
constexpr uint64_t kByteStep = kWindow >> 8;
constexpr uint64_t kWordStep = kWindow >> 16;

// The number in [base, base + size) with the fewest leading bytes that are not zero: one or two.
// The interval reaches to the window's end at most, and is longer than kWordStep.
uint64_t shortest(uint64_t base, uint64_t size) {
  const uint64_t end = (base + kByteStep - 1) & ~(kByteStep - 1);
  return end < base + size ? end : (base + kWordStep - 1) & ~(kWordStep - 1);
}

struct Row {
  size_t start;     // in Tables::cdf
  int64_t symbols;  // that it lists, without the escape
  int64_t first;    // the first one's value
  int precision;
  bool escape;

  int bucket_shift() const { return precision > kBucketBits ? precision - kBucketBits : 0; }
};

struct Tables {
  std::vector<uint32_t> cdf;
  std::vector<Row> rows;

  // lookup: row by row a precision (negative: with escape) and ascending cumulative frequencies
  // from 0 to 2^precision. firsts: the value of each row's first symbol.
  bool read(const int32_t* lookup, int64_t lookup_size, const int32_t* firsts,
            int64_t firsts_size) {
    if (lookup_size < 0 || firsts_size < 0 || (lookup_size > 0 && lookup == nullptr) ||
        (firsts_size > 0 && firsts == nullptr))
      return false;
    cdf.reserve(static_cast<size_t>(lookup_size));
    for (int64_t i = 0; i < lookup_size;) {
      const int64_t lead = lookup[i++];
      const int64_t precision = lead < 0 ? -lead : lead;
      if (precision < 1 || precision > kMaxPrecision) return false;
      if (static_cast<int64_t>(rows.size()) >= firsts_size) return false;
      const size_t start = cdf.size();
      const int64_t total = int64_t{1} << precision;
      if (i >= lookup_size || lookup[i] != 0) return false;
      cdf.push_back(0);
      ++i;
      while (cdf.back() != total) {
        if (i >= lookup_size) return false;
        const int64_t next = lookup[i++];
        if (next <= static_cast<int64_t>(cdf.back()) || next > total) return false;
        cdf.push_back(static_cast<uint32_t>(next));
      }
      const int64_t intervals = static_cast<int64_t>(cdf.size() - start) - 1;
      rows.push_back({start, intervals - (lead < 0 ? 1 : 0), firsts[rows.size()],
                      static_cast<int>(precision), lead < 0});
    }
    return static_cast<int64_t>(rows.size()) == firsts_size;
  }
};

struct Encoder {
  Tables tables;
  std::vector<uint32_t> words;  // of 16 bits and, above them, a carry into the word before
  uint64_t base = 0;            // below 2^33: with a carry of its own
  uint64_t size = kWindow;

  void step(uint64_t lower, uint64_t upper, int precision) {
    const uint64_t below = size * lower >> precision;
    base += below;
    size = (size * upper >> precision) - below;
    if (size <= kWord) {
      words.push_back(static_cast<uint32_t>(base >> kWordBits));
      base = (base & (kWord - 1)) << kWordBits;
      size <<= kWordBits;
    }
  }

  void bit(uint64_t value) { step(value, value + 1, 1); }

  // Elias gamma code of `distance` >= 1 and the side: 1 below the row's start, 0 behind its end.
  void escape(uint64_t distance, bool below) {
    int zeros = 0;
    while (distance >> (zeros + 1)) ++zeros;
    for (int n = 0; n < zeros; ++n) bit(0);
    for (int n = zeros; n >= 0; --n) bit(distance >> n & 1);
    bit(below);
  }

  Status encode(const int32_t* indexes, const int32_t* symbols, int64_t count) {
    const int64_t num_rows = static_cast<int64_t>(tables.rows.size());
    for (int64_t n = 0; n < count; ++n) {
      if (indexes[n] < 0 || indexes[n] >= num_rows) return kBadArgument;
      const Row& row = tables.rows[indexes[n]];
      const uint32_t* cdf = tables.cdf.data() + row.start;
      const int64_t value = int64_t{symbols[n]} - row.first;
      if (value >= 0 && value < row.symbols) {
        step(cdf[value], cdf[value + 1], row.precision);
      } else {
        if (!row.escape) return kNotListed;
        step(cdf[row.symbols], cdf[row.symbols + 1], row.precision);
        const bool below = value < 0;
        escape(static_cast<uint64_t>(below ? -value : value - row.symbols + 1), below);
      }
    }
    return kDone;
  }

  // Writes the words and the shortest end that names a number in the interval. Returns how many
  // bytes these are.
  int64_t finish(uint8_t* out) {
    std::vector<uint32_t> whole = words;
    uint32_t carry = static_cast<uint32_t>(base >> 32);
    for (size_t i = whole.size(); i-- > 0;) {
      const uint32_t word = whole[i] + carry;
      whole[i] = word & (kWord - 1);
      carry = word >> kWordBits;
    }
    const uint64_t rest = base & (kWindow - 1);
    int64_t spare = 0;  // bytes of the last word
    if (rest + size > kWindow) {  // the carry is open: with it, all that follows is zeros
      while (whole.back() == kWord - 1) whole.pop_back();
      spare = (++whole.back() & 0xFF) == 0;
    } else if (rest > 0) {
      const uint64_t end = shortest(rest, size);
      whole.push_back(static_cast<uint32_t>(end >> kWordBits));
      spare = end % kByteStep == 0;
    }
    const int64_t bytes = 2 * static_cast<int64_t>(whole.size()) - spare;
    if (out != nullptr)
      for (int64_t i = 0; i < bytes; ++i)
        out[i] = static_cast<uint8_t>(whole[i / 2] >> (i % 2 ? 0 : 8));
    return bytes;
  }
};

struct Decoder {
  Tables tables;
  std::vector<uint16_t> buckets;  // of each row: the symbol at each 2^kBucketBits-th of its range
  std::vector<uint8_t> data;
  size_t position = 0;
  uint64_t code = 0;  // the last two words that were read, less the encoder's base: below size
  uint64_t size = kWindow;

  void start() {
    buckets.resize(tables.rows.size() << kBucketBits);
    for (size_t r = 0; r < tables.rows.size(); ++r) {
      const Row& row = tables.rows[r];
      const uint32_t* cdf = tables.cdf.data() + row.start;
      const uint32_t count = 1u << (row.precision - row.bucket_shift());
      size_t symbol = 0;
      for (uint32_t bucket = 0; bucket < count; ++bucket) {
        while (cdf[symbol + 1] <= bucket << row.bucket_shift()) ++symbol;
        buckets[(r << kBucketBits) + bucket] = static_cast<uint16_t>(symbol);
      }
    }
    code = next_word() << kWordBits;
    code |= next_word();
  }

  // Behind the last byte there are zeros, as many as are asked for.
  uint64_t word(size_t at) const {
    const uint64_t high = at < data.size() ? data[at] : 0;
    const uint64_t low = at + 1 < data.size() ? data[at + 1] : 0;
    return high << 8 | low;
  }

  uint64_t next_word() {
    position += 2;
    return word(position - 2);
  }

  void narrow(uint64_t lower, uint64_t upper, int precision) {
    const uint64_t below = size * lower >> precision;
    code -= below;
    size = (size * upper >> precision) - below;
    if (size <= kWord) {
      code = code << kWordBits | next_word();
      size <<= kWordBits;
    }
  }

  uint64_t bit() {
    const uint64_t value = code >= size >> 1;
    narrow(value, value + 1, 1);
    return value;
  }

  int64_t listed(size_t index, const Row& row) {
    const uint32_t* cdf = tables.cdf.data() + row.start;
    const uint64_t target = (((code + 1) << row.precision) - 1) / size;
    size_t symbol = buckets[(index << kBucketBits) + (target >> row.bucket_shift())];
    while (cdf[symbol + 1] <= target) ++symbol;
    narrow(cdf[symbol], cdf[symbol + 1], row.precision);
    return static_cast<int64_t>(symbol);
  }

  bool escaped(const Row& row, int64_t* value) {
    int zeros = 0;
    while (bit() == 0)
      if (++zeros > kMaxGammaZeros) return false;
    int64_t distance = 1;
    for (int n = 0; n < zeros; ++n) distance = 2 * distance + static_cast<int64_t>(bit());
    *value = bit() ? -distance : row.symbols - 1 + distance;
    return true;
  }

  Status decode(const int32_t* indexes, int32_t* symbols, int64_t count) {
    const int64_t num_rows = static_cast<int64_t>(tables.rows.size());
    for (int64_t n = 0; n < count; ++n) {
      if (indexes[n] < 0 || indexes[n] >= num_rows) return kBadArgument;
      const size_t index = static_cast<size_t>(indexes[n]);
      const Row& row = tables.rows[index];
      int64_t value = listed(index, row);
      if (value == row.symbols && !escaped(row, &value)) return kDamaged;
      value += row.first;
      if (value < std::numeric_limits<int32_t>::min() ||
          value > std::numeric_limits<int32_t>::max())
        return kDamaged;
      symbols[n] = static_cast<int32_t>(value);
    }
    return kDone;
  }

  // Whether an encoder of these symbols would have ended in these bytes. Zeros may follow as far as
  // was read.
  bool finish() const {
    const uint64_t read = word(position - 4) << kWordBits | word(position - 2);
    const uint64_t base = (read - code) & (kWindow - 1);
    const uint64_t last = base + size > kWindow ? 0 : shortest(base, size);
    return read == last && position >= data.size();
  }
};

// C++ exceptions must not reach C.
template <class Call>
int32_t guarded(Call call) {
  try {
    return call();
  } catch (...) {  // std::bad_alloc, std::length_error
    return kNoMemory;
  }
}

bool fits(const void* indexes, int64_t num_indexes, const void* symbols, int64_t num_symbols) {
  return num_indexes >= 0 && num_indexes == num_symbols &&
         (num_indexes == 0 || (indexes != nullptr && symbols != nullptr));
}

}  // namespace

LLIC_EXPORT int32_t llic_range_encoder_create(const int32_t* lookup, int64_t lookup_size,
                                              const int32_t* firsts, int64_t firsts_size,
                                              Encoder** encoder) {
  return guarded([&]() -> int32_t {
    auto made = std::make_unique<Encoder>();
    if (!made->tables.read(lookup, lookup_size, firsts, firsts_size)) return kBadArgument;
    *encoder = made.release();
    return kDone;
  });
}

LLIC_EXPORT int32_t llic_range_encoder_encode(Encoder* encoder, const int32_t* indexes,
                                              int64_t num_indexes, const int32_t* symbols,
                                              int64_t num_symbols) {
  if (encoder == nullptr || !fits(indexes, num_indexes, symbols, num_symbols)) return kBadArgument;
  return guarded([&]() -> int32_t { return encoder->encode(indexes, symbols, num_indexes); });
}

// Writes the stream if `out` has room for it. `needed`: its bytes, in any case.
LLIC_EXPORT int32_t llic_range_encoder_finish(Encoder* encoder, uint8_t* out, int64_t capacity,
                                              int64_t* needed) {
  if (encoder == nullptr || needed == nullptr) return kBadArgument;
  return guarded([&]() -> int32_t {
    *needed = encoder->finish(nullptr);
    if (out != nullptr && capacity >= *needed) encoder->finish(out);
    return kDone;
  });
}

LLIC_EXPORT void llic_range_encoder_destroy(Encoder* encoder) { delete encoder; }

LLIC_EXPORT int32_t llic_range_decoder_create(const int32_t* lookup, int64_t lookup_size,
                                              const int32_t* firsts, int64_t firsts_size,
                                              const uint8_t* data, int64_t data_size,
                                              Decoder** decoder) {
  if (data_size < 0 || (data_size > 0 && data == nullptr)) return kBadArgument;
  return guarded([&]() -> int32_t {
    auto made = std::make_unique<Decoder>();
    if (!made->tables.read(lookup, lookup_size, firsts, firsts_size)) return kBadArgument;
    if (data_size > 0) made->data.assign(data, data + data_size);
    made->start();
    *decoder = made.release();
    return kDone;
  });
}

LLIC_EXPORT int32_t llic_range_decoder_decode(Decoder* decoder, const int32_t* indexes,
                                              int64_t num_indexes, int32_t* symbols,
                                              int64_t num_symbols) {
  if (decoder == nullptr || !fits(indexes, num_indexes, symbols, num_symbols)) return kBadArgument;
  return guarded([&]() -> int32_t { return decoder->decode(indexes, symbols, num_indexes); });
}

LLIC_EXPORT int32_t llic_range_decoder_finish(const Decoder* decoder) {
  return decoder != nullptr && decoder->finish();
}

LLIC_EXPORT void llic_range_decoder_destroy(Decoder* decoder) { delete decoder; }
