! SPDX-License-Identifier: Apache-2.0
! Sums in Fortran by the module mpi: the data in place and not, of both kinds of real, and integers.
program fortran_mpi
  use mpi
  implicit none
  integer, parameter :: n = 5000
  real, allocatable :: x(:), total(:)
  double precision, allocatable :: y(:)
  integer, allocatable :: k(:)
  integer :: rank, ranks, error, round
  logical :: right

  call mpi_init(error)
  call mpi_comm_rank(mpi_comm_world, rank, error)
  call mpi_comm_size(mpi_comm_world, ranks, error)
  allocate (x(n), total(n), y(n), k(n))
  right = .true.
  do round = 1, 3
    x = real(rank + 1)
    total = -1.0
    y = dble(rank + 1)
    k = rank + 1
    call mpi_allreduce(x, total, n, mpi_real, mpi_sum, mpi_comm_world, error)
    right = right .and. error == mpi_success .and. all(x == real(rank + 1))
    call mpi_allreduce(mpi_in_place, x, n, mpi_real, mpi_sum, mpi_comm_world, error)
    call mpi_allreduce(mpi_in_place, y, n, mpi_double_precision, mpi_sum, mpi_comm_world, error)
    call mpi_allreduce(mpi_in_place, k, n, mpi_integer, mpi_sum, mpi_comm_world, error)
    right = right .and. all(total == real(ranks*(ranks + 1)/2)) .and. all(x == total) &
            .and. all(y == dble(ranks*(ranks + 1)/2)) .and. all(k == ranks*(ranks + 1)/2)
  end do
  if (right) then
    if (rank == 0) print '(a)', 'all checks hold'
  else
    print '(a, i0)', 'SOME CHECKS FAILED on rank ', rank
  end if
  call mpi_finalize(error)
end program fortran_mpi
