! SPDX-License-Identifier: Apache-2.0
! A part of a program in C that is loaded late, as Python's modules are: its sum, of which 1 is returned if it is right.
integer(c_int) function fortran_part() bind(c)
  use, intrinsic :: iso_c_binding, only: c_int
  use mpi
  implicit none
  integer, parameter :: n = 40000
  real :: x(n)
  integer :: rank, ranks, error

  call mpi_comm_rank(mpi_comm_world, rank, error)
  call mpi_comm_size(mpi_comm_world, ranks, error)
  x = real(rank + 1)
  call mpi_allreduce(mpi_in_place, x, n, mpi_real, mpi_sum, mpi_comm_world, error)
  fortran_part = merge(1, 0, error == mpi_success .and. all(x == real(ranks*(ranks + 1)/2)))
end function fortran_part
