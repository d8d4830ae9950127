// SPDX-License-Identifier: Apache-2.0
#pragma once

// The network of train_charlm: the next character from the `context` characters before it.
//
//   symbols -> embedding, one column of `embedding` numbers for each -> joined to one column x
//   h1 = silu(W1 x + b1)    h2 = silu(W2 h1 + b2)    p(next) = softmax(W3^T h2 + b3)
//
// All parameters lie in one contiguous vector and all gradients in another, so that one allreduce serves the
// whole model. The matrices are Eigen::Map views into those vectors.

#include <Eigen/Core>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <random>
#include <span>
#include <vector>

namespace charlm {

using Index = Eigen::Index;

struct Shape {
  Index alphabet = 0;   ///< number of different symbols
  Index context = 0;    ///< symbols that the network sees
  Index embedding = 0;  ///< numbers per symbol
  Index hidden = 0;     ///< units in each of the two hidden layers

  Index parameters() const noexcept {
    return embedding * alphabet + hidden * (context * embedding + 1) + hidden * (hidden + 1) +
           alphabet * (hidden + 1);
  }
};

/// Examples, one per column: `contexts` is context x examples, `targets` the symbol that follows each.
struct Batch {
  Eigen::Matrix<std::uint8_t, Eigen::Dynamic, Eigen::Dynamic> contexts;
  std::vector<std::uint8_t> targets;

  Batch(const Shape& shape, Index examples)
      : contexts(shape.context, examples), targets(static_cast<std::size_t>(examples)) {}
  Index size() const noexcept { return contexts.cols(); }
  /// Makes column `column` the example that begins at text[position]; position + context < text.size().
  void set(Index column, std::span<const std::uint8_t> text, std::size_t position) {
    const auto context = static_cast<std::size_t>(contexts.rows());
    for (std::size_t i = 0; i < context; ++i) contexts(static_cast<Index>(i), column) = text[position + i];
    targets[static_cast<std::size_t>(column)] = text[position + context];
  }
};

/// The matrices inside a vector of shape.parameters() numbers: of the parameters, or of their gradients.
///
/// A codec such as onebit has one scale for a block of neighbours, so it serves them best where their slopes
/// are of like size. Hence the order: the biases stand together, and W3 holds a column for each symbol, as
/// the embedding does, where symbols come by frequency.
template <class Scalar>
struct Layers {
  using Matrix = Eigen::Map<Eigen::Matrix<Scalar, Eigen::Dynamic, Eigen::Dynamic>>;
  using Vector = Eigen::Map<Eigen::Matrix<Scalar, Eigen::Dynamic, 1>>;

  Vector b1, b2, b3;
  Matrix embedding, w1, w2, w3;

  Layers(Scalar* data, const Shape& s) : Layers(Cursor{data}, s) {}

 private:
  struct Cursor {
    Scalar* next;
    Scalar* take(Index count) {
      Scalar* taken = next;
      next += count;
      return taken;
    }
  };
  // Members are initialised in the order of their declaration, which is therefore the order in memory.
  Layers(Cursor&& at, const Shape& s)
      : b1(at.take(s.hidden), s.hidden),
        b2(at.take(s.hidden), s.hidden),
        b3(at.take(s.alphabet), s.alphabet),
        embedding(at.take(s.embedding * s.alphabet), s.embedding, s.alphabet),
        w1(at.take(s.hidden * s.context * s.embedding), s.hidden, s.context * s.embedding),
        w2(at.take(s.hidden * s.hidden), s.hidden, s.hidden),
        w3(at.take(s.hidden * s.alphabet), s.hidden, s.alphabet) {}
};

/// Scalar is float in training; double serves to check the gradient.
template <class Scalar>
class Model {
 public:
  explicit Model(const Shape& shape)
      : shape_(shape),
        parameters_(static_cast<std::size_t>(shape.parameters())),
        gradient_(parameters_.size()),
        layers_(parameters_.data(), shape_),
        slopes_(gradient_.data(), shape_) {}
  Model(const Model&) = delete;  // the views point into the vectors
  Model& operator=(const Model&) = delete;

  const Shape& shape() const noexcept { return shape_; }
  std::span<Scalar> parameters() noexcept { return parameters_; }
  std::span<const Scalar> parameters() const noexcept { return parameters_; }
  std::span<Scalar> gradient() noexcept { return gradient_; }

