// SPDX-License-Identifier: Apache-2.0
#include "support/serial_model.hpp"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <utility>

namespace terse::test {
namespace {

double sign(double v) { return v >= 0 ? 1.0 : -1.0; }

}  // namespace

SerialModel::SerialModel(int ranks, std::size_t count, Options options)
    : ranks_(ranks),
      count_(count),
      options_(std::move(options)),
      elements_(count),
      worker_block_(options_.block),
      server_block_(options_.block),
      result_(count, 0.0) {
  const auto parties = static_cast<std::size_t>(ranks);
  if (options_.padded) {
    while (elements_ % (8 * parties) != 0) ++elements_;
    worker_block_ = std::max<std::size_t>(1, elements_);
    server_block_ = std::max<std::size_t>(1, elements_ / parties);
  }
  // Blocks are dealt out one by one as cards are, then laid down in rank order.
  const std::size_t blocks = (elements_ + server_block_ - 1) / server_block_;
  std::vector<std::size_t> held(parties, 0);
  for (std::size_t b = 0; b < blocks; ++b) ++held[b % held.size()];
  std::size_t at = 0;
  for (const std::size_t h : held) {
    const std::size_t end = std::min(elements_, at + h * server_block_);
    chunks_.push_back({at, end});
    worker_.emplace_back(elements_, 0.0);
    server_.emplace_back(end - at, 0.0);
    at = end;
  }
  worker_scales_.resize(held.size());
  server_scales_.resize(held.size());
}

double SerialModel::scale_of(const std::vector<double>& v, std::size_t begin, std::size_t end) const {
  // more exact than what it judges: where all terms are equal, as after an encoding, roundings of double all
  // go the same way, and of some thousand terms one by one they are beyond what is tolerated
  long double total = 0;
  for (std::size_t i = begin; i < end; ++i) {
    const long double term = v[i];
    total += options_.scale == Scale::l1 ? std::abs(term) : term * term;
  }
  const auto mean = static_cast<double>(total / static_cast<long double>(end - begin));
  const double scale = options_.scale == Scale::l1 ? mean : std::sqrt(mean);
  return options_.round ? options_.round(scale) : scale;
}

const std::vector<double>& SerialModel::step(const Matrix& inputs) {
  if (inputs.size() != worker_.size()) throw std::invalid_argument("one input per rank");
  Matrix quantised(inputs.size(), std::vector<double>(elements_));
  for (std::size_t rank = 0; rank < inputs.size(); ++rank) {
    std::vector<double> v = inputs[rank];
    v.resize(elements_);
    if (options_.feedback) {
      for (std::size_t i = 0; i < elements_; ++i) v[i] += worker_[rank][i];
    }
    worker_scales_[rank].clear();
    for (std::size_t begin = 0; begin < elements_; begin += worker_block_) {
      const std::size_t end = std::min(elements_, begin + worker_block_);
      const double a = scale_of(v, begin, end);
      worker_scales_[rank].push_back(a);
      for (std::size_t i = begin; i < end; ++i) quantised[rank][i] = a * sign(v[i]);
    }
    if (options_.feedback) {
      for (std::size_t i = 0; i < elements_; ++i) worker_[rank][i] = v[i] - quantised[rank][i];
    }
  }
  for (std::size_t owner = 0; owner < chunks_.size(); ++owner) {
    const Chunk chunk = chunks_[owner];
    std::vector<double> u(chunk.end - chunk.begin);
    for (std::size_t k = 0; k < u.size(); ++k) {
      double total = 0;
      for (std::size_t rank = 0; rank < inputs.size(); ++rank) total += quantised[rank][chunk.begin + k];
      u[k] = total / ranks_ + (options_.feedback ? server_[owner][k] : 0.0);
    }
    server_scales_[owner].clear();
    for (std::size_t begin = 0; begin < u.size(); begin += server_block_) {
      const std::size_t end = std::min(u.size(), begin + server_block_);
      const double a = scale_of(u, begin, end);
      server_scales_[owner].push_back(a);
      for (std::size_t k = begin; k < end; ++k) {
        double q = a * sign(u[k]);
        if (!options_.average) q *= ranks_;
        if (options_.round) q = options_.round(q);
        if (chunk.begin + k < count_) result_[chunk.begin + k] = q;
        if (options_.feedback) server_[owner][k] = u[k] - (options_.average ? q : q / ranks_);
      }
    }
  }
  return result_;
}

void SerialModel::keep_clear(Matrix& inputs, double margin,
                             const std::function<double(double)>& round_input) const {
  for (int round = 0; round < 20; ++round) {
    bool moved = false;
    SerialModel next = *this;
    next.step(inputs);
    // Workers: push |v| up to two margins. Servers: turn one rank's sign, which leaves its scale as it is.
    for (std::size_t rank = 0; rank < inputs.size(); ++rank) {
      for (std::size_t i = 0; i < count_; ++i) {
        const double residual = options_.feedback ? worker_[rank][i] : 0.0;
        const double v = inputs[rank][i] + residual;
        const double a = next.worker_scales_[rank][i / worker_block_];
        if (a > 0 && std::abs(v) < margin * a) {
          inputs[rank][i] = round_input(sign(v) * 2 * margin * a - residual);
          moved = true;
        }
      }
    }
    if (moved) continue;
    for (std::size_t owner = 0; owner < chunks_.size(); ++owner) {
      for (std::size_t k = 0; k < server_[owner].size(); ++k) {
        const std::size_t i = chunks_[owner].begin + k;
        if (i >= count_) break;  // nothing moves the padding
        double u = options_.feedback ? server_[owner][k] : 0.0;
        double terms = std::abs(u);
        for (std::size_t rank = 0; rank < inputs.size(); ++rank) {
          const double v = inputs[rank][i] + (options_.feedback ? worker_[rank][i] : 0.0);
          const double q = next.worker_scales_[rank][i / worker_block_] * sign(v) / ranks_;
          u += q;
          terms += std::abs(q);
        }
        if (terms > 0 && std::abs(u) < margin * terms) {
          const std::size_t rank = static_cast<std::size_t>(round) % inputs.size();
          const double residual = options_.feedback ? worker_[rank][i] : 0.0;
          inputs[rank][i] = round_input(-inputs[rank][i] - 2 * residual);
          moved = true;
        }
      }
    }
    if (!moved) return;
  }
  throw std::runtime_error("no inputs found whose signs are clear");
}

std::vector<double> plain_sum(const SerialModel::Matrix& inputs) {
  std::vector<double> sum(inputs.empty() ? 0 : inputs[0].size(), 0.0);
  for (const auto& input : inputs) {
    for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += input[i];
  }
  return sum;
}

}  // namespace terse::test
