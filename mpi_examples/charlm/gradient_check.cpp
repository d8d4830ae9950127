// SPDX-License-Identifier: Apache-2.0
#include "gradient_check.hpp"

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include "model.hpp"

namespace charlm {

double gradient_error() {
  constexpr std::uint64_t kSeed = 7;
  constexpr double kStep = 1e-5;
  const Shape shape{.alphabet = 11, .context = 4, .embedding = 3, .hidden = 9};
  Model<double> model(shape);
  model.initialise(kSeed, std::vector<double>(static_cast<std::size_t>(shape.alphabet), 1.0));
  std::mt19937_64 random(kSeed);
  std::normal_distribution<double> normal(0.0, 0.5);
  for (double& parameter : model.parameters()) parameter += normal(random);  // nothing stays at zero

  Batch batch(shape, 13);
  std::vector<std::uint8_t> text(static_cast<std::size_t>(batch.size() + shape.context));
  for (auto& symbol : text)
    symbol = static_cast<std::uint8_t>(random() % static_cast<std::uint64_t>(shape.alphabet));
  for (Index j = 0; j < batch.size(); ++j) batch.set(j, text, static_cast<std::size_t>(j));

  model.loss_and_gradient(batch);
  const std::vector<double> gradient(model.gradient().begin(), model.gradient().end());
  double largest_slope = 0.0;
  double largest_error = 0.0;
  for (std::size_t i = 0; i < gradient.size(); ++i) {
    double& parameter = model.parameters()[i];
    const double centre = parameter;
    parameter = centre + kStep;
    const double above = model.loss(batch);
    parameter = centre - kStep;
    const double below = model.loss(batch);
    parameter = centre;
    const double slope = (above - below) / (2.0 * kStep) / static_cast<double>(batch.size());
    largest_slope = std::max(largest_slope, std::abs(slope));
    // Written so that a NaN counts as an error.
    if (!(std::abs(slope - gradient[i]) <= largest_error)) largest_error = std::abs(slope - gradient[i]);
  }
  return largest_error / largest_slope;
}

}  // namespace charlm
