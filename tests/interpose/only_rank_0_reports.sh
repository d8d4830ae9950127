# SPDX-License-Identifier: Apache-2.0
# Runs a command on each rank, as a job's script may: ranks other than 0 are to be silent.
[ "${OMPI_COMM_WORLD_RANK:-${PMI_RANK:-0}}" = 0 ] || export TERSE_REPORT=off
exec "$@"
