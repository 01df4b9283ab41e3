#!/bin/sh
# What is in this folder, written by these commands (run it from the checkout; a test sees that nothing else is here).
set -e
# SLURM: four nodes of 16 cores for the zoo, one small trial of every combination of parts; eight GPUs of one node
distvae launch slurm tune_configs/zoo.yaml --out runs/zoo --nodes 4 --cpus-per-node 16 --time 01:00:00 --to cluster/examples
distvae launch slurm tune_configs/eight_gpus.yaml --out runs/eight_gpus --sbatch partition=gpu --setup 'module load cuda' --to cluster/examples
# Kubernetes: eight pods of a GPU each, on a shared volume; results in S3, no volume
distvae launch kuberay tune_configs/eight_gpus.yaml --out /shared/runs/eight_gpus --image registry.example/distvae:0.1.0-gpu --gpus-per-node 1 --claim distvae --data /shared/data --ray-version 2.60.0 --to cluster/examples
distvae launch kuberay tune_configs/quickstart.yaml --out s3://bucket/quickstart --image registry.example/distvae:0.1.0 --nodes 2 --cpus-per-node 8 --secret s3 --ray-version 2.60.0 --to cluster/examples
# AWS: up to eight spot instances of one GPU
distvae launch ray tune_configs/eight_gpus.yaml --out s3://bucket/eight_gpus --gpus-per-node 1 --spot --data /shared/data --ray-version 2.60.0 --to cluster/examples
