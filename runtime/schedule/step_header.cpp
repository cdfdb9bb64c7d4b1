// SPDX-License-Identifier: Apache-2.0
#include "runtime/schedule/step_header.hpp"

#include <algorithm>
#include <cstring>
#include <type_traits>

#include "runtime/base/check.hpp"
#include "runtime/schedule/server_messages.hpp"

namespace lockstep {
namespace {

// One description of each struct serves writing and reading: fields(archive, object) names every field once.
class Writer {
 public:
  template <typename T>
  void operator()(T& value) {
    if constexpr (std::is_arithmetic_v<T> || std::is_enum_v<T>)
      bytes.append(reinterpret_cast<const char*>(&value), sizeof value);
    else
      fields(*this, value);
  }
  template <typename T>
  void operator()(std::vector<T>& items) {
    auto count = static_cast<std::uint64_t>(items.size());
    (*this)(count);
    for (T& item : items) (*this)(item);
  }
  void operator()(std::string& text) {
    auto count = static_cast<std::uint64_t>(text.size());
    (*this)(count);
    bytes += text;
  }
  std::string bytes;
};

class Reader {
 public:
  explicit Reader(const std::string& bytes) : bytes_(bytes) {}
  template <typename T>
  void operator()(T& value) {
    if constexpr (std::is_arithmetic_v<T> || std::is_enum_v<T>) {
      static_assert(!std::is_enum_v<T> || sizeof(T) == 1);
      LOCKSTEP_CHECK(at_ + sizeof value <= bytes_.size(), "a control message ends early");
      if constexpr (std::is_same_v<T, bool>) check_below(2);
      if constexpr (std::is_enum_v<T>) check_below(kCount<T>);
      std::memcpy(&value, bytes_.data() + at_, sizeof value);
      at_ += sizeof value;
    } else {
      fields(*this, value);
    }
  }
  template <typename T>
  void operator()(std::vector<T>& items) {
    items.resize(count());
    for (T& item : items) (*this)(item);
  }
  void operator()(std::string& text) {
    const std::size_t length = count();
    text = bytes_.substr(at_, length);
    at_ += length;
  }
  bool at_end() const { return at_ == bytes_.size(); }

 private:
  /// Before a byte becomes a bool or an enum: others have no meaning there.
  void check_below(int end) const {
    const int byte = static_cast<unsigned char>(bytes_[at_]);
    LOCKSTEP_CHECK(byte < end, "a control message has the byte ", byte, " where at most ", end - 1, " may stand");
  }
  std::size_t count() {
    std::uint64_t value = 0;
    (*this)(value);
    LOCKSTEP_CHECK(value <= bytes_.size() - at_, "a control message ends early");
    return value;
  }
  const std::string& bytes_;
  std::size_t at_ = 0;
};

template <typename... Fields>
void each(auto& archive, Fields&... values) {
  (archive(values), ...);
}

void fields(auto& archive, NonFinite& n) {
  each(archive, n.layer, n.micro_batch, n.what);
}
void fields(auto& archive, StageReport& s) {
  each(archive, s.stage, s.forward_us, s.input_grad_us, s.weight_grad_us, s.recompute_us, s.operations, s.recomputed,
       s.activation_bytes, s.weight_grad_bytes, s.recompute_activation_bytes, s.layer_us);
}
void fields(auto& archive, WorkerReport& w) {
  each(archive, w.row, w.is_server, w.compute_us, w.wait_us, w.data_us, w.begin_us, w.end_us, w.peak_bytes,
       w.in_flight_bytes, w.update_us, w.reduce_us, w.replica_wait_us, w.product_rate, w.sent_bytes, w.received_bytes,
       w.stages);
  for (std::int64_t& bytes : w.peak_by_kind) archive(bytes);
}
void fields(auto& archive, HeadLoss& h) {
  each(archive, h.sum, h.denominator, h.weight);
}
void fields(auto& archive, MetricValue& m) {
  each(archive, m.name, m.value, m.picture);
}
void fields(auto& archive, MetricState& m) {
  each(archive, m.head, m.metric, m.micro_batch, m.numbers);
}
void fields(auto& archive, ParameterNorms& n) {
  each(archive, n.parameter, n.weight, n.gradient, n.update);
}
void fields(auto& archive, ChangeParts& c) {
  each(archive, c.parameters, c.begins, c.squares);
}
void fields(auto& archive, StepResult& r) {
  each(archive, r.sequence, r.mode, r.step, r.heads, r.gradient_norm, r.learning_rate, r.samples, r.micro_batches,
       r.elapsed_us, r.non_finite, r.signalled, r.last_of_evaluation, r.set, r.metrics, r.norms, r.workers,
       r.staleness);
}
void fields(auto& archive, StepHeader& h) {
  each(archive, h.sequence, h.mode, h.step, h.position, h.slices, h.heads, h.learning_rate, h.last_of_evaluation, h.set,
       h.share, h.norms, h.save, h.stop, h.finished, h.idle_us);
}
void fields(auto& archive, NormParts& n) {
  each(archive, n.parameters, n.blocks, n.squares);
}
void fields(auto& archive, Numerator& n) {
  each(archive, n.head, n.micro_batch, n.value);
}
void fields(auto& archive, RowResult& r) {
  each(archive, r.report, r.losses, r.metrics, r.non_finite, r.signalled, r.norm, r.changes, r.saved, r.denominators,
       r.staleness);
}

void fields(auto& archive, ServerRequest& r) {
  each(archive, r.kind, r.step, r.share, r.learning_rate, r.coefficient, r.first, r.text, r.servers, r.results);
}
void fields(auto& archive, ServerReply& r) {
  each(archive, r.header, r.staleness, r.squares, r.report, r.saved);
}

template <typename T>
std::string write(const T& object) {
  T copy = object;
  Writer writer;
  fields(writer, copy);
  return std::move(writer.bytes);
}

template <typename T>
T read(const std::string& bytes) {
  T object;
  Reader reader(bytes);
  fields(reader, object);
  LOCKSTEP_CHECK(reader.at_end(), "a control message is too long");
  return object;
}

}  // namespace

std::string StepHeader::to_bytes() const {
  return write(*this);
}
StepHeader StepHeader::from_bytes(const std::string& bytes) {
  return read<StepHeader>(bytes);
}
std::string RowResult::to_bytes() const {
  return write(*this);
}
RowResult RowResult::from_bytes(const std::string& bytes) {
  return read<RowResult>(bytes);
}
std::string ServerRequest::to_bytes() const {
  return write(*this);
}
ServerRequest ServerRequest::from_bytes(const std::string& bytes) {
  return read<ServerRequest>(bytes);
}
std::string ServerReply::to_bytes() const {
  return write(*this);
}
ServerReply ServerReply::from_bytes(const std::string& bytes) {
  return read<ServerReply>(bytes);
}

std::vector<std::int64_t> slice_rows(std::int64_t batch, int micro_batches, std::int64_t rows) {
  LOCKSTEP_CHECK(micro_batches >= 1 && batch >= micro_batches && rows >= 1 && rows <= batch, "slices of ", rows, " of ",
                 batch, " rows in ", micro_batches);
  std::vector<std::int64_t> slices;
  for (int m = 0; m < micro_batches && rows > 0; ++m) {
    const std::int64_t full = batch / micro_batches + (m < batch % micro_batches ? 1 : 0);
    slices.push_back(std::min(full, rows));
    rows -= slices.back();
  }
  return slices;
}

}  // namespace lockstep
