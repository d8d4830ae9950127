// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <vector>

#include "report.hpp"
#include "session.hpp"

namespace terse::bench {

/// This rank's number among the ranks of its host. Collective.
int rank_on_host(const Session& session);

/// Where the ranks run: the number of ranks on each host, a host being ranks that can share memory.
/// Collective.
std::vector<int> ranks_per_host(const Session& session);

/// What a figure depends on: versions, processor, device, layout of the ranks, settings in the environment.
/// No names of users or hosts, no paths. On every rank; `layout` is what ranks_per_host returned.
Json describe_environment(const Session& session, const std::vector<int>& layout);

/// Bytes of the largest cache that rank 0's first core sees, a usual size where the system does not tell.
std::size_t last_level_cache_bytes();

/// How many cores this process may run on.
std::size_t allowed_cores();

/// Whether this program was compiled with optimisation: figures mean little without.
bool is_optimized() noexcept;

}  // namespace terse::bench
