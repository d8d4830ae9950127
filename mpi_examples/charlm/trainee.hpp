// SPDX-License-Identifier: Apache-2.0
#pragma once

// What train_charlm trains: a model where it computes, on the host or on a CUDA device.

#include <memory>
#include <span>
#include <terse/types.hpp>
#include <vector>

#include "model.hpp"

namespace charlm {

class Trainee {
 public:
  virtual ~Trainee() = default;

  virtual const Shape& shape() const = 0;
  virtual std::vector<float> parameters() const = 0;
  virtual void set_parameters(std::span<const float> parameters) = 0;

  /// The summed loss of the batch in nats, as Model::loss.
  virtual double loss(const Batch& batch) = 0;
  /// As Model::loss_and_gradient.
  virtual double loss_and_gradient(const Batch& batch) = 0;
  /// Where the gradient of the mean loss lies, and once it is averaged the one to step by.
  virtual terse::View gradient() = 0;
  /// A copy of it on the host.
  virtual std::vector<float> gradient_values() = 0;
  /// Of a device: the cudaStream_t on which the gradient is made, after which it may be read.
  virtual void* stream() const { return nullptr; }
  virtual double gradient_norm() = 0;
  virtual void scale_gradient(float factor) = 0;
  /// One step of SGD: velocity = momentum * velocity + gradient; parameters -= rate * velocity.
  virtual void step(float momentum, float rate) = 0;
};

std::unique_ptr<Trainee> make_host_trainee(const Shape& shape);
/// On a device that this rank shares with as few others of its node as can be. Null where this program was
/// built without CUDA. Errors: std::runtime_error, with what CUDA or cuBLAS says.
std::unique_ptr<Trainee> make_device_trainee(const Shape& shape);

}  // namespace charlm
