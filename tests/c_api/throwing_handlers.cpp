// SPDX-License-Identifier: Apache-2.0
//
// Error handlers of a C++ program that throw: what they throw comes out of the call that has the error, of
// every function of terse.h, once and unchanged; the sentence is there by then, the call is over on all ranks
// and the next one works. Errors of Terse's, and errors that MPI finds in calls that Terse makes, which this
// program makes to fail in MPI's profiling interface.
//
// Arguments: `multiple` initialises MPI with MPI_THREAD_MULTIPLE.
#include <cstring>
#include <exception>
#include <functional>
#include <iterator>
#include <set>
#include <stdexcept>
#include <string>
#include <terse/error.hpp>
#include <vector>

#include "check.h"

namespace {

constexpr int kCount = 1000;

MPI_Comm comm = MPI_COMM_NULL;
MPI_Comm fresh = MPI_COMM_NULL;  // one that Terse knows nothing of yet
float in[kCount], out[kCount];
bool last = false;
bool mpi_may_throw = true;  // whether MPI can be used after a handler has thrown through it

// --- the handler ---

enum class Throws { nothing, runtime_error, integer, terse_error };
constexpr Throws kAllKinds[] = {Throws::runtime_error, Throws::integer, Throws::terse_error, Throws::nothing};
Throws throws = Throws::nothing;
int handler_calls = 0;
std::string handler_text;
Terse_Errcode handler_kind = TERSE_ERR_NONE;

void handler(MPI_Comm*, int* code, ...) {
  ++handler_calls;
  CHECK(std::current_exception() == nullptr);  // no exception of Terse's is being handled
  char text[TERSE_MAX_ERROR_STRING] = "";
  int length = 0;
  CHECK_INT(Terse_Error_string(*code, text, &length), MPI_SUCCESS);
  handler_text = text;
  handler_kind = Terse_Error_code(*code);
  if (throws == Throws::runtime_error) throw std::runtime_error(text);
  if (throws == Throws::integer) throw *code;
  if (throws == Throws::terse_error) throw terse::Error(terse::ErrorCode::device, text);
}

// --- MPI calls that fail ---

std::string to_fail;  // the name of the function
int fails_at = 0;     // which of its calls, from 1 on
bool has_failed = false;
std::set<std::string> failed_names;

// Whether this call, on the program's communicators or without any, is the one.
bool fails(const char* name, MPI_Comm of) {
  if (to_fail != name) return false;
  if (of != comm && of != fresh && of != MPI_COMM_WORLD && of != MPI_COMM_SELF) return false;
  if (--fails_at != 0) return false;
  to_fail.clear();
  has_failed = true;
  failed_names.insert(name);
  return true;
}

int fail(MPI_Comm of) {
  PMPI_Comm_call_errhandler(of, MPI_ERR_INTERN);
  return MPI_ERR_INTERN;
}

}  // namespace

