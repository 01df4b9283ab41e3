"""Kernels: the addressed random numbers. (Batched KL and latent densities in C++ and CUDA join them here.)"""
