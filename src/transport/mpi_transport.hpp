// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <mpi.h>

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "transport/transport.hpp"

namespace terse::inline v0_1 {

/// Transport over a communicator of its own, of the same ranks as one of the program's, in the same order.
class MpiTransport final : public Transport {
 public:
  /// Collective over `comm`, on which MPI_Comm_create is the only operation, here; it stays as it is. Errors:
  /// invalid_state outside MPI_Init ... MPI_Finalize, invalid_argument for what is no intracommunicator,
  /// communication; and what an error handler of `comm` throws.
  explicit MpiTransport(MPI_Comm comm);
  /// Without free(), the own communicator is left to MPI_Finalize.
  ~MpiTransport() override;
  MpiTransport(const MpiTransport&) = delete;
  MpiTransport& operator=(const MpiTransport&) = delete;

  /// Whether MPI may be called: after MPI_Init and before MPI_Finalize.
  static bool mpi_is_up() noexcept;
  /// Whether several threads may call MPI at once.
  static bool serves_threads() noexcept;

  /// Collective: frees the own communicator. No operation may be on its way.
  void free();
  /// Local: leaves the own communicator to MPI_Finalize, since messages may be left in it. Some MPI libraries
  /// would deliver those in the next communicator that gets its number.
  void leave() noexcept;
  bool freed() const noexcept { return comm_ == MPI_COMM_NULL; }

  int rank() const override { return rank_; }
  int size() const override { return size_; }
  int take_tags(int channels) override;
  void send(std::span<const std::byte> bytes, int to, int tag, Operation& operation) override;
  void receive(std::span<std::byte> bytes, int from, int tag, Operation& operation) override;
  void progress(Wait wait) override;
  using Transport::all_reduce;
  using Transport::start_all_reduce;
  void all_reduce(Reduction what, const void* in, void* out, std::size_t count) override;
  void start_all_reduce(Reduction what, const void* in, void* out, std::size_t count,
                        Operation& operation) override;
  std::uint64_t now() const noexcept override;
  void abandon() noexcept override;
  bool takes_device_memory() const noexcept override;
  bool abandoned() const noexcept override { return abandoned_; }

 private:
  void check(int code, const char* what);
  void name_after(MPI_Comm original);
  void require_usable() const;
  void require_transfer(const void* data, std::size_t bytes, int peer, int tag) const;
  // A transfer that has started.
  struct Pending {
    Operation* operation = nullptr;
    MPI_Datatype received = MPI_DATATYPE_NULL;  // the type of a receive
    bool reduction = false;
  };
  void add(MPI_Request request, Pending pending);
  template <class Reduce>
  void reduce_in_parts(Reduction what, const void* in, void* out, std::size_t count, Reduce&& reduce);
  template <class T>
  MPI_Op own_sum(std::size_t which);

  MPI_Comm comm_ = MPI_COMM_NULL;
  int rank_ = 0;
  int size_ = 1;
  int tag_limit_ = 32767;
  int next_tag_ = 0;
  std::atomic<bool> abandoned_ = false;  // a progress thread may do it
  // sums of f16, bf16, f32 and f64 in the default floating-point mode, made where they are needed
  std::array<MPI_Op, 4> own_sums_ = {MPI_OP_NULL, MPI_OP_NULL, MPI_OP_NULL, MPI_OP_NULL};

  std::vector<MPI_Request> requests_;  // in an array of their own, as MPI wants them
  std::vector<Pending> pending_;
  std::vector<int> finished_;
  std::vector<MPI_Status> statuses_;
};

}  // namespace terse::inline v0_1
