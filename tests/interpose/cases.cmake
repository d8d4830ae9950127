# SPDX-License-Identifier: Apache-2.0
# A row for each thing that programs meet: NAME RANKS EXIT_CODE RUN PROGRAM SCENE SETTINGS ... SAYS REGEX... NUMBERS ...

macro(terse_drop_in_cases)
  set(program $<TARGET_FILE:drop_in_program>)
  set(onebit --codec onebit --min-bytes 2K)
  set(fine SAYS "all checks hold")

  # Nothing is compressed unless someone asks for it, and then it is.
  terse_drop_in_test(nothing_asked 3 0 RUN ${program} exact SAYS "all checks hold")
  terse_drop_in_test(lossy 3 0 RUN ${program} lossy SETTINGS ${onebit} ${fine}
    NUMBERS "40 rules 0 calls" "40 rules 0 compressed" "1 rules 0 fresh_residuals" "0 rules 0 sampled"
            "25:32 rules 0 ratio" "0.1:1e6 rules 0 residual_norm" "0 rules 0 started_over")
  terse_drop_in_test(auto 2 0 RUN ${program} one SETTINGS --codec onebit --min-bytes auto ${fine}
    NUMBERS "20 rules 0 calls")
  terse_drop_in_test(threshold 2 0 RUN ${program} one SETTINGS --codec onebit ${fine} NUMBERS "20 passed_on")
  terse_drop_in_test(lossless 2 0 RUN ${program} constants
    SETTINGS --codec identity --algorithm two_phase --min-bytes 1 ${fine} NUMBERS "63 rules 0 calls" "0 rules 0 compressed")
  foreach(ranks 1 2 3 4 8)
    set(numbers "39 rules 0 calls" "39 rules 0 compressed" "24 passed_on")
    if(ranks EQUAL 1)
      set(numbers "0 rules 0 calls" "63 passed_on")
    endif()
    terse_drop_in_test(constants.np${ranks} ${ranks} 0 RUN ${program} constants SETTINGS ${onebit} ${fine}
      NUMBERS ${numbers})
  endforeach()
  terse_drop_in_test(others 4 0 RUN ${program} others SETTINGS ${onebit} ${fine}
    NUMBERS "0 rules 0 calls" "10:100 passed_on")
  terse_drop_in_test(communicators 4 0 RUN ${program} communicators SETTINGS ${onebit} ${fine}
    NUMBERS "300 rules 0 compressed" "200 rules 0 fresh_residuals")
  terse_drop_in_test(threads 2 0 RUN ${program} threads SETTINGS ${onebit} ${fine} NUMBERS "80 rules 0 compressed")
  terse_drop_in_test(not_a_number 3 0 RUN ${program} not_a_number SETTINGS ${onebit} ${fine}
    NUMBERS "3 rules 0 compressed" "1 rules 0 non_finite" "1:10000 rules 0 non_finite_elements")
  if(NOT terse_mpi STREQUAL "MPICH")  # it may be built without looking at arguments, and then crashes by itself
    terse_drop_in_test(errors 2 0 RUN ${program} errors SETTINGS ${onebit} ${fine} NUMBERS "1 rules 0 compressed")
  endif()
  # Different calls are no reason to start over: who has residuals keeps them. Also where ranks' calls are different rules'.
  set(different "Terse: rank [0-2]: MPI_Allreduce: ranks make different calls: count is 4000 on rank 0, 8000 on ranks 1, 2")
  terse_drop_in_test(mismatch 3 0 RUN ${program} mismatch SETTINGS ${onebit} SAYS "all checks hold" "${different}"
    NUMBERS "6 rules 0 compressed" "2 rules 0 fresh_residuals" "0 rules 0 started_over")
  terse_drop_in_test(mismatch.rules 3 0 RUN ${program} mismatch SETTINGS --config "${CMAKE_CURRENT_SOURCE_DIR}/sizes.ini"
    SAYS "all checks hold" "${different}" NUMBERS "4 rules 0 compressed" "2 rules 1 compressed" "0 rules 1 started_over")

  if(NOT terse_mpi STREQUAL "MPICH")  # which may be built without MPI_Comm_spawn
    terse_drop_in_test(spawned 2 0 RUN ${program} spawned SETTINGS ${onebit} ${fine}
      NUMBERS "0 rules 0 calls" "1 passed_on")
  endif()
  terse_drop_in_test(report_of_some 2 0 DIRECTLY RUN sh "${CMAKE_CURRENT_SOURCE_DIR}/only_rank_0_reports.sh"
      $<TARGET_FILE:terse_cli> run ${onebit} -- ${program} one
    SAYS "all checks hold" "20 calls: 20 compressed")

  terse_drop_in_test(device 3 0 RUN ${program} device $<TARGET_FILE:drop_in_fake_cuda> SETTINGS ${onebit} ${fine}
    NUMBERS "3 rules 0 compressed" "3 rules 0 other_exact")

  # The program's communicators are only looked at: what the drop-in has to say to other ranks, at any time, goes over
  # communicators of its own. Without a report there is nothing to say at the end.
  terse_drop_in_test(left 4 0 RUN ${program} left SETTINGS ${onebit} ${fine} NUMBERS "40 rules 0 compressed")
  terse_drop_in_test(left.no_report 4 0 RUN ${program} left SETTINGS ${onebit} --report off ${fine})
  terse_drop_in_test(left.nothing_asked 4 0 RUN ${program} left ${fine})
  set(spy ENVIRONMENT LD_PRELOAD=$<TARGET_FILE:drop_in_spy>)
  set(two_names --config "${CMAKE_CURRENT_SOURCE_DIR}/names.ini")
  foreach(report stderr off)
    set(gathers 2)
    if(report STREQUAL off)
      set(gathers 0)
    endif()
    set(seen SAYS "all checks hold" "spy: calls on Terse's own communicators, 0 calls on the program's, ${gathers} gathers")
    foreach(scene lossy names crossed communicators aliases)
      if(scene STREQUAL names)
        set(asked ${two_names})
      else()
        set(asked ${onebit})
      endif()
      terse_drop_in_test(spied.${scene}.report_${report} 3 0 RUN ${program} ${scene} SETTINGS ${asked} --report ${report}
        ${seen} ${spy})
    endforeach()
  endforeach()
  foreach(function PMPI_Comm_get_attr PMPI_Comm_create)
    terse_drop_in_test(refused.${function} 3 0 RUN ${program} refused SETTINGS ${onebit} ${fine} ${spy} SPY_REFUSES=${function}
      NUMBERS "3 rules 0 compressed")
  endforeach()
  terse_drop_in_test(refused.name 3 0 RUN ${program} refused SETTINGS ${onebit} --comm-name refused ${fine} ${spy}
    SPY_REFUSES=PMPI_Comm_create NUMBERS "3 rules 0 compressed")
  terse_drop_in_test(attributes 3 0 RUN ${program} attributes SETTINGS ${onebit} ${fine} NUMBERS "3 rules 0 compressed")
  terse_drop_in_test(at_exit 3 0 RUN ${program} at_exit SETTINGS ${onebit}
    SAYS "all checks hold" "finished at exit" "20 calls: 20 compressed")
  terse_drop_in_test(at_exit.no_report 3 0 RUN ${program} at_exit SETTINGS ${onebit} --report off
    SAYS "all checks hold" "finished at exit")
  terse_drop_in_test(no_call 2 0 RUN ${program} nothing SETTINGS ${onebit}
    SAYS "0 calls of MPI_Allreduce taken, 0 calls passed on"
         "WARNING: no call of MPI_Allreduce by the program was seen")

  # Error handlers that throw, with a rule that takes the calls, one that takes them with a warm-up or as a sample, one
  # for another communicator's name, and with none.
  set(throwing $<TARGET_FILE:drop_in_throwing> buffers)
  set(throwing_threads $<TARGET_FILE:drop_in_throwing> mismatch threads)
  if(NOT terse_mpi STREQUAL "MPICH")  # see above
    list(APPEND throwing counts)
    list(APPEND throwing_threads counts)
  endif()
  terse_drop_in_test(throwing 3 0 RUN ${throwing} mismatch SETTINGS ${onebit} --sample 0 ${fine}
    NUMBERS "1 rules 0 fresh_residuals" "0 rules 0 started_over")
  terse_drop_in_test(throwing.warm_up 2 0 RUN ${throwing} SETTINGS ${onebit} --after 1000 --sample 0 ${fine}
    NUMBERS "0 rules 0 compressed" "24:1000 rules 0 warm_up" "8:1000 passed_on")
  terse_drop_in_test(throwing.samples 2 0 RUN ${throwing} SETTINGS ${onebit} --sample 4 ${fine})
  terse_drop_in_test(throwing.names 2 0 RUN ${throwing} SETTINGS ${onebit} --comm-name train ${fine})
  terse_drop_in_test(throwing.nothing_asked 3 0 RUN ${throwing} ${fine})
  terse_drop_in_test(throwing.threads 2 0 RUN ${throwing_threads} SETTINGS ${onebit} ${fine})

  # One buffer as both, and none: as without the drop-in. Two side by side are compressed, and what is right.
  terse_drop_in_test(aliases 3 0 RUN ${program} aliases SETTINGS ${onebit} --sample 0 ${fine}
    NUMBERS "10 rules 0 compressed" "0 rules 0 other_exact")
  terse_drop_in_test(aliases.auto 2 0 RUN ${program} aliases SETTINGS --codec onebit --min-bytes auto ${fine})
  terse_drop_in_test(aliases.exact 2 0 RUN ${program} aliases SETTINGS --codec identity --min-bytes 2K ${fine})
  terse_drop_in_test(aliases.nothing_asked 3 0 RUN ${program} aliases ${fine})
  if(terse_mpi STREQUAL "MPICH")  # each crashes by itself where it meets what the other one finds
    terse_drop_in_test(no_buffers 2 0 RUN ${program} no_buffers SETTINGS ${onebit} --sample 0 ${fine}
      NUMBERS "3 rules 0 compressed")
  else()
    terse_drop_in_test(overlaps 2 0 RUN ${program} overlaps SETTINGS ${onebit} --sample 0 ${fine}
      NUMBERS "3 rules 0 compressed" "4 rules 0 other_exact")
  endif()

  # The program's floating-point mode, flags and traps.
  terse_drop_in_test(floating_point 2 0 RUN ${program} floating_point
    SETTINGS --codec identity --segment-bytes 4M ${fine} NUMBERS "6 rules 0 other_exact")
  terse_drop_in_test(floating_point.modelled_segments 2 0 RUN ${program} floating_point SETTINGS --codec identity ${fine}
    NUMBERS "6 rules 0 other_exact")
  terse_drop_in_test(floating_point.samples 2 0 RUN ${program} floating_point SETTINGS ${onebit} --after 6 ${fine}
    NUMBERS "6 rules 0 warm_up")
  terse_drop_in_test(floating_point.compressed 2 0 RUN ${program} floating_point SETTINGS ${onebit} --sample 0 ${fine}
    NUMBERS "6 rules 0 compressed")
  terse_drop_in_test(floating_point.nothing_asked 2 0 RUN ${program} floating_point ${fine})

  # Programs that take MPI's functions from its library by name: those calls do not come by. Rank 0 says so, once.
  if(mpi_library_file)
    set(loads $<TARGET_FILE:drop_in_loads_mpi> ${mpi_library_file})
    foreach(how local global)
      terse_drop_in_test(loads_mpi.${how} 2 0 RUN ${loads} ${how} SETTINGS ${onebit} --report off
        SAYS "all checks hold" "Terse: nothing was compressed.*called MPI without passing through the drop-in" ONCE "Terse: ")
    endforeach()
    terse_drop_in_test(loads_mpi.default 2 0 RUN ${loads} default SETTINGS ${onebit} ${fine} NEVER "Terse: "
      NUMBERS "3 rules 0 compressed")
    terse_drop_in_test(loads_mpi.nothing_asked 2 0 RUN ${loads} local SAYS "all checks hold" NEVER "Terse: ")
    terse_drop_in_test(loads_mpi.alone 0 0 RUN ${loads} local SETTINGS ${onebit}
      SAYS "Terse: nothing was compressed.*called MPI without passing through the drop-in")
  endif()
  terse_drop_in_test(no_mpi 2 0 RUN sh -c "echo done" SETTINGS ${onebit} SAYS "done" NEVER "Terse")

  # Which tensor is which.
  terse_drop_in_test(moving.address 3 0 RUN ${program} moving SETTINGS ${onebit}
    SAYS "all checks hold" "WARNING: rule TERSE_CODEC: in 9 calls ranks had residuals of different tensors")
  terse_drop_in_test(moving.crossed 3 0 RUN ${program} crossed SETTINGS ${onebit} ${fine}
    NUMBERS "2 rules 0 started_over" "4 rules 0 fresh_residuals" "10 rules 0 compressed")
  terse_drop_in_test(moving.site 3 0 RUN ${program} moving SETTINGS ${onebit} --key site ${fine}
    NUMBERS "1 rules 0 fresh_residuals" "0 rules 0 started_over")
  terse_drop_in_test(moving.sequence 3 0 RUN ${program} moving SETTINGS ${onebit} --key sequence:5 ${fine}
    NUMBERS "5 rules 0 fresh_residuals" "0 rules 0 started_over")
  terse_drop_in_test(temporaries 2 0 RUN ${program} temporaries SETTINGS ${onebit}
    SAYS "all checks hold" "WARNING: rule TERSE_CODEC: most of its compressed calls found no residual")
  terse_drop_in_test(temporaries.without_feedback 2 0 RUN ${program} temporaries SETTINGS ${onebit} --feedback off
    ${fine} NUMBERS "20 rules 0 compressed" "0 rules 0 fresh_residuals" "0 rules 0 residual_norm")
  terse_drop_in_test(memory.enough 2 0 RUN ${program} several SETTINGS ${onebit} ${fine}
    NUMBERS "25 rules 0 compressed" "5 rules 0 fresh_residuals")
  terse_drop_in_test(memory.short 2 0 RUN ${program} several SETTINGS ${onebit} --feedback-mb 1 ${fine}
    NUMBERS "25 rules 0 compressed" "25 rules 0 fresh_residuals")
  # Half the memory, so that what did not fit does: all but the large one, which never does
  terse_drop_in_test(memory.halved 2 0 RUN ${program} several SETTINGS ${onebit} --feedback-mb 2 --residual bf16 ${fine}
    NUMBERS "25 rules 0 compressed" "9 rules 0 fresh_residuals")
  terse_drop_in_test(residual 3 0 RUN ${program} lossy SETTINGS ${onebit} --residual bf16 ${fine}
    NUMBERS "40 rules 0 compressed" "0.1:1e6 rules 0 residual_norm" "0 rules 0 started_over")

  # Which calls.
  terse_drop_in_test(warm_up 2 0 RUN ${program} one SETTINGS ${onebit} --after 5 --sample 4 ${fine}
    NUMBERS "5 rules 0 warm_up" "8 rules 0 sampled" "7 rules 0 compressed")
  terse_drop_in_test(names 2 0 RUN ${program} names SETTINGS ${onebit} --comm-name train ${fine}
    NUMBERS "3 rules 0 compressed" "3 passed_on")
  terse_drop_in_test(names.two 3 0 RUN ${program} names SETTINGS ${two_names} ${fine}
    NUMBERS "0 rules 0 calls" "3 rules 1 compressed" "3 rules 2 compressed")
  terse_drop_in_test(too_small 2 0 RUN ${program} one SETTINGS ${onebit} --bytes 1M: ${fine}
    NUMBERS "0 rules 0 calls" "20 passed_on")
  terse_drop_in_test(rules 3 0 RUN ${program} constants
    SETTINGS --config "${CMAKE_CURRENT_SOURCE_DIR}/rules.ini" ${fine}
    NUMBERS "0 rules 0 calls" "3 rules 1 compressed" "6 rules 2 compressed" "0 rules 3 calls" "54 passed_on")

  # The other ways in, and other tools.
  terse_drop_in_test(linked 2 0 DIRECTLY RUN $<TARGET_FILE:drop_in_linked> lossy SAYS "rule TERSE_CODEC" "40 compressed"
    ENVIRONMENT TERSE_CODEC=onebit TERSE_MIN_BYTES=2K)
  # The program's 15, and the one by which the drop-in tries its rule on one rank.
  terse_drop_in_test(other_tool 2 0 RUN ${program} one SETTINGS ${onebit} --after 15
    SAYS "counter: 16 reductions, messages" ENVIRONMENT LD_PRELOAD=$<TARGET_FILE:drop_in_counter>)
  # The library's own reductions, of a program that uses it by itself, are left alone.
  terse_drop_in_test(own_calls 4 0 RUN $<TARGET_FILE:terse-stress> --cases 100 SETTINGS --codec onebit --min-bytes 1
    SAYS "no mismatch")
  foreach(module mpi f08)
    if(TARGET drop_in_fortran_${module})
      terse_drop_in_test(fortran_${module} 3 0 RUN $<TARGET_FILE:drop_in_fortran_${module}> SETTINGS ${onebit} ${fine}
        NUMBERS "9 rules 0 compressed" "2:3 rules 0 fresh_residuals" "3:9 passed_on")
    endif()
  endforeach()

  if(TARGET drop_in_fortran_part)
    terse_drop_in_test(fortran_late 2 0 RUN ${program} late $<TARGET_FILE:drop_in_fortran_part> SETTINGS ${onebit} ${fine}
      NUMBERS "3 rules 0 compressed")
    terse_drop_in_test(fortran_late.nothing_asked 2 0 RUN ${program} late $<TARGET_FILE:drop_in_fortran_part> ${fine})
  endif()

  # What is wrong is said once, and nothing has begun.
  set(mistakes 2 2 RUN ${program} one)
  terse_drop_in_test(no_such_codec ${mistakes} SETTINGS --codec twobit
    SAYS "Terse: rank 0: TERSE_CODEC: unknown codec 'twobit'")
  terse_drop_in_test(unsound_pair ${mistakes} SETTINGS --codec onebit:deepspeed --algorithm two_phase
    SAYS "Terse: rank 0: rule TERSE_CODEC: algorithm two_phase does not go with codec onebit:deepspeed")
  terse_drop_in_test(no_such_key ${mistakes} SETTINGS --codec onebit --key name
    SAYS "Terse: rank 0: TERSE_KEY: key=name makes no sense: use address, site, or sequence:N")
  terse_drop_in_test(no_such_residual ${mistakes} SETTINGS --codec onebit --residual half
    SAYS "Terse: rank 0: TERSE_RESIDUAL: residual=half makes no sense: use full or bf16")
  terse_drop_in_test(no_residual_of_f64 ${mistakes} SETTINGS --codec onebit --datatype f64 --residual bf16
    SAYS "rule TERSE_CODEC has residual=bf16, which f64 tensors do not take")
  terse_drop_in_test(no_contraction ${mistakes} SETTINGS --codec quant:bits=2,rounding=stochastic
    SAYS "Terse: rank 0: TERSE_CODEC: rule TERSE_CODEC.*no contraction.*by --feedback off of `terse run` or TERSE_FEEDBACK=off")
  terse_drop_in_test(no_contraction.file ${mistakes}
    SETTINGS --config "${CMAKE_CURRENT_SOURCE_DIR}/no_contraction.ini"
    SAYS "no_contraction.ini:3: rule averages.*is no contraction.*by feedback = off in its section")
  terse_drop_in_test(no_contraction.without_feedback 2 0 RUN ${program} one
    SETTINGS --codec quant:bits=2,rounding=stochastic --min-bytes 2K --feedback off SAYS "20 calls: 20 compressed")
  terse_drop_in_test(no_such_file ${mistakes} SETTINGS --config /nowhere/at/all.ini
    SAYS "TERSE_CONFIG: the file /nowhere/at/all.ini cannot be read")
  terse_drop_in_test(bad_file ${mistakes} SETTINGS --config "${CMAKE_CURRENT_SOURCE_DIR}/bad_rules.ini"
    SAYS "bad_rules.ini:5: bytes=64Q makes no sense: use bytes such as 4096, 64K or 1G")
  terse_drop_in_test(unwritable_report ${mistakes} SETTINGS --codec onebit --report /nowhere/report.json
    SAYS "TERSE_REPORT: the file /nowhere/report.json cannot be written")
  terse_drop_in_test(different_settings 2 2 DIRECTLY
    RUN $<TARGET_FILE:drop_in_linked> one : ${MPIEXEC_NUMPROC_FLAG} 1 $<TARGET_FILE:terse_cli> run --codec onebit
        -- $<TARGET_FILE:drop_in_linked> one
    SAYS "ranks have different settings: rank 0 has none, rank 2 has \\[TERSE_CODEC\\] codec=onebit")

  # terse run
  terse_drop_in_test(run.dry 0 0 RUN ${program} one SETTINGS --codec onebit --dry-run
    SAYS "program +.*drop_in_program" "preload +.*libterse_mpi" "TERSE_CODEC=onebit" "rule +TERSE_CODEC: onebit:block=2048")
  terse_drop_in_test(run.no_rule 0 0 RUN ${program} one SETTINGS --dry-run SAYS "no rule: nothing would be compressed")
  terse_drop_in_test(run.no_contraction 0 2 RUN ${program} one
    SETTINGS --codec quant:bits=2,rounding=stochastic --dry-run
    SAYS "terse run: TERSE_CODEC: rule TERSE_CODEC.*by --feedback off of `terse run` or TERSE_FEEDBACK=off")
  terse_drop_in_test(run.no_contraction.file 0 2 RUN ${program} one
    SETTINGS --config "${CMAKE_CURRENT_SOURCE_DIR}/no_contraction.ini" --dry-run
    SAYS "terse run: .*no_contraction.ini:3: rule averages.*by feedback = off in its section")
  terse_drop_in_test(run.static 0 126 RUN $<TARGET_FILE:drop_in_static> SETTINGS --codec onebit
    SAYS "drop_in_static is linked statically")
  terse_drop_in_test(run.no_program 0 127 RUN ./no_such_program SETTINGS --codec onebit
    SAYS "there is no program ./no_such_program")
  terse_drop_in_test(run.not_in_path 0 127 RUN no_such_program_anywhere SETTINGS --codec onebit
    SAYS "there is no program no_such_program_anywhere in any folder of PATH")
  terse_drop_in_test(run.no_such_setting 0 2 RUN ${program} SETTINGS --codex onebit SAYS "there is no option '--codex'")
  terse_drop_in_test(run.setting_without_rule 0 2 RUN ${program} SETTINGS --after 5
    SAYS "--after is of the rule that --codec makes: add --codec")
  terse_drop_in_test(run.script 2 0 RUN sh -c "exec \"$0\" one" ${program} SETTINGS ${onebit} SAYS "all checks hold")
  terse_drop_in_test(run.help 0 0 DIRECTLY RUN $<TARGET_FILE:terse_cli> run --help SAYS "--codec" "--key" "--dry-run")
endmacro()
