// SPDX-License-Identifier: Apache-2.0
//
// Tensors of one stream that others read. A block of memory goes back to its stream as soon as nobody holds it, though
// another stream may not have read it yet; so what is handed over is lent:
//
//   lender's stream    made x --- event 1                      reuses x's memory only after collect() saw event 2 over
//   borrower's stream           wait for 1, read x ... last use --- event 2
//
// No thread waits, and which memory is free when is decided by looks of the lender alone. (Not record_stream: what is
// free would depend on the time of every allocation.)
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <mutex>
#include <optional>
#include <unordered_map>
#include <utility>
#include <vector>

#include "runtime/device/stream.hpp"

namespace lockstep {

class Lender : public std::enable_shared_from_this<Lender> {
 public:
  ~Lender();

  /// The tensor as work on `borrower` may use it, on the same device. It is the lender's, and must not be written to.
  at::Tensor lend(const at::Tensor& tensor, const DeviceStream& borrower);
  /// Keeps a tensor until the event is over.
  void keep(at::Tensor tensor, StreamEvent until);
  /// By the lender, now and then: lets go of what is over. Throws c10::Error when the borrower's work has failed.
  void collect();

 private:
  struct Kept {
    at::Tensor tensor;
    StreamEvent until;
  };
  std::mutex mutex_;
  std::vector<Kept> kept_;
};

/// What whoever gets tensors of a device has to know of them. Of the host's there is nothing to say.
struct Loan {
  StreamEvent ready = {};                    ///< they have been computed
  std::shared_ptr<Lender> lender = nullptr;  ///< null: nothing is lent
};

/// What a worker computes on and hands over with. Used by its thread.
class Handover {
 public:
  explicit Handover(c10::Device device);
  const DeviceStream& stream() const { return stream_; }
  /// Of tensors that have been told to the stream.
  Loan loan() const;
  /// Tensors of a message, some of which may be undefined, as work on the stream may use them: lent where they are on
  /// its device, else copied to it.
  std::vector<at::Tensor> take(std::vector<at::Tensor> tensors, const Loan& loan);
  /// What is told to the stream from here on comes behind what the sender has told to its own.
  void follow(const Loan& loan) const {
    if (lender_) stream_.wait(loan.ready);
  }
  /// Tensors that nobody else holds, as work on the stream may use them: those of the host are copied, beside what the
  /// stream has still to do.
  std::vector<at::Tensor> bring(std::vector<at::Tensor> tensors);
  /// Copies on the host of tensors that have been told to the stream, some of which may be undefined, and when they are
  /// there: beside what is told next.
  std::pair<std::vector<at::Tensor>, Loan> send_home(std::vector<at::Tensor> tensors);
  /// Lets go of what others are done with.
  void collect() const {
    if (lender_) lender_->collect();
  }

 private:
  const DeviceStream& copying(c10::Device device) { return copying_.try_emplace(device, device).first->second; }

  DeviceStream stream_;
  std::shared_ptr<Lender> lender_;                         // null: on the host
  std::unordered_map<c10::Device, DeviceStream> copying_;  // by device that tensors come from; of the stream's: home
  std::optional<DeviceStream> bringing_;
};

}  // namespace lockstep
