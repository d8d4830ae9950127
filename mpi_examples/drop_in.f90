! SPDX-License-Identifier: Apache-2.0
!
! A program that knows nothing of Terse: it fits 50,000 unknowns to measurements with noise, each a sum of four of them
! and each known to one rank only, by steepest descent. The gradient of 200 KB is summed by MPI_Allreduce. As it is, and
! with a thirty-second of the bytes:
!   mpirun -np 4 ./drop_in_fortran
!   mpirun -np 4 terse run --codec onebit -- ./drop_in_fortran
! What a step's sum leaves out is added to the next one's, and the length of a step falls to zero: so the fit ends where
! the noise lets it. Conjugate gradients would be another matter: each of their steps builds on the one before being
! exact. The misfit is two numbers, and these go uncompressed.
!
! Exit code: 0 if the fit is as good as the noise lets it be and all ranks hold the same bits at the end.
program drop_in
  use mpi_f08
  use, intrinsic :: iso_fortran_env, only: int64, real64, error_unit
  implicit none
  integer, parameter :: unknowns = 50000, measured = 8*unknowns, terms = 4, steps = 100
  integer, allocatable :: which(:, :)
  real, allocatable :: factor(:, :), sums(:), truth(:), x(:), gradient(:), of_rank_0(:)
  real(real64) :: squares(2)
  real :: error
  integer(int64) :: state
  integer :: rank, ranks, own, i, k, step
  logical :: same

  call MPI_Init()
  call MPI_Comm_rank(MPI_COMM_WORLD, rank)
  call MPI_Comm_size(MPI_COMM_WORLD, ranks)
  own = measured/ranks
  allocate (which(terms, own), factor(terms, own), sums(own))
  allocate (truth(unknowns), x(unknowns), gradient(unknowns), of_rank_0(unknowns))

  do i = 1, unknowns
    truth(i) = sin(0.001*i)
  end do
  state = 1000 + rank
  do k = 1, own
    do i = 1, terms
      which(i, k) = 1 + int(unknowns*uniform())
      factor(i, k) = 2*uniform() - 1
    end do
    sums(k) = dot_product(factor(:, k), truth(which(:, k))) + 0.25*(uniform() + uniform() - 1)
  end do

  x = 0
  do step = 1, steps
    gradient = 0
    squares = 0
    do k = 1, own
      error = dot_product(factor(:, k), x(which(:, k))) - sums(k)
      squares(1) = squares(1) + error**2
      squares(2) = squares(2) + sums(k)**2
      do i = 1, terms
        gradient(which(i, k)) = gradient(which(i, k)) + error*factor(i, k)
      end do
    end do
    call MPI_Allreduce(MPI_IN_PLACE, gradient, unknowns, MPI_REAL, MPI_SUM, MPI_COMM_WORLD)
    call MPI_Allreduce(MPI_IN_PLACE, squares, 2, MPI_DOUBLE_PRECISION, MPI_SUM, MPI_COMM_WORLD)
    if (rank == 0 .and. mod(step, 25) == 0) print '(a, i0, a, f6.4)', 'step ', step, ': misfit ', &
      sqrt(squares(1)/squares(2))
    x = x - 0.03*real(steps - step)/steps*gradient
  end do

  of_rank_0 = x
  call MPI_Bcast(of_rank_0, unknowns, MPI_REAL, 0, MPI_COMM_WORLD)
  same = all(transfer(of_rank_0, [0]) == transfer(x, [0]))  ! all ranks must hold the same bits
  call MPI_Allreduce(MPI_IN_PLACE, same, 1, MPI_LOGICAL, MPI_LAND, MPI_COMM_WORLD)
  error = norm2(x - truth)/norm2(truth)
  if (rank == 0) print '(a, f6.4)', 'error of the unknowns: ', error
  if (rank == 0 .and. .not. same) write (error_unit, '(a)') 'the ranks'' unknowns differ'
  if (rank == 0 .and. error >= 0.06) write (error_unit, '(a)') 'it has not found the unknowns'
  call MPI_Finalize()
  if (.not. same .or. error >= 0.06) stop 1

contains
  ! From 0 to 1, of a sequence that the rank has for itself.
  real function uniform()
    state = modulo(state*1103515245_int64 + 12345_int64, 2147483648_int64)
    uniform = real(state/256)/real(2**23)
  end function uniform
end program drop_in
