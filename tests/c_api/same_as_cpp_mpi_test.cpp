// SPDX-License-Identifier: Apache-2.0
// ranks: 1 2 3
//
// A call from C is the call from C++: the same bits, residuals, outcomes and errors, for every codec's
// examples.
#include <gtest/gtest.h>
#include <mpi.h>
#include <terse/terse.h>

#include <string>
#include <vector>

#include "support/covering.hpp"
#include "support/exact.hpp"
#include "support/mpi_ranks.hpp"

namespace terse::test {
namespace {

MPI_Datatype type_of(DType dtype) {
  switch (dtype) {
    case DType::f32:
      return MPI_FLOAT;
    case DType::f64:
      return MPI_DOUBLE;
    case DType::f16:
      return Terse_Type_float16();
    default:
      return Terse_Type_bfloat16();
  }
}

std::vector<std::byte> save_of(Terse_Feedback feedback) {
  std::size_t size = 0;
  EXPECT_EQ(Terse_Feedback_save(feedback, nullptr, &size), MPI_SUCCESS);
  std::vector<std::byte> save(size);
  EXPECT_EQ(Terse_Feedback_save(feedback, save.data(), &size), MPI_SUCCESS);
  return save;
}

/// A duplicate of the world with options, errors returned.
class Duplicate {
 public:
  explicit Duplicate(const std::string& codec) {
    MPI_Comm_dup(MPI_COMM_WORLD, &comm);
    MPI_Comm_set_errhandler(comm, MPI_ERRORS_RETURN);
    MPI_Info info = MPI_INFO_NULL;
    MPI_Info_create(&info);
    MPI_Info_set(info, "terse_codec", codec.c_str());
    MPI_Info_set(info, "terse_algorithm", compressing(codec).policy.algorithm.c_str());
    MPI_Info_set(info, "terse_min_bytes", "0");
    EXPECT_EQ(Terse_Comm_set_info(comm, info), MPI_SUCCESS);
    MPI_Info_free(&info);
  }
  Duplicate(const Duplicate&) = delete;
  Duplicate& operator=(const Duplicate&) = delete;
  ~Duplicate() { MPI_Comm_free(&comm); }

  MPI_Comm comm = MPI_COMM_NULL;
};

/// Three calls of either kind, side by side.
void compare(const std::string& codec, DType dtype, Op op, bool with_feedback, ResidualType residual) {
  const Duplicate duplicate(codec);
  Communicator world(MPI_COMM_WORLD);
  Feedback feedback(residual);
  Terse_Feedback c_feedback = TERSE_FEEDBACK_NULL;
  if (with_feedback) {
    const auto create = residual == ResidualType::bf16 ? Terse_Feedback_create_bf16 : Terse_Feedback_create;
    ASSERT_EQ(create(&c_feedback), MPI_SUCCESS);
  }
  for (std::uint64_t step = 0; step < 3; ++step) {
    const Tensor in(normal_values(777, dtype, 20 + step, world_rank()), dtype);
    Tensor out(777, dtype);
    Tensor c_out(777, dtype);
    Outcome outcome;
    const std::string error = error_of([&] {
      outcome = world.allreduce({in.view(), out.view(), with_feedback ? &feedback : nullptr}, op,
                                compressing(codec));
    });
    Terse_Options options{};
    options.size = sizeof options;
    options.feedback = c_feedback;
    const int code =
        Terse_Allreduce_with(in.view().data, c_out.view().data, 777, type_of(dtype),
                             op == Op::sum ? MPI_SUM : Terse_Op_average(), duplicate.comm, &options);
    Terse_Outcome c_outcome;
    ASSERT_EQ(Terse_Get_outcome(duplicate.comm, &c_outcome), MPI_SUCCESS);
    if (!error.empty()) {  // an unsound pair
      char text[TERSE_MAX_ERROR_STRING] = {};
      int length = 0;
      ASSERT_EQ(Terse_Error_code(code), TERSE_ERR_UNSUPPORTED) << error;
      ASSERT_EQ(Terse_Error_string(code, text, &length), MPI_SUCCESS);
      ASSERT_EQ("unsupported: " + std::string(text).substr(std::string("Terse_Allreduce_with: ").size()),
                error);
      ASSERT_EQ(c_outcome.result, TERSE_RESULT_NONE);
      break;
    }
    ASSERT_EQ(code, MPI_SUCCESS);
    ASSERT_TRUE(c_out.same_bits(out));
    ASSERT_TRUE(c_out.guards_intact());
    ASSERT_EQ(c_outcome.algorithm, outcome.algorithm);
    ASSERT_EQ(c_outcome.bytes_sent, outcome.bytes_sent);
    ASSERT_EQ(c_outcome.exact_count, outcome.exact_count);
    ASSERT_EQ(c_outcome.result == TERSE_RESULT_COMPRESSED, outcome.result == Outcome::Result::compressed);
    if (with_feedback) {
      ASSERT_EQ(save_of(c_feedback), feedback.save());
    }
  }
  ASSERT_EQ(Terse_Feedback_free(&c_feedback), MPI_SUCCESS);
}

/// Every codec's examples with every type, each of which has both operations, with feedback and without, in
/// turn.
TEST(C, IsTheSameAsCpp) {
  std::size_t turn = 0;
  for (const CodecEntry& row : codecs()) {
    for (const std::string& codec : row.examples) {
      for (const DType dtype : kAllDTypes) {
        ++turn;
        for (const Op op : {Op::sum, Op::average}) {
          for (const bool with_feedback : {false, true}) {
            const bool its_turn = (turn + turn / 4) % 2 == 0;
            if (!nightly() && ((op == Op::sum) == with_feedback) != its_turn) continue;
            SCOPED_TRACE(codec + " " + std::string(name(dtype)) + " " + std::string(name(op)) +
                         (with_feedback ? " with feedback" : ""));
            compare(codec, dtype, op, with_feedback, ResidualType::full);
            if (HasFatalFailure()) return;
            if (with_feedback) compare(codec, dtype, op, with_feedback, ResidualType::bf16);
            if (HasFatalFailure()) return;
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace terse::test
