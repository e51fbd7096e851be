#!/bin/bash
# A whole study on several nodes as one Ray cluster, on a results folder that all of them share:
#
#   sbatch --nodes=4 ray_slurm.sh quick --seeds 0-9
#
# Better than slurm.sh if there are many short runs, or if the queue takes few jobs. With GPUs,
# add --gpus-per-node and pass it on to Ray as --num-gpus. If stopped and requeued, it resumes. If
# Ray does not start, the job still ends with 0: `convnext-steps status` says what is done.
#SBATCH --job-name=convnext-steps
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --mem-per-cpu=4G
#SBATCH --time=12:00:00
#SBATCH --requeue
set -euo pipefail
export RAY_USAGE_STATS_ENABLED=0
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
exec srun ray symmetric-run --address "$head:6379" --min-nodes "$SLURM_JOB_NUM_NODES" \
    --num-cpus "$SLURM_CPUS_PER_TASK" -- convnext-steps study "$@" --address auto
