"""Environments of nodes as launchers really set them."""

OURS = {"NBPS_NODES": "4", "NBPS_NODE_RANK": "2", "NBPS_RENDEZVOUS": "127.0.0.1:29500"}

# What torchrun 2.x sets with --nnodes=2 --nproc-per-node=1, on the second machine.
TORCHRUN = {
    "LOCAL_RANK": "0",
    "RANK": "1",
    "GROUP_RANK": "1",
    "ROLE_RANK": "1",
    "ROLE_NAME": "default",
    "LOCAL_WORLD_SIZE": "1",
    "WORLD_SIZE": "2",
    "GROUP_WORLD_SIZE": "2",
    "ROLE_WORLD_SIZE": "2",
    "MASTER_ADDR": "gpu01",
    "MASTER_PORT": "29400",
    "TORCHELASTIC_RESTART_COUNT": "0",
    "TORCHELASTIC_MAX_RESTARTS": "0",
    "TORCHELASTIC_RUN_ID": "7c1b",
    "TORCHELASTIC_USE_AGENT_STORE": "True",
    "OMP_NUM_THREADS": "1",
}
# torchrun --standalone --nproc-per-node=4: the machine has a name, and is alone.
STANDALONE = TORCHRUN | {
    "LOCAL_RANK": "3",
    "RANK": "3",
    "GROUP_RANK": "0",
    "LOCAL_WORLD_SIZE": "4",
    "WORLD_SIZE": "4",
    "GROUP_WORLD_SIZE": "1",
    "MASTER_ADDR": "build-7.example.org",
    "MASTER_PORT": "41233",
}
# Kubernetes' operator: torchrun's main variables without torchrun.
OPERATOR = {
    "MASTER_ADDR": "train-master-0",
    "MASTER_PORT": "23456",
    "WORLD_SIZE": "3",
    "RANK": "2",
    "PYTHONUNBUFFERED": "0",
}
OPEN_MPI = {
    "OMPI_COMM_WORLD_SIZE": "8",
    "OMPI_COMM_WORLD_RANK": "5",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "4",
    "OMPI_COMM_WORLD_LOCAL_RANK": "1",
    "OMPI_COMM_WORLD_NODE_RANK": "1",
    "OMPI_UNIVERSE_SIZE": "8",
    "PMIX_NAMESPACE": "prterun-head-4711@1",
    "PMIX_RANK": "5",
}
_JOB = {
    "SLURM_CLUSTER_NAME": "alps",
    "SLURM_JOB_ID": "1731344",
    "SLURM_JOBID": "1731344",
    "SLURM_JOB_NODELIST": "gpu[01-04,07],login1",
    "SLURM_NODELIST": "gpu[01-04,07],login1",
    "SLURM_JOB_NUM_NODES": "6",
    "SLURM_NNODES": "6",
    "SLURM_NTASKS": "6",
    "SLURM_NPROCS": "6",
    "SLURM_TASKS_PER_NODE": "1(x6)",
    "SLURM_SUBMIT_HOST": "login1",
}
# A task of srun, on the third machine.
SRUN = _JOB | {
    "SLURM_PROCID": "2",
    "SLURM_LOCALID": "0",
    "SLURM_NODEID": "2",
    "SLURM_GTIDS": "2",
    "SLURM_STEP_ID": "0",
    "SLURM_STEPID": "0",
    "SLURM_STEP_NODELIST": "gpu[01-04,07],login1",
    "SLURM_STEP_NUM_NODES": "6",
    "SLURM_STEP_NUM_TASKS": "6",
    "SLURM_STEP_TASKS_PER_NODE": "1(x6)",
    "SLURM_SRUN_COMM_HOST": "10.0.0.1",
}
# The script of sbatch: task 0 of no step.
SBATCH = _JOB | {"SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0", "SLURM_GTIDS": "0"}
# The shell of salloc, where the cluster starts it on the first machine, and where it does not.
SALLOC = SBATCH | {
    "SLURM_JOB_NAME": "interactive",
    "SLURM_PTY_PORT": "39933",
    "SLURM_PTY_WIN_COL": "209",
    "SLURM_STEP_ID": "4294967290",
    "SLURM_STEPID": "4294967290",
    "SLURM_STEP_NODELIST": "gpu01",
    "SLURM_STEP_NUM_NODES": "1",
    "SLURM_STEP_NUM_TASKS": "1",
    "SLURM_STEP_TASKS_PER_NODE": "1",
}
SALLOC_ON_LOGIN = _JOB | {"SLURM_JOB_NAME": "interactive"}
# srun -N1 -n2 within that allocation: a small step of a large job.
SMALL_STEP = SALLOC | {
    "SLURM_NTASKS": "2",
    "SLURM_PROCID": "1",
    "SLURM_STEP_ID": "3",
    "SLURM_STEP_NODELIST": "gpu07",
    "SLURM_STEP_NUM_TASKS": "2",
    "SLURM_STEP_TASKS_PER_NODE": "2",
}

TRUSTED = {"NBPS_SECRET": "of all nodes"}


def without(environ, *names):
    return {name: value for name, value in environ.items() if name not in names}