#define FAILING(name, of, parameters, ...) \
  extern "C" int name parameters {         \
    if (fails(#name, of)) return fail(of); \
    return P##name(__VA_ARGS__);           \
  }
FAILING(MPI_Comm_get_attr, c, (MPI_Comm c, int key, void* value, int* flag), c, key, value, flag)
FAILING(MPI_Comm_set_attr, c, (MPI_Comm c, int key, void* value), c, key, value)
FAILING(MPI_Comm_test_inter, c, (MPI_Comm c, int* flag), c, flag)
FAILING(MPI_Comm_get_errhandler, c, (MPI_Comm c, MPI_Errhandler* h), c, h)
FAILING(MPI_Comm_create, c, (MPI_Comm c, MPI_Group group, MPI_Comm* made), c, group, made)
FAILING(MPI_Allreduce, c, (const void* from, void* to, int n, MPI_Datatype t, MPI_Op op, MPI_Comm c), from,
        to, n, t, op, c)
FAILING(MPI_Iallreduce, c,
        (const void* from, void* to, int n, MPI_Datatype t, MPI_Op op, MPI_Comm c, MPI_Request* r), from, to,
        n, t, op, c, r)
FAILING(MPI_Info_get_nkeys, MPI_COMM_WORLD, (MPI_Info info, int* keys), info, keys)
FAILING(MPI_Info_get_nthkey, MPI_COMM_WORLD, (MPI_Info info, int n, char* key), info, n, key)
FAILING(MPI_Info_get_valuelen, MPI_COMM_WORLD, (MPI_Info info, const char* key, int* length, int* flag), info,
        key, length, flag)
FAILING(MPI_Info_get, MPI_COMM_WORLD, (MPI_Info info, const char* key, int length, char* value, int* flag),
        info, key, length, value, flag)
FAILING(MPI_Info_create, MPI_COMM_WORLD, (MPI_Info * info), info)
FAILING(MPI_Info_set, MPI_COMM_WORLD, (MPI_Info info, const char* key, const char* value), info, key, value)
FAILING(MPI_Type_contiguous, MPI_COMM_WORLD, (int n, MPI_Datatype of, MPI_Datatype* made), n, of, made)
FAILING(MPI_Type_set_name, MPI_COMM_WORLD, (MPI_Datatype type, const char* name), type, name)
FAILING(MPI_Type_commit, MPI_COMM_WORLD, (MPI_Datatype * type), type)
FAILING(MPI_Op_create, MPI_COMM_WORLD, (MPI_User_function * function, int commutes, MPI_Op* op), function,
        commutes, op)
FAILING(MPI_Add_error_class, MPI_COMM_WORLD, (int* made), made)
FAILING(MPI_Add_error_code, MPI_COMM_WORLD, (int of, int* made), of, made)
FAILING(MPI_Add_error_string, MPI_COMM_WORLD, (int code, const char* text), code, text)
FAILING(MPI_Comm_create_keyval, MPI_COMM_WORLD,
        (MPI_Comm_copy_attr_function * copy, MPI_Comm_delete_attr_function* drop, int* key, void* extra),
        copy, drop, key, extra)
FAILING(MPI_Comm_free_keyval, MPI_COMM_WORLD, (int* key), key)

// These end what is under way, and then report an error of it.
extern "C" int MPI_Test(MPI_Request* request, int* flag, MPI_Status* status) {
  if (!fails("MPI_Test", MPI_COMM_WORLD)) return PMPI_Test(request, flag, status);
  PMPI_Wait(request, MPI_STATUS_IGNORE);
  return fail(MPI_COMM_WORLD);
}
extern "C" int MPI_Wait(MPI_Request* request, MPI_Status* status) {
  if (!fails("MPI_Wait", MPI_COMM_WORLD)) return PMPI_Wait(request, status);
  PMPI_Wait(request, MPI_STATUS_IGNORE);
  return fail(MPI_COMM_WORLD);
}

namespace {

// --- what is checked ---

void check_next_call(int line) {
  for (float& value : in) value = 3.0f;
  out[kCount / 2] = 0;
  check_ints(Terse_Allreduce(in, out, kCount, MPI_FLOAT, Terse_Op_average(), comm), MPI_SUCCESS,
             "the next call", __FILE__, line);
  check_that(out[kCount / 2] == 3.0f, "the next call is right", __FILE__, line);
}

// A call that must call the handler once, and let out what that throws. `part` is in the sentence.
void expect_error_of(const std::function<int()>& call, const char* part, int line) {
  const int before = handler_calls;
  handler_text.clear();
  Throws thrown = Throws::nothing;
  std::string text;
  int code = MPI_SUCCESS;
  try {
    code = call();
  } catch (const terse::Error& error) {
    thrown = error.code() == terse::ErrorCode::device ? Throws::terse_error : Throws::nothing;
    text = error.what();
  } catch (const std::runtime_error& error) {
    thrown = Throws::runtime_error;
    text = error.what();
  } catch (int value) {
    thrown = Throws::integer;
    code = value;
  }
  check_ints(handler_calls - before, 1, "calls of the handler", __FILE__, line);
  check_that(thrown == throws, "what is caught is what the handler threw", __FILE__, line);
  if (throws == Throws::nothing || throws == Throws::integer) {
    check_that(code != MPI_SUCCESS, "the code says that there is an error", __FILE__, line);
  } else {
    check_that(text == handler_text, "what is caught is as the handler made it", __FILE__, line);
  }
  check_text(handler_text.c_str(), part, __FILE__, line);
}
#define EXPECT_ERROR(part, ...) expect_error_of([&]() -> int { return __VA_ARGS__; }, part, __LINE__)

void each_kind(const std::function<void()>& test) {
  for (const Throws kind : kAllKinds) {
    throws = kind;
    test();
  }
  throws = Throws::nothing;
}

Terse_Options options_with(MPI_Info info) {
  Terse_Options options{};
  options.size = sizeof options;
  options.info = info;
  return options;
}

// The tensor as a list of one.
int fused(const Terse_Options* options) {
  const MPI_Count count = kCount;
  const void* const from = in;
  void* const to = out;
  return Terse_Allreduce_fused(1, &from, &to, &count, MPI_FLOAT, MPI_SUM, comm, nullptr, options);
}

int nonblocking_with(const Terse_Options* options) {
  Terse_Request request = TERSE_REQUEST_NULL;
  const int code = Terse_Iallreduce_with(in, out, kCount, MPI_FLOAT, MPI_SUM, comm, options, &request);
  return code == MPI_SUCCESS ? Terse_Wait(&request) : code;
}

// Every function of terse.h with a wrong argument on every rank. (Those that cannot have one are in
// first_use.)
void every_function() {
  Terse_Request none = TERSE_REQUEST_NULL;
  Terse_Request request = TERSE_REQUEST_NULL;
  Terse_Feedback no_feedback = TERSE_FEEDBACK_NULL;
  Terse_Outcome outcome;
  MPI_Info bad = MPI_INFO_NULL;
  MPI_Info_create(&bad);
  MPI_Info_set(bad, "terse_codex", "onebit");
  const Terse_Options no_size{};
  const Terse_Options bad_info = options_with(bad);
  int flag = 0;
  int length = 0;
  std::size_t size = 0;
  const MPI_Datatype type = MPI_FLOAT;
  const MPI_Op op = MPI_SUM;
  void* const null = nullptr;
  struct Row {
    const char* part;
    std::function<int()> call;
  };
  const Row rows[] = {
      {"Terse_Allreduce: ", [&] { return Terse_Allreduce(null, out, kCount, type, op, comm); }},
      {"Terse_Allreduce_c: ", [&] { return Terse_Allreduce_c(in, null, kCount, type, op, comm); }},
      {"Terse_Allreduce_with: ",
       [&] { return Terse_Allreduce_with(out, out, kCount, type, op, comm, nullptr); }},
      {"Terse_Allreduce_with: ",
       [&] { return Terse_Allreduce_with(in, out, kCount, type, op, comm, &no_size); }},
      {"Terse_Allreduce_with: ",
       [&] { return Terse_Allreduce_with(in, out, kCount, type, op, comm, &bad_info); }},
      {"Terse_Allreduce_fused: ",
       [&] {
         return Terse_Allreduce_fused(-1, nullptr, nullptr, nullptr, type, op, comm, nullptr, nullptr);
       }},
      {"Terse_Allreduce_fused: ",
       [&] {
         return Terse_Allreduce_fused(0, nullptr, nullptr, nullptr, type, op, MPI_COMM_NULL, nullptr,
                                      nullptr);
       }},
      {"Terse_Allreduce_fused: ", [&] { return fused(&no_size); }},
      {"Terse_Iallreduce: ", [&] { return Terse_Iallreduce(in, out, kCount, type, op, comm, nullptr); }},
      {"Terse_Iallreduce_c: ", [&] { return Terse_Iallreduce_c(in, out, kCount, type, op, comm, nullptr); }},
      {"Terse_Iallreduce_with: ",
       [&] { return Terse_Iallreduce_with(in, out, kCount, type, op, comm, nullptr, nullptr); }},
      {"Terse_Iallreduce_with: ",
       [&] { return Terse_Iallreduce_with(in, out, kCount, type, op, comm, &no_size, nullptr); }},
      {"Terse_Iallreduce_fused: ",
       [&] {
         return Terse_Iallreduce_fused(0, nullptr, nullptr, nullptr, type, op, comm, nullptr, nullptr,
                                       nullptr);
       }},
      {"Terse_Allreduce_init: ",
       [&] { return Terse_Allreduce_init(null, out, kCount, type, op, comm, MPI_INFO_NULL, &request); }},
      {"Terse_Allreduce_init_c: ",
       [&] { return Terse_Allreduce_init_c(in, out, kCount, type, op, comm, bad, &request); }},
      {"Terse_Start: ", [&] { return Terse_Start(&none); }},
      {"Terse_Wait: ", [&] { return Terse_Wait(nullptr); }},
      {"Terse_Test: ", [&] { return Terse_Test(nullptr, &flag); }},
      {"Terse_Test: ", [&] { return Terse_Test(&none, nullptr); }},
      {"Terse_Waitall: ", [&] { return Terse_Waitall(2, nullptr); }},
      {"Terse_Request_free: ", [&] { return Terse_Request_free(nullptr); }},
      {"Terse_Request_save: ", [&] { return Terse_Request_save(none, nullptr, &size); }},
      {"Terse_Request_load: ", [&] { return Terse_Request_load(none, nullptr, 0); }},
      {"Terse_Request_load_all: ", [&] { return Terse_Request_load_all(none, nullptr, nullptr, 1); }},
      {"Terse_Feedback_create: ", [&] { return Terse_Feedback_create(nullptr); }},
      {"Terse_Feedback_create_bf16: ", [&] { return Terse_Feedback_create_bf16(nullptr); }},
      {"Terse_Feedback_free: ", [&] { return Terse_Feedback_free(nullptr); }},
      {"Terse_Feedback_reset: ", [&] { return Terse_Feedback_reset(no_feedback); }},
      {"Terse_Feedback_save: ", [&] { return Terse_Feedback_save(no_feedback, nullptr, &size); }},
      {"Terse_Feedback_load: ", [&] { return Terse_Feedback_load(no_feedback, nullptr, 0); }},
      {"Terse_Feedback_load_all: ",
       [&] { return Terse_Feedback_load_all(no_feedback, nullptr, nullptr, 1); }},
      {"Terse_Comm_set_info: ", [&] { return Terse_Comm_set_info(comm, bad); }},
      {"Terse_Comm_set_stream: ", [&] { return Terse_Comm_set_stream(MPI_COMM_NULL, nullptr); }},
      {"Terse_Comm_get_info: ", [&] { return Terse_Comm_get_info(comm, nullptr); }},
      {"Terse_Get_outcome: ", [&] { return Terse_Get_outcome_sized(comm, nullptr, sizeof outcome); }},
      {"Terse_Get_outcome: ", [&] { return Terse_Get_outcome(MPI_COMM_NULL, &outcome); }},
      {"Terse_Error_string: ", [&] { return Terse_Error_string(MPI_ERR_COMM, nullptr, &length); }},
  };
  for (const Row& row : rows) {
    expect_error_of(row.call, row.part, __LINE__);
    CHECK(handler_kind != TERSE_ERR_NONE);
    check_next_call(__LINE__);
  }
  CHECK(request == TERSE_REQUEST_NULL && none == TERSE_REQUEST_NULL);
  MPI_Info_free(&bad);
}

// A save of more bytes than there can be: an error of Terse's, whatever the library throws inside.
void impossible_sizes() {
  Terse_Feedback feedback = TERSE_FEEDBACK_NULL;
  CHECK_INT(Terse_Feedback_create(&feedback), MPI_SUCCESS);
  const char byte = 0;
  const void* const saves[] = {&byte};
  const std::size_t sizes[] = {static_cast<std::size_t>(-1)};
  EXPECT_ERROR("Terse_Feedback_load_all: ", Terse_Feedback_load_all(feedback, saves, sizes, 1));
  CHECK_INT(Terse_Feedback_free(&feedback), MPI_SUCCESS);
}

// What is wrong on one rank, and calls that differ: every rank catches what its own handler throws.
void told_to_all() {
  EXPECT_ERROR("input is a null pointer",
               Terse_Allreduce(last ? nullptr : in, out, kCount, MPI_FLOAT, MPI_SUM, comm));
  check_next_call(__LINE__);
  EXPECT_ERROR("Terse_Op_average() is for",
               Terse_Allreduce(in, out, kCount, last ? MPI_INT : MPI_FLOAT, Terse_Op_average(), comm));
  check_next_call(__LINE__);
  // a type that MPI does not know: MPI is not asked about it, so that it calls no handler by itself
  MPI_Datatype freed = MPI_DATATYPE_NULL;
  MPI_Type_contiguous(3, MPI_INT, &freed);
  const MPI_Datatype unknown = freed;
  MPI_Type_free(&freed);
  EXPECT_ERROR("Terse_Op_average() is for",
               Terse_Allreduce(in, out, kCount, last ? unknown : MPI_FLOAT, Terse_Op_average(), comm));
  check_next_call(__LINE__);
  if (world_size == 1) return;
  EXPECT_ERROR("count is 1000",
               Terse_Allreduce(in, out, last ? kCount - 1 : kCount, MPI_FLOAT, MPI_SUM, comm));
  check_next_call(__LINE__);
}

Terse_Request begun(const void* from, void* to, MPI_Comm on) {
  Terse_Request request = TERSE_REQUEST_NULL;
  CHECK_INT(Terse_Iallreduce(from, to, kCount, MPI_FLOAT, MPI_SUM, on, &request), MPI_SUCCESS);
  return request;
}

// The request is ended, however the end is asked for.
void nonblocking() {
  Terse_Request request = begun(last ? nullptr : in, out, comm);
  EXPECT_ERROR("Terse_Wait: ", Terse_Wait(&request));
  CHECK(request == TERSE_REQUEST_NULL);
  CHECK_INT(Terse_Wait(&request), MPI_SUCCESS);
  request = begun(last ? nullptr : in, out, comm);
  EXPECT_ERROR("Terse_Test: ", [&] {
    for (int flag = 0; !flag;) {
      const int code = Terse_Test(&request, &flag);
      if (code != MPI_SUCCESS) return code;
    }
    return MPI_SUCCESS;
  }());
  CHECK(request == TERSE_REQUEST_NULL);
  request = begun(last ? nullptr : in, out, comm);
  EXPECT_ERROR("Terse_Request_free: ", Terse_Request_free(&request));
  CHECK(request == TERSE_REQUEST_NULL);
  check_next_call(__LINE__);
  // at the wrong time: the call goes on
  request = begun(in, out, comm);
  EXPECT_ERROR("nonblocking", Terse_Start(&request));
  CHECK(request != TERSE_REQUEST_NULL);
  CHECK_INT(Terse_Wait(&request), MPI_SUCCESS);
}

// Several with errors: all are ended, and the handler is that of the first of them.
void waitall() {
  MPI_Comm other = MPI_COMM_NULL;
  MPI_Comm_dup(comm, &other);
  static float sums[4][kCount];
  Terse_Request requests[5] = {begun(in, sums[0], comm), TERSE_REQUEST_NULL, begun(nullptr, sums[1], other),
                               begun(in, sums[2], comm), begun(last ? nullptr : in, sums[3], comm)};
  for (float& value : in) value = 3.0f;
  EXPECT_ERROR("Terse_Waitall: ", Terse_Waitall(5, requests));
  for (const Terse_Request request : requests) CHECK(request == TERSE_REQUEST_NULL);
  CHECK(sums[0][7] == 3.0f * static_cast<float>(world_size));
  CHECK(sums[2][7] == 3.0f * static_cast<float>(world_size));
  check_next_call(__LINE__);
  MPI_Comm_free(&other);
}

// A call of a persistent request that fails leaves it to be started again.
void persistent() {
  Terse_Request request = TERSE_REQUEST_NULL;
  CHECK_INT(Terse_Allreduce_init(in, out, kCount, MPI_FLOAT, MPI_SUM, comm, MPI_INFO_NULL, &request),
            MPI_SUCCESS);
  CHECK_INT(Terse_Start(&request), MPI_SUCCESS);
  EXPECT_ERROR("has a call under way", Terse_Start(&request));
  CHECK_INT(Terse_Wait(&request), MPI_SUCCESS);
  std::size_t size = 0;
  CHECK_INT(Terse_Request_save(request, nullptr, &size), MPI_SUCCESS);
  std::vector<char> save(size);
  CHECK_INT(Terse_Request_save(request, save.data(), &size), MPI_SUCCESS);
  if (world_size > 1) {
    CHECK_INT(Terse_Request_load(request, save.data(), last ? 0 : size), MPI_SUCCESS);
    CHECK_INT(Terse_Start(&request), MPI_SUCCESS);
    EXPECT_ERROR("feedback is", Terse_Wait(&request));
    CHECK(request != TERSE_REQUEST_NULL);
    CHECK_INT(Terse_Request_load(request, save.data(), size), MPI_SUCCESS);
  }
  CHECK_INT(Terse_Start(&request), MPI_SUCCESS);
  CHECK_INT(Terse_Wait(&request), MPI_SUCCESS);
  CHECK_INT(Terse_Request_free(&request), MPI_SUCCESS);
  check_next_call(__LINE__);
}

// A communicator whose owner frees it while what the handler threw unwinds.
void unwinding() {
  struct Owner {
    Owner() {
      MPI_Comm_dup(comm, &own);
      CHECK_INT(Terse_Allreduce(in, out, kCount, MPI_FLOAT, MPI_SUM, own), MPI_SUCCESS);
    }
    Owner(const Owner&) = delete;
    Owner& operator=(const Owner&) = delete;
    ~Owner() {
      CHECK_INT(Terse_Wait(&request), MPI_SUCCESS);
      MPI_Comm_free(&own);
      check_next_call(__LINE__);
    }
    MPI_Comm own = MPI_COMM_NULL;
    Terse_Request request = TERSE_REQUEST_NULL;
  };
  EXPECT_ERROR("null pointer", [&] {
    Owner owner;
    owner.request = begun(in, out, owner.own);
    return Terse_Allreduce(nullptr, out, kCount, MPI_FLOAT, MPI_SUM, owner.own);
  }());
}

// --- errors that MPI finds ---

// What MPI is given as it is.
void passed_on() {
  int one = 1;
  int sum = 0;
  Terse_Request request = TERSE_REQUEST_NULL;
  EXPECT_ERROR("", Terse_Allreduce(&one, &sum, 1, MPI_INT, MPI_OP_NULL, comm));
  EXPECT_ERROR("", Terse_Allreduce(&one, &sum, 1, MPI_DATATYPE_NULL, MPI_SUM, comm));
  EXPECT_ERROR("", Terse_Allreduce(&one, &sum, 1, MPI_INT, MPI_SUM, MPI_COMM_NULL));
  EXPECT_ERROR("", Terse_Iallreduce(&one, &sum, 1, MPI_INT, MPI_OP_NULL, comm, &request));
  EXPECT_ERROR("", Terse_Iallreduce(&one, &sum, 1, MPI_INT, MPI_SUM, MPI_COMM_NULL, &request));
  CHECK(request == TERSE_REQUEST_NULL);
#ifdef OPEN_MPI  // MPICH does not look for it
  EXPECT_ERROR("", Terse_Allreduce(&one, &sum, -1, MPI_INT, MPI_SUM, comm));
  EXPECT_ERROR("", Terse_Iallreduce(&one, &sum, -1, MPI_INT, MPI_SUM, comm, &request));
  CHECK(request == TERSE_REQUEST_NULL);
#endif
  CHECK_INT(Terse_Allreduce_init(&one, &sum, 1, MPI_INT, MPI_OP_NULL, comm, MPI_INFO_NULL, &request),
            MPI_SUCCESS);
  for (int again = 0; again < 2; ++again) {
    EXPECT_ERROR("", Terse_Start(&request));
    CHECK_INT(Terse_Wait(&request), MPI_SUCCESS);
  }
  CHECK_INT(Terse_Request_free(&request), MPI_SUCCESS);
  check_next_call(__LINE__);
}

// A call in which MPI calls may fail.
struct Scenario {
  std::function<int()> call;
  std::function<void()> before = [] {};
  std::function<void()> after = [] {};
  bool is_wrong = false;  // the call has an error of Terse's where no MPI call fails
};

// Runs it as often as it makes calls of that name, with another one that fails each time.
void fail_each(const std::string& name, const Scenario& scenario) {
  for (int n = 1, failed = 1; failed; ++n) {
    if (n == 2 && name == "MPI_Test") return;  // how often that is called is not the same on all ranks
    scenario.before();
    to_fail = name;
    fails_at = n;
    has_failed = false;
    const int before = handler_calls;
    Throws thrown = Throws::nothing;
    int code = MPI_SUCCESS;
    try {
      code = scenario.call();
    } catch (const terse::Error&) {
      thrown = Throws::terse_error;
    } catch (const std::runtime_error&) {
      thrown = Throws::runtime_error;
    } catch (int value) {
      thrown = Throws::integer;
      code = value;
    }
    to_fail.clear();
    scenario.after();
    failed = has_failed;
    const bool error = failed || scenario.is_wrong;
    const bool holds = handler_calls - before == (error ? 1 : 0) &&
                       thrown == (error ? throws : Throws::nothing) &&
                       (!failed || code == MPI_ERR_INTERN || thrown == Throws::runtime_error ||
                        thrown == Throws::terse_error);
    if (!CHECK(holds)) {
      std::fprintf(stderr,
                   "  call %d of %s %s: the handler was called %d times and throws %d, caught %d, code %d\n",
                   n, name.c_str(), failed ? "failed" : "was not made", handler_calls - before,
                   static_cast<int>(throws), static_cast<int>(thrown), code);
    }
  }
}

void calls_of_mpi_that_fail() {
  int one = 1;
  int sum = 0;
  Terse_Request request = TERSE_REQUEST_NULL;
  MPI_Info info = MPI_INFO_NULL;
  MPI_Info own = MPI_INFO_NULL;
  MPI_Info_create(&own);
  MPI_Info_set(own, "terse_codec", "onebit:block=64");
  MPI_Info_set(own, "other", "value");
  const Terse_Options options = options_with(own);
  const auto nothing = [] {};
  const auto make_fresh = [] { MPI_Comm_dup(MPI_COMM_WORLD, &fresh); };
  const auto free_fresh = [] { MPI_Comm_free(&fresh); };
  const auto begin = [&] {
    CHECK_INT(Terse_Iallreduce(&one, &sum, 1, MPI_INT, MPI_SUM, comm, &request), MPI_SUCCESS);
  };
  const auto expect_ended = [&] {
    CHECK(request == TERSE_REQUEST_NULL);
    CHECK_INT(sum, world_size);
    sum = 0;
    check_next_call(__LINE__);
  };
  const auto free_request = [&] {
    CHECK_INT(Terse_Request_free(&request), MPI_SUCCESS);
    check_next_call(__LINE__);
  };
  const auto go_on = [] { check_next_call(__LINE__); };
  const Scenario scenarios[] = {
      {[&] { return Terse_Allreduce(&one, &sum, 1, MPI_INT, MPI_SUM, comm); }, nothing, go_on},
      {[&] { return Terse_Allreduce(in, out, kCount, MPI_FLOAT, MPI_SUM, comm); }, nothing, go_on},
      {[&] { return Terse_Allreduce(in, out, kCount, MPI_FLOAT, MPI_SUM, fresh); }, make_fresh, free_fresh},
      {[&] { return Terse_Iallreduce(&one, &sum, 1, MPI_INT, MPI_SUM, comm, &request); }, nothing,
       free_request},
      {[&] { return Terse_Wait(&request); }, begin, expect_ended},
      {[&] { return Terse_Waitall(1, &request); }, begin, expect_ended},
      {[&] { return Terse_Request_free(&request); }, begin, expect_ended},
      {[&] {
         for (int flag = 0; !flag;) {
           const int code = Terse_Test(&request, &flag);
           if (code != MPI_SUCCESS) return code;
         }
         return MPI_SUCCESS;
       },
       begin, expect_ended},
      {[&] { return Terse_Comm_set_info(comm, own); }, nothing, go_on},
      {[&] { return Terse_Allreduce_init(in, out, kCount, MPI_FLOAT, MPI_SUM, comm, own, &request); },
       nothing, free_request},
      {[&] { return Terse_Allreduce_with(in, out, kCount, MPI_FLOAT, MPI_SUM, comm, &options); }, nothing,
       go_on},
      {[&] { return fused(&options); }, nothing, go_on},
      {[&] { return nonblocking_with(&options); }, nothing, go_on},
      {[&] { return Terse_Comm_get_info(comm, &info); }, nothing,
       [&] {
         if (info != MPI_INFO_NULL) MPI_Info_free(&info);
       }},
      // whether errors are fatal is asked for
      {[&] { return Terse_Allreduce(in, out, -1, MPI_FLOAT, MPI_SUM, comm); }, nothing, go_on, true},
      {[&] { return Terse_Get_outcome_sized(comm, nullptr, 0); }, nothing, go_on, true},
  };
  for (const Scenario& scenario : scenarios) {
    for (const char* name :
         {"MPI_Comm_get_attr", "MPI_Comm_set_attr", "MPI_Comm_get_errhandler", "MPI_Allreduce",
          "MPI_Iallreduce", "MPI_Test", "MPI_Wait", "MPI_Info_get_nkeys", "MPI_Info_get_nthkey",
          "MPI_Info_get_valuelen", "MPI_Info_get", "MPI_Info_create", "MPI_Info_set"}) {
      fail_each(name, scenario);
    }
    // Within the C++ interface: an Error there is taken for Terse's own.
    if (throws == Throws::nothing || throws == Throws::terse_error) continue;
    fail_each("MPI_Comm_test_inter", scenario);
    fail_each("MPI_Comm_create", scenario);
  }
  MPI_Info_free(&own);
}

// MPI cannot read the info of one rank, which has MPI's error; the others are told.
void info_of_one_rank() {
  MPI_Info own = MPI_INFO_NULL;
  MPI_Info_create(&own);
  const auto fail_there = [] {
    if (!last) return;
    to_fail = "MPI_Info_get_nkeys";
    fails_at = 1;
  };
  const char* part = last ? "" : "MPI cannot read the info";
  fail_there();
  EXPECT_ERROR(part, Terse_Comm_set_info(comm, own));
  check_next_call(__LINE__);
  Terse_Request request = TERSE_REQUEST_NULL;
  fail_there();
  EXPECT_ERROR(part, Terse_Allreduce_init(in, out, kCount, MPI_FLOAT, MPI_SUM, comm, own, &request));
  CHECK(request == TERSE_REQUEST_NULL);
  check_next_call(__LINE__);
  const Terse_Options options = options_with(own);
  fail_there();
  EXPECT_ERROR(part, Terse_Allreduce_with(in, out, kCount, MPI_FLOAT, MPI_SUM, comm, &options));
  check_next_call(__LINE__);
  fail_there();
  EXPECT_ERROR(part, fused(&options));
  check_next_call(__LINE__);
  fail_there();
  EXPECT_ERROR(part, nonblocking_with(&options));
  check_next_call(__LINE__);
  MPI_Info_free(&own);
}

// What Terse makes at its first use. Each of its calls fails once, then all is made.
void first_use() {
  const std::function<int()> uses[] = {
      [] { return Terse_Type_float16() == MPI_DATATYPE_NULL ? MPI_ERR_INTERN : MPI_SUCCESS; },
      [] { return Terse_Type_bfloat16() == MPI_DATATYPE_NULL ? MPI_ERR_INTERN : MPI_SUCCESS; },
      [] { return Terse_Op_average() == MPI_OP_NULL ? MPI_ERR_INTERN : MPI_SUCCESS; },
      [] { return Terse_Error_class() == MPI_ERR_OTHER ? MPI_ERR_INTERN : MPI_SUCCESS; },
      [] { return Terse_Feedback_create(nullptr); },
      [] { return Terse_Allreduce(in, out, kCount, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD); },
  };
  struct Calls {
    const char* name;
    int number;
  };
  const Calls calls[] = {
      {"MPI_Type_contiguous", 2},  {"MPI_Type_set_name", 2},      {"MPI_Type_commit", 2},
      {"MPI_Op_create", 1},        {"MPI_Add_error_class", 1},    {"MPI_Add_error_code", 9},
      {"MPI_Add_error_string", 9}, {"MPI_Comm_create_keyval", 2}, {"MPI_Comm_set_attr", 1},
      {"MPI_Comm_free_keyval", 1},
  };
  std::size_t use = 0;
  for (const Calls& of : calls) {
    for (int n = 1; n <= of.number; ++n) {
      to_fail = of.name;
      fails_at = n;
      has_failed = false;
      expect_error_of(uses[use++ % std::size(uses)], "", __LINE__);
      check_that(has_failed, of.name, __FILE__, __LINE__);
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  const bool multiple = argc > 1 && std::strcmp(argv[1], "multiple") == 0;
  int provided = 0;
  MPI_Init_thread(&argc, &argv, multiple ? MPI_THREAD_MULTIPLE : MPI_THREAD_FUNNELED, &provided);
#ifndef OPEN_MPI
  mpi_may_throw = provided != MPI_THREAD_MULTIPLE;  // MPICH keeps a lock
#endif
  MPI_Comm_rank(MPI_COMM_WORLD, &world_rank);
  MPI_Comm_size(MPI_COMM_WORLD, &world_size);
  last = world_rank == world_size - 1;
  MPI_Errhandler throwing = MPI_ERRHANDLER_NULL;
  MPI_Comm_create_errhandler(handler, &throwing);
  MPI_Comm_set_errhandler(MPI_COMM_WORLD, throwing);
  MPI_Comm_set_errhandler(MPI_COMM_SELF, throwing);
  MPI_Comm_dup(MPI_COMM_WORLD, &comm);
  throws = Throws::runtime_error;
  first_use();
  CHECK_INT(set_onebit(comm), MPI_SUCCESS);
  each_kind([] {
    every_function();
    impossible_sizes();
    told_to_all();
    nonblocking();
    waitall();
    persistent();
    unwinding();
    if (mpi_may_throw || throws == Throws::nothing) passed_on();
    calls_of_mpi_that_fail();
    info_of_one_rank();
  });
  for (const char* name :
       {"MPI_Comm_get_attr",  "MPI_Comm_set_attr",    "MPI_Comm_test_inter",    "MPI_Comm_get_errhandler",
        "MPI_Comm_create",    "MPI_Allreduce",        "MPI_Iallreduce",         "MPI_Test",
        "MPI_Wait",           "MPI_Info_get_nkeys",   "MPI_Info_get_nthkey",    "MPI_Info_get_valuelen",
        "MPI_Info_get",       "MPI_Info_create",      "MPI_Info_set",           "MPI_Type_contiguous",
        "MPI_Type_set_name",  "MPI_Type_commit",      "MPI_Op_create",          "MPI_Add_error_class",
        "MPI_Add_error_code", "MPI_Add_error_string", "MPI_Comm_create_keyval", "MPI_Comm_free_keyval"}) {
    check_that(failed_names.count(name) == 1, name, __FILE__, __LINE__);  // it is called, and through here
  }
  MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
  MPI_Comm_set_errhandler(MPI_COMM_SELF, MPI_ERRORS_RETURN);
  MPI_Errhandler_free(&throwing);
  MPI_Comm_free(&comm);
  return check_end();
}