  /// Random weights that keep the size of what passes through them. The last bias makes the first guess of
  /// each symbol its frequency. `frequencies` are above 0, one for each symbol.
  void initialise(std::uint64_t seed, std::span<const double> frequencies) {
    std::mt19937_64 random(seed);
    const auto fill = [&](auto& matrix, double variance) {
      std::normal_distribution<double> normal(0.0, std::sqrt(variance));
      for (Index i = 0; i < matrix.size(); ++i) matrix.data()[i] = static_cast<Scalar>(normal(random));
    };
    fill(layers_.embedding, 1.0);
    fill(layers_.w1, 2.0 / static_cast<double>(layers_.w1.cols()));
    fill(layers_.w2, 2.0 / static_cast<double>(layers_.w2.cols()));
    fill(layers_.w3, 1.0 / static_cast<double>(layers_.w3.rows()));
    layers_.b1.setZero();
    layers_.b2.setZero();
    for (Index i = 0; i < shape_.alphabet; ++i) {
      layers_.b3[i] = static_cast<Scalar>(std::log(frequencies[static_cast<std::size_t>(i)]));
    }
  }

  /// The summed loss of the batch in nats: the sum over its examples of -log p(target).
  double loss(const Batch& batch) {
    forward(batch);
    return softmax(batch);
  }

  /// As loss(); leaves the gradient of the *mean* loss in gradient().
  double loss_and_gradient(const Batch& batch) {
    forward(batch);
    const double sum = softmax(batch);
    backward(batch);
    return sum;
  }

 private:
  using Matrix = Eigen::Matrix<Scalar, Eigen::Dynamic, Eigen::Dynamic>;

  /// out = silu(z) and sigmoid = 1 / (1 + e^-z), where silu(z) = z sigmoid(z).
  static void activate(const Matrix& z, Matrix& sigmoid, Matrix& out) {
    sigmoid = ((-z.array()).exp() + Scalar(1)).inverse();
    out = z.cwiseProduct(sigmoid);
  }
  /// d, the slope at the activation's output, becomes the slope at its input: silu' = s + silu (1 - s).
  static void deactivate(const Matrix& sigmoid, const Matrix& out, Matrix& d) {
    d.array() *= sigmoid.array() + out.array() * (Scalar(1) - sigmoid.array());
  }

  void forward(const Batch& batch) {
    const Index width = shape_.embedding;
    x_.resize(shape_.context * width, batch.size());
    for (Index j = 0; j < batch.size(); ++j) {
      for (Index i = 0; i < shape_.context; ++i) {
        x_.col(j).segment(i * width, width) = layers_.embedding.col(batch.contexts(i, j));
      }
    }
    z_.noalias() = layers_.w1 * x_;
    z_.colwise() += layers_.b1;
    activate(z_, s1_, h1_);
    z_.noalias() = layers_.w2 * h1_;
    z_.colwise() += layers_.b2;
    activate(z_, s2_, h2_);
    p_.noalias() = layers_.w3.transpose() * h2_;
    p_.colwise() += layers_.b3;
  }

  /// Turns p_ from logits into probabilities and returns the summed loss.
  double softmax(const Batch& batch) {
    double sum = 0.0;
    for (Index j = 0; j < batch.size(); ++j) {
      auto column = p_.col(j).array();
      column -= column.maxCoeff();
      const auto target_logit = static_cast<double>(column[batch.targets[static_cast<std::size_t>(j)]]);
      column = column.exp();
      const Scalar total = column.sum();
      column /= total;
      sum += std::log(static_cast<double>(total)) - target_logit;
    }
    return sum;
  }

  /// The chain rule, from the probabilities in p_ back to the embedding. d_ and z_ hold slopes at the layers.
  void backward(const Batch& batch) {
    for (Index j = 0; j < batch.size(); ++j) p_(batch.targets[static_cast<std::size_t>(j)], j) -= Scalar(1);
    p_ /= static_cast<Scalar>(batch.size());
    slopes_.w3.noalias() = h2_ * p_.transpose();
    slopes_.b3 = p_.rowwise().sum();

    d_.noalias() = layers_.w3 * p_;
    deactivate(s2_, h2_, d_);
    slopes_.w2.noalias() = d_ * h1_.transpose();
    slopes_.b2 = d_.rowwise().sum();

    z_.noalias() = layers_.w2.transpose() * d_;
    deactivate(s1_, h1_, z_);
    slopes_.w1.noalias() = z_ * x_.transpose();
    slopes_.b1 = z_.rowwise().sum();

    d_.noalias() = layers_.w1.transpose() * z_;
    slopes_.embedding.setZero();
    const Index width = shape_.embedding;
    for (Index j = 0; j < batch.size(); ++j) {
      for (Index i = 0; i < shape_.context; ++i) {
        slopes_.embedding.col(batch.contexts(i, j)) += d_.col(j).segment(i * width, width);
      }
    }
  }

  Shape shape_;
  std::vector<Scalar> parameters_;
  std::vector<Scalar> gradient_;
  Layers<Scalar> layers_;
  Layers<Scalar> slopes_;
  Matrix x_, z_, s1_, h1_, s2_, h2_, p_, d_;  // columns belong to examples
};

}  // namespace charlm
