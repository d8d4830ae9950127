// SPDX-License-Identifier: Apache-2.0
#ifndef TERSE_TERSE_H
#define TERSE_TERSE_H

// Terse's C interface, for C99 and later and for whatever calls C. Shaped like MPI: calls return MPI_SUCCESS
// or an error code, and call the error handler of their communicator before they return an error.
//
//   MPI_Info_set(info, "terse_codec", "onebit");
//   Terse_Comm_set_info(MPI_COMM_WORLD, info);
//   Terse_Feedback_create(&residual);  // one per tensor
//   Terse_Options options = {.size = sizeof options, .feedback = residual};
//   Terse_Allreduce_with(MPI_IN_PLACE, gradient, n, MPI_FLOAT, Terse_Op_average(), MPI_COMM_WORLD, &options);
//
// Nonblocking: Terse_Iallreduce, then Terse_Wait. On the same buffers again and again: Terse_Allreduce_init,
// then Terse_Start and Terse_Wait for each call.

#include <mpi.h>
#include <stddef.h>
#include <stdint.h>
#include <terse/export.h>

#ifdef __cplusplus
extern "C" {
#endif

// --- types and operations that MPI 3.1 has no name for ---
//
// Made at the first request, freed by MPI_Finalize; not to be freed by the caller. MPI_DATATYPE_NULL and
// MPI_OP_NULL before MPI_Init and after MPI_Finalize.

/// Two bytes that are an IEEE binary16. To MPI itself two bytes and no number, so that MPI_SUM on them is an
/// error there.
TERSE_API MPI_Datatype Terse_Type_float16(void);
/// Two bytes that are the upper half of an IEEE binary32.
TERSE_API MPI_Datatype Terse_Type_bfloat16(void);
/// The sum over all ranks, divided by their number. For Terse's calls only: an average cannot be formed pair
/// by pair, so MPI's own calls end the program with a sentence that says so.
TERSE_API MPI_Op Terse_Op_average(void);

// --- the call ---
//
// One thread at a time for each communicator and each Terse_Feedback; different ones at once under
// MPI_THREAD_MULTIPLE.

/// What a lossy codec left out of one tensor so far, to go in with the next call: one per tensor and rank.
typedef struct Terse_Feedback_s* Terse_Feedback;
#define TERSE_FEEDBACK_NULL ((Terse_Feedback)0)

/// Options of one call. Members that are zero say nothing: {.size = sizeof(Terse_Options)} is none at all.
/// Members are only ever added at the end; `size` says how many the program knows.
typedef struct Terse_Options {
  size_t size;  ///< sizeof(Terse_Options), so that a program and a library of different versions understand
                ///< each other
  /// This tensor's residuals: what is left out of this call goes in with the next one that has them. They
  /// belong to one count, type, codec, algorithm, rank and number of ranks: another use is an error
  /// (TERSE_ERR_INVALID_STATE) until Terse_Feedback_reset. Of no effect where nothing is left out.
  Terse_Feedback feedback;
  /// Options of this call as Terse_Comm_set_info has them for the communicator: terse_codec, terse_algorithm,
  /// terse_min_bytes, terse_segment_bytes, terse_check. Keys of options that are a communicator's alone are
  /// ignored. Read when the call begins; zero or MPI_INFO_NULL: the communicator's options.
  MPI_Info info;
  void* stream;        ///< as Terse_Comm_set_stream has it, for this call; null: the communicator's
  const char* tensor;  ///< the tensor's name, on which all ranks must agree; null: none
} Terse_Options;

/// MPI_Allreduce, with MPI_Allreduce's arguments.
///
/// MPI_FLOAT, MPI_DOUBLE, Terse_Type_float16() and Terse_Type_bfloat16() with MPI_SUM or Terse_Op_average()
/// are reduced as the communicator's options say (Terse_Comm_set_info, then TERSE_ variables in the
/// environment, then defaults, which lose nothing). The first such call on a communicator makes one of the
/// same ranks for Terse's messages, by MPI_Comm_create, which runs no callback of anybody's attributes. All
/// else goes to MPI_Allreduce as it is: other types and operations, derived types, intercommunicators. A
/// 16-bit type with another operation and the average of another type are errors (TERSE_ERR_UNSUPPORTED).
///
/// One buffer as `sendbuf` and `recvbuf`, of one element or more, is an error (TERSE_ERR_INVALID_ARGUMENT)
/// whatever the size and the options, as MPI has it: pass MPI_IN_PLACE as `sendbuf`. So are two that overlap
/// in part. Of a call that goes to MPI as it is, buffers are MPI's affair.
///
/// On one rank terse_algorithm=auto is exact, whatever terse_min_bytes is: nothing is sent, so nothing need
/// be left out (TERSE_REASON_SLOWER). An algorithm that is named does there, too, what it says:
/// terse_algorithm=two_phase encodes and decodes.
///
/// Without a Terse_Feedback, what a lossy codec leaves out is lost: right for a single reduction, wrong for
/// training, which wants Terse_Allreduce_with.
///
/// Errors: on all ranks alike, those of terse::Communicator (terse/communicator.hpp), which name the rank
/// that caused them: arguments that differ between ranks, a negative count, a null buffer, ... A negative
/// count on one rank: with MPI_ERRORS_ARE_FATAL, the default, the program ends with a sentence at once.
///
/// Not where this rank's tensor is below min_bytes (2 KiB where that is auto): such a call is MPI's alone,
/// its errors are its own, and ranks whose calls differ may hang as they may in MPI. terse_check=all or
/// payload makes these calls agree, too. Without check=payload, corrupt data found by one rank late in the
/// call is that rank's error alone, and the next agreed call is refused everywhere. If some ranks' types and
/// operations are Terse's and others' are MPI's, these ranks are in different calls, and may hang.
TERSE_API int Terse_Allreduce(const void* sendbuf, void* recvbuf, int count, MPI_Datatype datatype, MPI_Op op,
                              MPI_Comm comm);
/// With a count that int may not hold, for what goes to MPI_Allreduce too.
TERSE_API int Terse_Allreduce_c(const void* sendbuf, void* recvbuf, MPI_Count count, MPI_Datatype datatype,
                                MPI_Op op, MPI_Comm comm);

/// With options of this call, such as the tensor's residuals. `options` null: none, so Terse_Allreduce_c.
/// Errors also, on all ranks alike: TERSE_ERR_INVALID_ARGUMENT for a `size` that no version has had, for
/// members that this library does not know, and for what `info` holds, which names the key.
TERSE_API int Terse_Allreduce_with(const void* sendbuf, void* recvbuf, MPI_Count count, MPI_Datatype datatype,
                                   MPI_Op op, MPI_Comm comm, const Terse_Options* options);

/// Several tensors of one type as one message: the results are bit-identical to those of a call for each,
/// where they are compressed. Lists of `tensors` entries: an entry of `sendbufs` may be MPI_IN_PLACE,
/// `feedbacks` a null pointer for none, an entry of it TERSE_FEEDBACK_NULL. All ranks pass as many, of the
/// same counts in the same order. Errors name the tensor, from 0 on. What is MPI's goes on as a call for
/// each. `options` as for Terse_Allreduce_with, without a feedback (TERSE_ERR_INVALID_ARGUMENT): each tensor
/// has its own.
TERSE_API int Terse_Allreduce_fused(int tensors, const void* const sendbufs[], void* const recvbufs[],
                                    const MPI_Count counts[], MPI_Datatype datatype, MPI_Op op, MPI_Comm comm,
                                    const Terse_Feedback feedbacks[], const Terse_Options* options);

// --- nonblocking calls ---
//
// All ranks begin the calls of a communicator, blocking ones among them, in the same order; they may end them
// in any. A call that is nonblocking on one rank is so on all. Until its end, buffers and Terse_Feedback
// belong to a call; lists do not.
//
// Progress is made by Terse's calls on the same communicator, by Terse_Waitall for all its requests, or with
// terse_progress=thread beside the program. So, without such a thread, a rank that waits for something else
// may keep others waiting. MPI_Comm_free waits for calls under way, whose requests keep what became of them;
// MPI_Finalize does not: end them before. Requests are for the thread that uses their communicator. MPI's own
// calls do not take them.

/// A call under way, or a persistent one.
typedef struct Terse_Request_s* Terse_Request;
#define TERSE_REQUEST_NULL ((Terse_Request)0)

/// MPI_Iallreduce, with MPI_Iallreduce's arguments: Terse_Allreduce, begun. What is passed on goes to
/// MPI_Iallreduce, in a request of Terse's all the same. The first call on a communicator, which makes one
/// of the same ranks, is collective, and so is one for which terse_algorithm=auto makes a trial.
///
/// Errors: here, those of MPI_Iallreduce, what cannot be told to other ranks, those of a trial of
/// terse_algorithm=auto, on all ranks alike, and TERSE_ERR_INVALID_ARGUMENT for a null `request`, where the
/// call is made to its end first. Others, those of Terse_Allreduce, come with the end: of Terse_Wait,
/// Terse_Waitall, Terse_Test or Terse_Request_free, which call the communicator's handler, or that of
/// MPI_COMM_WORLD where the communicator was freed. On an error here `*request` stays as it was.
TERSE_API int Terse_Iallreduce(const void* sendbuf, void* recvbuf, int count, MPI_Datatype datatype,
                               MPI_Op op, MPI_Comm comm, Terse_Request* request);
TERSE_API int Terse_Iallreduce_c(const void* sendbuf, void* recvbuf, MPI_Count count, MPI_Datatype datatype,
                                 MPI_Op op, MPI_Comm comm, Terse_Request* request);
/// `options` is read when the call begins, and is the caller's again when this returns; the residuals are
/// not. Where MPI cannot read `info`, its error is returned here, once the call is made to its end.
TERSE_API int Terse_Iallreduce_with(const void* sendbuf, void* recvbuf, MPI_Count count,
                                    MPI_Datatype datatype, MPI_Op op, MPI_Comm comm,
                                    const Terse_Options* options, Terse_Request* request);
TERSE_API int Terse_Iallreduce_fused(int tensors, const void* const sendbufs[], void* const recvbufs[],
                                     const MPI_Count counts[], MPI_Datatype datatype, MPI_Op op,
                                     MPI_Comm comm, const Terse_Feedback feedbacks[],
                                     const Terse_Options* options, Terse_Request* request);

/// As MPI_Wait: returns when the call is over, well or not, and says which. A nonblocking request becomes
/// TERSE_REQUEST_NULL, a persistent one inactive. Returns at once for either.
TERSE_API int Terse_Wait(Terse_Request* request);
/// As MPI_Test: `*flag` becomes 1 where the call is over, which then ends as in Terse_Wait, or 0. 1 also for
/// TERSE_REQUEST_NULL and what is inactive. Does what can be done without waiting.
TERSE_API int Terse_Test(Terse_Request* request, int* flag);
/// Terse_Wait for each, with progress for all of them, also of several communicators. Waits for all whatever
/// goes wrong, and returns the error of the first in the list that has one.
TERSE_API int Terse_Waitall(int count, Terse_Request requests[]);
/// Frees a persistent request and sets it to TERSE_REQUEST_NULL, which may be freed too. Local. A call that
/// is under way is waited for, as MPI has no way to give one up: a nonblocking request is freed by that, too.
/// Its error is returned; the request is freed all the same.
TERSE_API int Terse_Request_free(Terse_Request* request);

// --- persistent calls ---

/// MPI_Allreduce_init, with MPI 4's arguments: makes an inactive request for calls on these buffers, which
/// Terse_Start begins and Terse_Wait or Terse_Test ends, again and again. Collective.
///
/// Options of these calls are keys of `info` (as for Terse_Comm_set_info; MPI_INFO_NULL: none); the rest are
/// the communicator's. terse_threads, terse_progress and terse_cuda_aware are the communicator's alone. The
/// request has residuals of its own (terse_residual=bf16: in half the memory, as Terse_Feedback_create_bf16
/// has it), which start as none and stay so where the codec loses nothing. A type and an operation that are
/// not predefined must live as long as the request.
///
/// What is passed on becomes a call of MPI_Iallreduce in each Terse_Start. Errors: on all ranks alike, those
/// of Terse_Allreduce, and those of `info`, which name the key.
TERSE_API int Terse_Allreduce_init(const void* sendbuf, void* recvbuf, int count, MPI_Datatype datatype,
                                   MPI_Op op, MPI_Comm comm, MPI_Info info, Terse_Request* request);
TERSE_API int Terse_Allreduce_init_c(const void* sendbuf, void* recvbuf, MPI_Count count,
                                     MPI_Datatype datatype, MPI_Op op, MPI_Comm comm, MPI_Info info,
                                     Terse_Request* request);
/// Begins a call; all ranks, in the same order as others of the communicator. The first one after
/// Terse_Comm_set_info, which has the new options, is collective. Errors: TERSE_ERR_INVALID_STATE where a
/// call is under way or the communicator was freed, TERSE_ERR_INVALID_ARGUMENT for what is not persistent;
/// those of Terse_Allreduce come with the end.
TERSE_API int Terse_Start(Terse_Request* request);
/// The residuals of a persistent request, as Terse_Feedback_save, Terse_Feedback_load and
/// Terse_Feedback_load_all. Local. A save is one of the other's, too: a training may go on with either. With
/// a save of size 0 all is forgotten. Errors also: TERSE_ERR_INVALID_STATE while a call is under way,
/// TERSE_ERR_INVALID_ARGUMENT for what is not persistent.
TERSE_API int Terse_Request_save(Terse_Request request, void* buffer, size_t* size);
TERSE_API int Terse_Request_load(Terse_Request request, const void* save, size_t size);
TERSE_API int Terse_Request_load_all(Terse_Request request, const void* const saves[], const size_t sizes[],
                                     int ranks);

// --- residuals ---
//
// Local; no MPI is needed for them. Errors call the handler of MPI_COMM_WORLD, as MPI's do in calls without a
// communicator.

/// Makes an empty one, which the first call that uses it sizes. Free it with Terse_Feedback_free.
TERSE_API int Terse_Feedback_create(Terse_Feedback* feedback);
/// The same with residuals kept in bf16: half the memory of float, and less of its traffic, at an error in
/// each call of up to 2^-8 of the residual. All ranks' must be of one kind. Not for MPI_DOUBLE
/// (TERSE_ERR_UNSUPPORTED).
TERSE_API int Terse_Feedback_create_bf16(Terse_Feedback* feedback);
/// Frees it and sets it to TERSE_FEEDBACK_NULL, which may be freed too.
TERSE_API int Terse_Feedback_free(Terse_Feedback* feedback);
/// Forgets everything but the kind of residuals.
TERSE_API int Terse_Feedback_reset(Terse_Feedback feedback);
/// Writes all that is needed to go on later with bit-identical results to `buffer`. `*size` is the buffer's
/// bytes and becomes those of the save: 0 if never used. A null `buffer` only asks for the size. Where the
/// buffer is too small (TERSE_ERR_INVALID_ARGUMENT) nothing is written but the size.
TERSE_API int Terse_Feedback_save(Terse_Feedback feedback, void* buffer, size_t* size);
/// Takes the place of what is held: a save of the same rank of the same number of ranks. On an error
/// (TERSE_ERR_CORRUPT_DATA, TERSE_ERR_UNSUPPORTED for another format's) what was held is unchanged. A save
/// that is not empty brings its kind of residuals along.
TERSE_API int Terse_Feedback_load(Terse_Feedback feedback, const void* save, size_t size);
/// Re-sharding: the saves of all `ranks` ranks of an earlier run, in rank order, for use on any number of
/// ranks. Nothing owed is lost, but to the rounding of residuals in bf16. Errors also:
/// TERSE_ERR_INVALID_ARGUMENT where they are not of one run.
TERSE_API int Terse_Feedback_load_all(Terse_Feedback feedback, const void* const saves[],
                                      const size_t sizes[], int ranks);

// --- options ---

/// Sets options of a communicator. Collective, with the same values on all ranks. The keys are "terse_" and
/// the name of an option: terse_codec, terse_algorithm, terse_min_bytes, terse_segment_bytes, terse_check,
/// terse_threads, terse_progress, terse_residual, terse_cuda_aware (what each takes: `terse info`). They
/// override the environment; an option without a key stays as it is. Keys that begin otherwise are not
/// Terse's and are ignored.
///
/// The next call has the new options, calls under way are waited for; what was learnt about the communicator
/// (algorithm=auto) is forgotten. A duplicate (MPI_Comm_dup) inherits the options that its original has then.
/// After an error, which all ranks get alike, the options are as before; where MPI cannot read `info` on one
/// rank, that rank gets MPI's own error and the others TERSE_ERR_INVALID_ARGUMENT. After
/// TERSE_ERR_COMMUNICATION this makes the communicator usable again, if MPI is.
TERSE_API int Terse_Comm_set_info(MPI_Comm comm, MPI_Info info);
/// A cudaStream_t after whose work, at that time, calls on this communicator begin where their buffers are in
/// the memory of a CUDA device; null, at first: the legacy default stream. Local, for calls that begin, and
/// persistent ones that are made, from now on, for which it must live as long as they do. When a call is over
/// its result is there for any stream.
TERSE_API int Terse_Comm_set_stream(MPI_Comm comm, void* stream);
/// A new info with every option in force and its value, from whatever source. Local. Free it with
/// MPI_Info_free.
TERSE_API int Terse_Comm_get_info(MPI_Comm comm, MPI_Info* info_used);

// --- what a call did ---

typedef enum Terse_Result {
  TERSE_RESULT_NONE,  ///< there was no call yet, or the last one failed
  TERSE_RESULT_COMPRESSED,
  TERSE_RESULT_EXACT
} Terse_Result;

/// Why exact, or partly so.
typedef enum Terse_Reason {
  TERSE_REASON_NONE,
  TERSE_REASON_ASKED,       ///< a lossless codec, or algorithm=exact
  TERSE_REASON_SMALL,       ///< below min_bytes
  TERSE_REASON_SLOWER,      ///< compression would take longer
  TERSE_REASON_NON_FINITE,  ///< compressed, but for exact_count elements around values that are not finite
  TERSE_REASON_PASSED_ON    ///< a type, operation or communicator that is MPI's
} Terse_Reason;

/// Members are only ever added at the end.
typedef struct Terse_Outcome {
  Terse_Result result;
  Terse_Reason reason;
  /// "two_phase", "exact", ...; empty where no algorithm of Terse's ran. Lives as long as the program.
  const char* algorithm;
  /// Bytes that this rank sent. For an exact call the least that any algorithm can do; 0 for one passed on.
  uint64_t bytes_sent;
  uint64_t exact_count;  ///< elements that went uncompressed
} Terse_Outcome;

/// As Terse_Get_outcome, for callers that know no `sizeof`: writes the first `size` bytes of the outcome,
/// with zeros for members that this library does not know.
TERSE_API int Terse_Get_outcome_sized(MPI_Comm comm, Terse_Outcome* outcome, size_t size);
/// What the last call on this communicator did, on this rank: of those that are nonblocking or persistent,
/// the one that ended last. Local. A program and a library of different versions understand each other: the
/// size of the program's struct goes along.
static inline int Terse_Get_outcome(MPI_Comm comm, Terse_Outcome* outcome) {
  return Terse_Get_outcome_sized(comm, outcome, sizeof *outcome);
}

// --- errors ---
//
// Terse's error codes belong to one MPI error class; MPI_Error_string has a short text for each. Calls
// outside MPI_Init ... MPI_Finalize return MPI_ERR_OTHER and call no handler. Where a communicator has
// MPI_ERRORS_ARE_FATAL, MPI's default, the sentence is printed to stderr before MPI ends the program.
//
// A handler of a C++ program may throw: what it throws comes out of the call that returns the code otherwise,
// of any function here, unchanged. The sentence is remembered before the handler is called, which is once for
// an error, and the call is over: requests are what they are after an error that is returned, and the other
// ranks have been told. Where MPI finds the error, in a call of its own that Terse makes on the program's
// handles, MPI calls the handler, and what that throws passes through MPI: so the state that MPI itself is in
// afterwards is MPI's affair. (MPICH keeps a lock then if it was initialised with MPI_THREAD_MULTIPLE.) Of
// several requests of Terse_Waitall with errors, the first in the list calls the handler, when all are over.

/// What kinds there are: those of terse::ErrorCode (terse/error.hpp).
typedef enum Terse_Errcode {
  TERSE_ERR_NONE,              ///< not an error of Terse's
  TERSE_ERR_INVALID_ARGUMENT,  ///< a value that no call could accept
  TERSE_ERR_UNSUPPORTED,       ///< a sound request that this build, codec or algorithm cannot serve
  TERSE_ERR_MISMATCH,          ///< ranks called with different arguments
  TERSE_ERR_CORRUPT_DATA,      ///< bytes that no encoder wrote
  TERSE_ERR_NON_FINITE,        ///< values that are not finite where only finite ones will do
  TERSE_ERR_OUT_OF_MEMORY,
  TERSE_ERR_COMMUNICATION,  ///< MPI reported an error: this communicator's calls are refused from then on
  TERSE_ERR_INVALID_STATE,  ///< a call at the wrong time
  TERSE_ERR_DEVICE          ///< CUDA reported an error
} Terse_Errcode;

/// The MPI error class of Terse's errors, what MPI_Error_class gives for their codes; MPI_ERR_OTHER outside
/// MPI_Init ... MPI_Finalize.
TERSE_API int Terse_Error_class(void);
/// Which of Terse's errors an error code means.
TERSE_API Terse_Errcode Terse_Error_code(int errorcode);

/// A buffer for any sentence.
#define TERSE_MAX_ERROR_STRING 4096
/// The sentence of this thread's last error if that had this code: what is wrong, where, what to do. For
/// other codes, MPI_Error_string's text. `string` has room for TERSE_MAX_ERROR_STRING characters;
/// `*resultlen` is the text's length without the zero at its end.
TERSE_API int Terse_Error_string(int errorcode, char* string, int* resultlen);

#ifdef __cplusplus
}
#endif

#endif
