// SPDX-License-Identifier: Apache-2.0
//
// A rank that is a thread hangs outside the transport while the others wait for it: the test asks for its
// name.
#include "support/thread_transport.hpp"
#include "watchdog/hang.hpp"

int main() {
  using namespace terse;
  test::run_ranks(3,
                  [](test::ThreadTransport& t) {
                    if (t.rank() == 1) test::hangs_on_purpose();
                    std::byte byte{};
                    const std::byte word{1};
                    // A message to itself is progress: the hang begins once rank 1 is where it is to be
                    // found, however late its thread starts.
                    while (!test::hangs) {
                      Operation sent;
                      Operation received;
                      t.receive({&byte, 1}, t.rank(), 1, received);
                      t.send({&word, 1}, t.rank(), 1, sent);
                      while (!sent.done || !received.done) t.progress(Transport::Wait::yes);
                    }
                    Operation operation;
                    t.receive({&byte, 1}, 1, 0, operation);
                    while (!operation.done) t.progress(Transport::Wait::yes);
                  },
                  {.patience_s = 1});
}
