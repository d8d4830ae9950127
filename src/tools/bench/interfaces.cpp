// SPDX-License-Identifier: Apache-2.0
#include "interfaces.hpp"

#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>

#include <cstdint>
#include <fstream>
#include <set>
#include <sstream>
#include <string>

namespace terse::bench {
namespace {

/// Interfaces that have addresses, loopback aside. The others carry what has been counted already: members of
/// a bond, ports of a bridge.
std::set<std::string> addressed_interfaces() {
  std::set<std::string> names;
  ifaddrs* list = nullptr;
  if (getifaddrs(&list) != 0) return names;
  for (const ifaddrs* entry = list; entry != nullptr; entry = entry->ifa_next) {
    if (entry->ifa_addr == nullptr || (entry->ifa_flags & IFF_LOOPBACK) != 0) continue;
    const int family = entry->ifa_addr->sa_family;
    if (family == AF_INET6) {
      const auto* address = reinterpret_cast<const sockaddr_in6*>(entry->ifa_addr);
      if (IN6_IS_ADDR_LINKLOCAL(&address->sin6_addr)) continue;  // members have these, too
    } else if (family != AF_INET) {
      continue;
    }
    const std::string label = entry->ifa_name;  // "eth0:1" is another address of eth0
    names.insert(label.substr(0, label.find(':')));
  }
  freeifaddrs(list);
  return names;
}

/// What they have sent. From /proc, which shows the network namespace that this process is in; /sys shows the
/// one in which it was mounted.
std::optional<std::uint64_t> sent_bytes() {
  constexpr int kSent = 9;  // of the numbers behind a name
  const std::set<std::string> names = addressed_interfaces();
  std::optional<std::uint64_t> sum;
  std::ifstream file("/proc/self/net/dev");
  for (std::string line; std::getline(file, line);) {
    const auto colon = line.rfind(':');
    const auto begin = line.find_first_not_of(' ');
    if (colon == std::string::npos || names.count(line.substr(begin, colon - begin)) == 0) continue;
    std::istringstream numbers(line.substr(colon + 1));
    std::uint64_t number = 0;
    for (int i = 0; i < kSent; ++i) numbers >> number;
    if (numbers) sum = sum.value_or(0) + number;
  }
  return sum;
}

/// While no rank sends anything but barriers.
std::optional<std::uint64_t> sent_so_far(const Session& session) {
  MPI_Barrier(session.comm);
  const auto sent = sent_bytes();
  MPI_Barrier(session.comm);
  return sent;
}

}  // namespace

std::optional<double> interface_bytes_per_call(const Session& session, std::size_t calls,
                                               const std::function<void()>& call) {
  const auto before = sent_so_far(session);
  for (std::size_t i = 0; i < calls; ++i) call();
  const auto after = sent_so_far(session);
  const bool told = before && after;
  if (max_over_ranks(session, told ? 0 : 1) != 0) return std::nullopt;
  return max_over_ranks(session, static_cast<double>(*after - *before)) / static_cast<double>(calls);
}

}  // namespace terse::bench
