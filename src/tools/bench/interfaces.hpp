// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <functional>
#include <optional>

#include "session.hpp"

namespace terse::bench {

/// Bytes that a host sends for each of `calls` calls by its network interfaces' own counters, of the host
/// that sends most: headers, acknowledgements and whatever else it sends are in it. Nothing where a host does
/// not tell. Collective.
std::optional<double> interface_bytes_per_call(const Session& session, std::size_t calls,
                                               const std::function<void()>& call);

}  // namespace terse::bench
