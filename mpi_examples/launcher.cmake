# SPDX-License-Identifier: Apache-2.0
# The environment of tests that start MPI, for the examples and, by cmake/MpiTest.cmake, for the library.
# Open MPI (up to 4: OMPI_..., from 5 on in part PRTE_...): root may run it, ranks may outnumber cores and then give way
# to each other. Other launchers ignore this.
set(mpi_environment
    OMPI_ALLOW_RUN_AS_ROOT=1
    OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
    OMPI_MCA_rmaps_base_oversubscribe=1
    PRTE_MCA_rmaps_default_mapping_policy=:oversubscribe
    OMPI_MCA_hwloc_base_binding_policy=none
    OMPI_MCA_mpi_yield_when_idle=1)
if(TARGET terse_mpich_yield)  # of Terse's own tests: the same for MPICH
  list(APPEND mpi_environment LD_PRELOAD=$<TARGET_FILE:terse_mpich_yield>)
endif()
