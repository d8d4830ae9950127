// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>

#include "trainee.hpp"

namespace charlm {
namespace {

using Vector = Eigen::Map<Eigen::VectorXf>;

Vector vector(std::span<float> numbers) { return {numbers.data(), static_cast<Index>(numbers.size())}; }

class HostTrainee final : public Trainee {
 public:
  explicit HostTrainee(const Shape& shape) : model_(shape), velocity_(model_.parameters().size()) {}

  const Shape& shape() const override { return model_.shape(); }
  std::vector<float> parameters() const override {
    return {model_.parameters().begin(), model_.parameters().end()};
  }
  void set_parameters(std::span<const float> parameters) override {
    std::copy(parameters.begin(), parameters.end(), model_.parameters().begin());
  }
  double loss(const Batch& batch) override { return model_.loss(batch); }
  double loss_and_gradient(const Batch& batch) override { return model_.loss_and_gradient(batch); }
  terse::View gradient() override { return terse::view(model_.gradient()); }
  std::vector<float> gradient_values() override {
    return {model_.gradient().begin(), model_.gradient().end()};
  }
  double gradient_norm() override {
    return std::sqrt(vector(model_.gradient()).cast<double>().squaredNorm());
  }
  void scale_gradient(float factor) override { vector(model_.gradient()) *= factor; }
  void step(float momentum, float rate) override {
    Vector velocity = vector(velocity_);
    velocity = momentum * velocity + vector(model_.gradient());
    vector(model_.parameters()) -= rate * velocity;
  }

 private:
  Model<float> model_;
  std::vector<float> velocity_;
};

}  // namespace

std::unique_ptr<Trainee> make_host_trainee(const Shape& shape) {
  return std::make_unique<HostTrainee>(shape);
}

}  // namespace charlm
