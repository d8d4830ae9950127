! SPDX-License-Identifier: Apache-2.0
! The same by the module mpi_f08, where the error argument may be left out.
program fortran_f08
  use mpi_f08
  implicit none
  integer, parameter :: n = 5000
  real, allocatable :: x(:), total(:)
  double precision, allocatable :: y(:)
  integer, allocatable :: k(:)
  integer :: rank, ranks, provided, error, round
  logical :: right

  call mpi_init_thread(mpi_thread_multiple, provided)
  call mpi_comm_rank(mpi_comm_world, rank)
  call mpi_comm_size(mpi_comm_world, ranks)
  allocate (x(n), total(n), y(n), k(n))
  right = .true.
  do round = 1, 3
    x = real(rank + 1)
    total = -1.0
    y = dble(rank + 1)
    k = rank + 1
    call mpi_allreduce(x, total, n, mpi_real, mpi_sum, mpi_comm_world)
    right = right .and. all(x == real(rank + 1))
    call mpi_allreduce(mpi_in_place, x, n, mpi_real, mpi_sum, mpi_comm_world, error)
    right = right .and. error == mpi_success
    call mpi_allreduce(mpi_in_place, y, n, mpi_double_precision, mpi_sum, mpi_comm_world)
    call mpi_allreduce(mpi_in_place, k, n, mpi_integer, mpi_sum, mpi_comm_world)
    right = right .and. all(total == real(ranks*(ranks + 1)/2)) .and. all(x == total) &
            .and. all(y == dble(ranks*(ranks + 1)/2)) .and. all(k == ranks*(ranks + 1)/2)
  end do
  if (right) then
    if (rank == 0) print '(a)', 'all checks hold'
  else
    print '(a, i0)', 'SOME CHECKS FAILED on rank ', rank
  end if
  call mpi_finalize()
end program fortran_f08
