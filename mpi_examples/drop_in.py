#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# A program that knows nothing of Terse: mpi4py and NumPy train a network with one hidden layer. Every rank draws
# samples of its own, and the gradient of 256 KiB is summed by MPI_Allreduce. As it is, and with a thirty-second of the
# bytes:
#   mpirun -np 4 python3 drop_in.py
#   mpirun -np 4 terse run --codec onebit -- python3 drop_in.py
# What compression leaves out of the gradient is known by its address, so it lies in one array that is made once; for
# arrays that are made anew in each step add --key sequence:N, where N is the number of sums in a step. Allreduce with a
# capital letter sums the array as it lies in memory; comm.allreduce(gradient) would pickle it, which never reaches
# MPI_Allreduce.
#
# Exit code: 0 if the loss fell to less than a tenth and all ranks hold the same bits at the end.
import sys

import numpy as np
from mpi4py import MPI

INPUTS, HIDDEN, OUTPUTS, SAMPLES, STEPS = 64, 512, 64, 32, 200
comm = MPI.COMM_WORLD


def layers(flat):
    """The two matrices that a flat array holds, as views of it."""
    cut = INPUTS * HIDDEN
    return flat[:cut].reshape(INPUTS, HIDDEN), flat[cut:].reshape(HIDDEN, OUTPUTS)


def fresh(generator):
    """A network with random weights."""
    flat = np.empty(INPUTS * HIDDEN + HIDDEN * OUTPUTS, dtype=np.float32)
    for matrix in layers(flat):
        matrix[:] = generator.standard_normal(matrix.shape) / np.sqrt(matrix.shape[0])
    return flat


def main():
    teacher = layers(fresh(np.random.default_rng(1)))  # the same on all ranks
    weights = fresh(np.random.default_rng(2))
    own = np.random.default_rng(1000 + comm.rank)
    gradient = np.empty_like(weights)
    (first, second), (of_first, of_second) = layers(weights), layers(gradient)

    loss_at_first = None
    for step in range(STEPS):
        x = own.standard_normal((SAMPLES, INPUTS), dtype=np.float32)
        hidden = np.tanh(x @ first)
        error = hidden @ second - np.tanh(x @ teacher[0]) @ teacher[1]
        of_second[:] = hidden.T @ error
        of_first[:] = x.T @ (error @ second.T * (1 - hidden**2))
        comm.Allreduce(MPI.IN_PLACE, gradient)

        loss = comm.allreduce(float(np.mean(error**2))) / comm.size  # one number: exact
        loss_at_first = loss_at_first or loss
        weights -= 0.2 * (1 - step / STEPS) / (comm.size * SAMPLES) * gradient
    if comm.rank == 0:
        print(f"loss {loss_at_first:.3f} at first, {loss:.5f} after {STEPS} steps")

    of_rank_0 = weights.copy()
    comm.Bcast(of_rank_0)
    same = comm.allreduce(of_rank_0.tobytes() == weights.tobytes(), MPI.LAND)  # all ranks must hold the same
    if not same:
        return "the ranks' weights differ"
    return 0 if loss < loss_at_first / 10 else "it has not learned"


sys.exit(main())
