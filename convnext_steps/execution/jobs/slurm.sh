#!/bin/bash
# One run of a study per array task, on a results folder that all nodes share:
#
#   sbatch --array=0-16 slurm.sh quick                 17 runs, one seed
#   sbatch --array=0-169 slurm.sh quick --seeds 0-9    ten seeds
#
# Tasks may be repeated, stopped and requeued: a finished run is not repeated, and an interrupted
# one resumes from its checkpoint. Afterwards: convnext-steps report quick.
#SBATCH --job-name=convnext-steps
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=1
#SBATCH --mem=4G
#SBATCH --time=02:00:00
#SBATCH --requeue
set -euo pipefail
exec convnext-steps study "$@" --index "$SLURM_ARRAY_TASK_ID"
