"""Kernels of the depth-wise convolution, one file for each kind of processor."""
