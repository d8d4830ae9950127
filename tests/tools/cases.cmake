# SPDX-License-Identifier: Apache-2.0
# A row for each thing that the tools do or refuse: NAME RANKS EXIT_CODE RUN TOOL ARGUMENTS... SAYS REGEX...

macro(terse_tool_cases)
  # --- terse ---
  terse_tool_test(terse.version 0 0 RUN terse --version SAYS "^terse ${PROJECT_VERSION}")
  terse_tool_test(terse.help 0 0 RUN terse --help SAYS "terse codecs +\\[--json\\]" "terse info")
  terse_tool_test(terse.help_of_subcommand 0 0 RUN terse codecs --help SAYS "^terse codecs: " "--json")
  terse_tool_test(terse.codecs 0 0 RUN terse codecs
    SAYS "identity " "lossless" "onebit " "block=2048" "1\\.[0-9]+ bits an f32 element" "contractive")
  terse_tool_test(terse.codecs_json 0 0 RUN terse codecs --json JSON - CHECK check_codecs)
  terse_tool_test(terse.info 0 0 RUN terse info ENVIRONMENT TERSE_MIN_BYTES=4096
    SAYS "^terse ${PROJECT_VERSION}" "(Open MPI|MPICH|MPI)" "TERSE_CODEC is not set"
         "TERSE_MIN_BYTES = 4096 is in force" "Algorithms" "two_phase" "Codecs" "onebit")
  terse_tool_test(terse.info_refuses 0 1 RUN terse info ENVIRONMENT TERSE_MIN_BYTES=many TERSE_CODEC=twobit
    SAYS "TERSE_CODEC = twobit is in force and is refused" "TERSE_MIN_BYTES = many is in force and is refused"
         "terse: TERSE_CODEC: .*twobit" "terse: TERSE_MIN_BYTES: .*many")
  terse_tool_test(terse.nothing 0 2 RUN terse SAYS "a subcommand is missing: codecs, info")
  terse_tool_test(terse.no_such_subcommand 0 2 RUN terse codex SAYS "there is no subcommand 'codex': use codecs, info")
  terse_tool_test(terse.no_such_option 0 2 RUN terse --codecs SAYS "there is no option '--codecs'")
  terse_tool_test(terse.no_such_option_of_info 0 2 RUN terse info --json SAYS "there is no option '--json'; terse info has")
  terse_tool_test(terse.stray_word 0 2 RUN terse codecs onebit SAYS "'onebit' belongs to no option")

  # --- terse-bench ---
  terse_tool_test(bench.version 0 0 RUN terse-bench --version SAYS "^terse-bench ${PROJECT_VERSION}")
  terse_tool_test(bench.help 0 0 RUN terse-bench --help SAYS "terse-bench allreduce" "terse-bench overlap"
    "terse-bench persistent" "terse-bench fused" "terse-bench codec")
  terse_tool_test(bench.help_on_ranks 2 0 RUN terse-bench --help SAYS "terse-bench allreduce")
  terse_tool_test(bench.help_of_suite 0 0 RUN terse-bench codec --help SAYS "--codec" "--iterations")
  terse_tool_test(bench.help_of_overlap 0 0 RUN terse-bench overlap --help
    SAYS "--slices" "--progress" "100 - 100 \\(total - compute\\) / pure" "100 \\(1 - waited / waited alone\\)")
  terse_tool_test(bench.help_of_persistent 0 0 RUN terse-bench persistent --help SAYS "--baseline" "MPI_Allreduce_init")
  terse_tool_test(bench.help_of_fused 0 0 RUN terse-bench fused --help SAYS "the least and the most" "--tensors" "--seed")
  terse_tool_test(bench.nothing 0 2 RUN terse-bench SAYS "a suite is missing: allreduce, overlap, persistent, fused, codec")
  terse_tool_test(bench.no_such_suite 2 2 RUN terse-bench reduce SAYS "there is no suite 'reduce'")
  terse_tool_test(bench.no_such_option 0 2 RUN terse-bench --codec SAYS "there is no option '--codec'")
  terse_tool_test(bench.missing_value 0 2 RUN terse-bench codec --bytes SAYS "--bytes" "see terse-bench codec --help")

  # What is wrong with the arguments that suites share.
  set(run RUN terse-bench codec)
  terse_tool_test(bench.allreduce.no_size 2 2 RUN terse-bench allreduce --codec onebit SAYS "the tensor's size is missing")
  terse_tool_test(bench.codec.no_size 0 2 ${run} --codec onebit SAYS "the tensor's size is missing")
  terse_tool_test(bench.codec.two_sizes 0 2 ${run} --codec onebit --bytes 4K --sizes 4K:8K SAYS "give one")
  terse_tool_test(bench.codec.no_codec 0 2 ${run} --bytes 4K SAYS "--codec is missing: use one or several of identity")
  terse_tool_test(bench.codec.no_such_codec 0 2 ${run} --codec twobit --bytes 4K SAYS "unknown codec 'twobit'")
  terse_tool_test(bench.codec.no_such_dtype 0 2 ${run} --codec onebit --bytes 4K --dtype f8 SAYS "f8.*f32, f64, f16")
  terse_tool_test(bench.codec.part_of_an_element 0 2 ${run} --codec onebit --bytes 4097
    SAYS "4097 bytes are no whole number of f32 elements")
  terse_tool_test(bench.codec.no_size_at_all 0 2 ${run} --codec onebit --bytes 0 SAYS "--bytes: '0' is no size")
  terse_tool_test(bench.codec.no_number 0 2 ${run} --codec onebit --bytes 4X SAYS "--bytes: '4X' is no size")
  terse_tool_test(bench.codec.too_large 0 2 ${run} --codec onebit --bytes 99999999999T SAYS "more than memory can have")
  terse_tool_test(bench.codec.empty_range 0 2 ${run} --codec onebit --sizes 8K:4K SAYS "'8K:4K' is an empty range")
  terse_tool_test(bench.codec.cannot_encode 0 2 ${run} --codec cast:f16 --bytes 4K --dtype bf16
    SAYS "codec cast:f16 does not encode bf16")
  terse_tool_test(bench.codec.no_iterations 0 2 ${run} --codec onebit --bytes 4K --iterations 0
    SAYS "--iterations: '0' is not a whole number from")
  terse_tool_test(bench.codec.unwritable 0 2 ${run} --codec onebit --bytes 4K --json /nowhere/at/all.json
    SAYS "--json" "/nowhere/at/all.json")
  terse_tool_test(bench.allreduce.no_such_op 0 2 RUN terse-bench allreduce --codec onebit --bytes 4K --op max
    SAYS "--op: 'max' is neither sum nor average")
  terse_tool_test(bench.allreduce.no_time 0 2 RUN terse-bench allreduce --codec onebit --bytes 4K --seconds 0
    SAYS "--seconds: '0' is no time")
  terse_tool_test(bench.allreduce.no_number_of_seconds 0 2 RUN terse-bench allreduce --codec onebit --bytes 4K --seconds two
    SAYS "--seconds: 'two' is no time")
  terse_tool_test(bench.allreduce.two_lengths 0 2
    RUN terse-bench allreduce --codec onebit --bytes 4K --seconds 1 --iterations 5 SAYS "give one")
  terse_tool_test(bench.allreduce.no_such_algorithm 2 2
    RUN terse-bench allreduce --codec onebit --bytes 4K --algorithm three_phase SAYS "unknown algorithm 'three_phase'")
  terse_tool_test(bench.allreduce.no_such_distribution 0 2
    RUN terse-bench allreduce --codec onebit --bytes 4K --distribution uniform
    SAYS "--distribution: 'uniform' is neither normal nor student_t")
  set(run RUN terse-bench allreduce --codec onebit --bytes 4K --baseline)
  terse_tool_test(bench.allreduce.no_such_baseline 2 2 ${run} rings
    SAYS "--baseline: 'rings' is no plain algorithm: use best.*default.*ring \\(4\\)")
  terse_tool_test(bench.allreduce.no_such_number 0 2 ${run} default,9 SAYS "--baseline: '9' is no plain algorithm")
  terse_tool_test(bench.allreduce.no_baseline 0 2 ${run} ring, SAYS "--baseline: '' is no plain algorithm")
  terse_tool_test(bench.allreduce.best_of_best 0 2 ${run} best,ring SAYS "'best' is no plain algorithm: use best by itself")
  terse_tool_test(bench.allreduce.no_algorithm_alone 0 2 ${run} ring SAYS "--baseline: one rank has no algorithms")
  terse_tool_test(bench.allreduce.no_such_picture 0 2 RUN terse-bench allreduce --codec onebit --bytes 4K --plot times.gif
    SAYS "'times.gif' ends neither in .png nor in .svg")
  terse_tool_test(bench.codec.on_ranks 2 2 RUN terse-bench codec --codec onebit --bytes 4K
    SAYS "terse-bench codec measures one rank: run it without mpirun")

  set(run RUN terse-bench overlap --codec onebit)
  terse_tool_test(bench.overlap.no_size 0 2 ${run} SAYS "the tensor's size is missing")
  terse_tool_test(bench.overlap.no_such_computation 2 2 ${run} --bytes 4K --compute hard
    SAYS "--compute: 'hard' is neither busy nor sleep")
  terse_tool_test(bench.overlap.no_slices 0 2 ${run} --bytes 4K --slices 0 SAYS "--slices: '0' is not a whole number from 1")
  terse_tool_test(bench.overlap.no_such_progress 0 2 ${run} --bytes 4K --progress magic SAYS "progress.*magic.*calls or thread")
  terse_tool_test(bench.overlap.no_baseline 0 2 ${run} --bytes 4K --baseline best SAYS "there is no option '--baseline'")
  terse_tool_test(bench.persistent.always_feedback 0 2 RUN terse-bench persistent --codec onebit --bytes 4K --no-feedback
    SAYS "--no-feedback: a plan always keeps residuals")
  set(run RUN terse-bench fused --codec onebit)
  terse_tool_test(bench.fused.no_size 0 2 ${run} SAYS "the tensors' sizes are missing")
  terse_tool_test(bench.fused.empty_range 2 2 ${run} --sizes 8K:4K SAYS "--sizes: '8K:4K' is an empty range")
  terse_tool_test(bench.fused.no_number 0 2 ${run} --sizes 4K:many SAYS "--sizes: 'many' is no size")
  terse_tool_test(bench.fused.no_element 0 2 ${run} --sizes 2:8 SAYS "a tensor of 2 bytes has no f32 element")
  terse_tool_test(bench.fused.no_tensors 0 2 ${run} --sizes 4K:8K --tensors 0
    SAYS "--tensors: '0' is not a whole number from 1")

  # Measurements, as small as they can be.
  terse_tool_test(bench.allreduce 2 0 JSON allreduce.json CHECK check_allreduce
    RUN terse-bench allreduce --codec onebit identity --sizes 64K,256K --iterations 3 --min-bytes 0 --algorithm two_phase
        --json allreduce.json
    SAYS "f32, average, algorithm two_phase, 2 ranks on 1 host" "onebit +64 KiB" " same" "onebit +256 KiB" "identity +64 KiB")
  # Only Open MPI lets communicators have algorithms of their own, and only where its component tuned is there.
  set(best RUN terse-bench allreduce --codec onebit --bytes 64K --iterations 3 --baseline best --json)
  if(terse_mpi STREQUAL "Open MPI")
    foreach(ranks 2 4)
      terse_tool_test(bench.allreduce.best.np${ranks} ${ranks} 0 ${best} best${ranks}.json JSON best${ranks}.json CHECK check_best
        SAYS "${ranks} ranks on 1 host, baseline best" "MPI +MPI by +speedup" "(default|\\([345]\\)) +[0-9.]+x" " same")
    endforeach()
    terse_tool_test(bench.allreduce.ring 2 0 SAYS "baseline ring \\(4\\)" "onebit +64 KiB"
      RUN terse-bench allreduce --codec onebit --bytes 64K --iterations 3 --baseline 4)
    set(unavailable ENVIRONMENT "OMPI_MCA_coll=^tuned")
  endif()
  terse_tool_test(bench.allreduce.only_default 2 0 ${best} default.json JSON default.json CHECK check_only_default ${unavailable}
    SAYS "baseline best" "onebit +64 KiB" "best is MPI's default alone: this MPI has no variable coll_tuned")
  terse_tool_test(bench.allreduce.no_ring 2 2 ${unavailable}
    RUN terse-bench allreduce --codec onebit --bytes 64K --baseline ring SAYS "--baseline: this MPI has no variable coll_tuned")
  terse_tool_test(bench.allreduce.residual 2 0 JSON residual.json CHECK check_residual
    RUN terse-bench allreduce --codec onebit identity --bytes 64K --iterations 3 --min-bytes 0 --residual bf16
        --mean-calls 7 --json residual.json
    SAYS "f32, average, algorithm auto, residuals in bf16, 2 ranks" "7 calls" "onebit +64 KiB" " same")
  terse_tool_test(bench.allreduce.heavy_tails 2 0 JSON heavy_tails.json CHECK check_heavy_tails
    RUN terse-bench allreduce --codec onebit hadamard+onebit --bytes 1M --iterations 3 --min-bytes 0 --algorithm two_phase
        --distribution student_t --json heavy_tails.json
    SAYS "2 ranks on 1 host, inputs student_t" "hadamard\\+onebit +1 MiB" " same")
  terse_tool_test(bench.allreduce.no_such_residual 2 2 RUN terse-bench allreduce --codec onebit --bytes 64K --residual f16
    SAYS "residual=f16 makes no sense: use full or bf16")
  terse_tool_test(bench.codec.no_residual_of_f64 0 2 SAYS "--residual: bf16 is not for f64 tensors"
    RUN terse-bench codec --codec onebit --bytes 64K --residual bf16 --dtype f64)
  terse_tool_test(bench.codec.residual 0 0 JSON codec_residual.json CHECK check_residual SAYS "f32, residuals in bf16, one core"
    RUN terse-bench codec --codec onebit identity --bytes 64K --iterations 11 --residual bf16 --json codec_residual.json)
  terse_tool_test(bench.allreduce.notes 2 0
    RUN terse-bench allreduce --codec onebit --sizes 512:1K --dtype f16 --op sum --no-feedback --seconds 0.01
    SAYS "f16, sum, algorithm auto, no feedback" "small" "small: the tensor is below min_bytes")
  terse_tool_test(bench.allreduce.alone 0 0 RUN terse-bench allreduce --bytes 4KiB --iterations 1 ENVIRONMENT TERSE_CODEC=onebit
    SAYS "onebit:block=2048[^ ]* +4 KiB" "One rank has nothing to send")
  set(run RUN terse-bench overlap --codec onebit --sizes 16K,64K --iterations 2 --algorithm two_phase --min-bytes 0)
  terse_tool_test(bench.overlap 2 0 JSON overlap.json CHECK check_overlap ${run} --slices 5 --json overlap.json
    SAYS "2 ranks on 1 host, compute busy, 5 slices" "hidden wire" "onebit +16 KiB" " same" "onebit +64 KiB" " same")
  terse_tool_test(bench.overlap.thread 2 0 JSON thread.json CHECK check_overlap_of_thread
    ${run} --slices 5 --progress thread --compute sleep --json thread.json
    SAYS "progress thread, 2 ranks on 1 host, compute sleep" "onebit +16 KiB" " same")
  terse_tool_test(bench.overlap.exact 2 0 SAYS "small" "small: the tensor is below min_bytes"
    RUN terse-bench overlap --codec onebit --bytes 1K --iterations 1 --dtype bf16 --op sum)
  terse_tool_test(bench.persistent 2 0 JSON persistent.json CHECK check_persistent
    RUN terse-bench persistent --codec onebit cast:f16 --sizes 16K,64K --iterations 2 --algorithm two_phase --min-bytes 0
        --baseline best --json persistent.json
    SAYS "MPI plan" "onebit +16 KiB" " same" "cast:f16 +64 KiB" " same")
  terse_tool_test(bench.fused 2 0 JSON fused.json CHECK check_fused
    RUN terse-bench fused --codec onebit cast:bf16 --sizes 1K:16K --tensors 9 --iterations 2 --algorithm two_phase
        --min-bytes 0 --json fused.json
    SAYS "2 ranks on 1 host, 9 tensors, [0-9.]+ KiB" "MPI flat" "onebit" " same" "cast:bf16" " same")
  terse_tool_test(bench.fused.alone 0 0 RUN terse-bench fused --codec onebit --bytes 4K --tensors 1 --iterations 1
    SAYS "1 rank on 1 host, 1 tensor, 4 KiB" " same" "One rank has nothing to send")
  terse_tool_test(bench.codec 0 0 JSON codec.json CHECK check_codec
    RUN terse-bench codec --codec cast:bf16 --bytes 64K --iterations 11 --json codec.json
    SAYS "cast:bf16 +64 KiB" "part of the traffic")

  # A file of 64 f32 elements, 0x3f414141 and 0x40414141 (0.755 and 3.02) in turn.
  set(elements "${CMAKE_CURRENT_BINARY_DIR}/elements.f32")
  string(REPEAT "AAA?AAA@" 32 bytes)
  file(WRITE "${elements}" "${bytes}")
  set(run RUN terse-bench codec --codec onebit identity --iterations 11 --input)
  terse_tool_test(bench.codec.input 0 0 JSON codec_input.json CHECK check_codec_input
    ${run} "${elements}" --json codec_input.json SAYS "f32, values of .*elements.f32, one core" "error" "onebit +256 B")
  terse_tool_test(bench.codec.input_repeated 0 0 JSON codec_input_1k.json CHECK check_codec_input_repeated
    ${run} "${elements}" --bytes 1000 --json codec_input_1k.json)
  terse_tool_test(bench.codec.no_input 0 2 ${run} /nowhere/at/all SAYS "--input: '/nowhere/at/all' cannot be read: No such file")
  file(WRITE "${elements}.odd" "${bytes}A")
  terse_tool_test(bench.codec.input_of_part_of_an_element 0 2 ${run} "${elements}.odd"
    SAYS "--input: '.*elements.f32.odd' has 257 bytes, no whole number of f32 elements, which have 4 each")
  string(REPEAT "~~~~" 20 bytes)
  file(WRITE "${elements}.nan" "AAA?${bytes}")
  terse_tool_test(bench.codec.input_not_finite 0 2 ${run} "${elements}.nan" --dtype f16
    SAYS "--input: '.*elements.f32.nan' has a value that is not finite, element 2: is it of f16")
  terse_tool_test(bench.device.no_input 0 2 RUN emulated-bench codec --codec onebit --device cuda --input "${elements}"
    SAYS "--input: with --device cuda values are made, not read")

  # On a device: refused where there is none, and measured with the emulation of CUDA.
  set(cuda --codec onebit --bytes 64K --device cuda)
  set(none "terse-bench: --device cuda: (this build of Terse has no CUDA|there is no CUDA device)")
  set(anywhere ENVIRONMENT CUDA_VISIBLE_DEVICES=)
  terse_tool_test(bench.device.codec.none 0 2 ${anywhere} RUN terse-bench codec ${cuda} SAYS "${none}")
  terse_tool_test(bench.device.allreduce.none 2 2 ${anywhere} RUN terse-bench allreduce ${cuda} SAYS "${none}")
  terse_tool_test(bench.device.not_measured 0 2 RUN terse-bench fused ${cuda}
    SAYS "--device cuda: terse-bench fused measures tensors on the host; allreduce and codec measure them on a device")
  terse_tool_test(bench.device.no_such_kind 0 2 RUN terse-bench codec --codec onebit --bytes 64K --device gpu
    SAYS "--device: 'gpu' is neither host nor cuda")
  terse_tool_test(bench.device.no_code 0 2 RUN emulated-bench codec --codec onebit:deepspeed --bytes 64K --device cuda
    SAYS "--device cuda: codec onebit:deepspeed has no code for device memory")
  terse_tool_test(bench.device.no_pieces 0 2 RUN emulated-bench codec ${cuda} --piece-bytes 1M
    SAYS "--piece-bytes: with --device cuda a tensor is one message")
  terse_tool_test(bench.device.codec 0 0 JSON device_codec.json CHECK check_device_codec
    RUN emulated-bench codec --codec onebit cast:f16 --bytes 32K --iterations 11 --device cuda --json device_codec.json
    SAYS "f32, on Emulated device" "encode/copy" "onebit +32 KiB" "cast:f16 +32 KiB")
  terse_tool_test(bench.device.codec.bf16 0 0 SAYS "bf16, residuals in bf16, on Emulated device" "onebit +32 KiB"
    RUN emulated-bench codec --codec onebit --bytes 32K --iterations 11 --device cuda --dtype bf16 --residual bf16)
  set(run RUN emulated-bench allreduce --codec onebit identity --bytes 32K --iterations 2 --min-bytes 0 --mean-calls 4
      --device cuda --algorithm two_phase --json)
  terse_tool_test(bench.device.allreduce 2 0 ${run} device.json JSON device.json CHECK check_device
    SAYS "2 ranks on 1 host, on Emulated device.*, cuda_aware off" "onebit +32 KiB" " same" "identity +32 KiB"
         "MPI is MPI_Allreduce of f32, with a copy to pinned memory")
  terse_tool_test(bench.device.allreduce.aware 3 0 ${run} aware.json JSON aware.json CHECK check_aware_device
    ENVIRONMENT EMULATED_CUDA_AWARE=1
    SAYS "3 ranks on 1 host, on Emulated device.*, cuda_aware on" "MPI direct +staged" "onebit +32 KiB" " same")
  terse_tool_test(bench.device.allreduce.not_aware 2 0 ${run} not_aware.json --cuda-aware off JSON not_aware.json
    CHECK check_device ENVIRONMENT EMULATED_CUDA_AWARE=1 SAYS "cuda_aware off" "onebit +32 KiB" " same")
  terse_tool_test(bench.device.allreduce.f16 2 0 SAYS "MPI_Allreduce of f32 and the same count, since MPI has no f16, with"
    RUN emulated-bench allreduce --codec onebit --bytes 32K --iterations 1 --mean-calls 2 --dtype f16 --device cuda)

  # gnuplot may be absent, and may fail; so stand-ins of that name are in a PATH of their own.
  set(stand_ins "${CMAKE_CURRENT_BINARY_DIR}/stand_ins")
  file(WRITE "${stand_ins}/good/gnuplot" "#!/bin/sh\n/bin/cat >plot.gnuplot\n/bin/cat plot.gnuplot\n")
  file(WRITE "${stand_ins}/bad/gnuplot" "#!/bin/sh\necho no picture today >&2\nexit 3\n")
  file(MAKE_DIRECTORY "${stand_ins}/none")
  file(CHMOD "${stand_ins}/good/gnuplot" "${stand_ins}/bad/gnuplot" PERMISSIONS OWNER_READ OWNER_WRITE OWNER_EXECUTE)
  set(run RUN terse-bench allreduce --codec onebit --sizes 4K:8K --iterations 1 --plot times.svg)
  terse_tool_test(bench.plot 0 0 ${run} ENVIRONMENT "PATH=${stand_ins}/good:$ENV{PATH}"
    SAYS "set terminal svg" "set output .*times\\.svg" "4096 " "8192 " "plot " "onebit")
  terse_tool_test(bench.plot_fails 0 1 ${run} ENVIRONMENT "PATH=${stand_ins}/bad:$ENV{PATH}"
    SAYS "no picture today" "--plot: gnuplot failed")
  terse_tool_test(bench.no_gnuplot 0 1 ${run} SAYS "--plot needs gnuplot"
    ENVIRONMENT "PATH=${stand_ins}/none" OMPI_MCA_plm=isolated)  # else Open MPI looks for ssh
endmacro()
