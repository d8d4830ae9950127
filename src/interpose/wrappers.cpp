// SPDX-License-Identifier: Apache-2.0
//
// What a program calls in place of the MPI library's functions.
#include <mpi.h>

#include "interpose/chain.hpp"
#include "interpose/drop_in.hpp"
#include "interpose/unseen.hpp"

using terse::interpose::chain;
using terse::interpose::DropIn;
using terse::interpose::note_init;

namespace terse::interpose {

int allreduce(const Arguments& call) {
  if (DropIn* drop_in = DropIn::active()) {
    if (drop_in->concerns(call.count, call.datatype, call.op)) {
      if (const auto code = drop_in->allreduce(call)) return *code;
    } else {
      drop_in->count_passed_on();
    }
  }
  return chain().allreduce(call.sendbuf, call.recvbuf, call.count, call.datatype, call.op, call.comm);
}

}  // namespace terse::interpose

extern "C" {

[[gnu::visibility("default")]] int MPI_Init(int* argc, char*** argv) {
  note_init();
  const int code = chain().init(argc, argv);
  if (code == MPI_SUCCESS) DropIn::start();
  return code;
}

[[gnu::visibility("default")]] int MPI_Init_thread(int* argc, char*** argv, int required, int* provided) {
  note_init();
  const int code = chain().init_thread(argc, argv, required, provided);
  if (code == MPI_SUCCESS) DropIn::start();
  return code;
}

[[gnu::visibility("default")]] int MPI_Finalize() {
  DropIn::finish();
  return chain().finalize();
}

[[gnu::visibility("default")]] int MPI_Allreduce(const void* sendbuf, void* recvbuf, int count,
                                                 MPI_Datatype datatype, MPI_Op op, MPI_Comm comm) {
  return terse::interpose::allreduce(
      {sendbuf, recvbuf, count, datatype, op, comm, __builtin_return_address(0)});
}

}  // extern "C"
