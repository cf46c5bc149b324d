"""What jobs on shared machines need: who makes a run, how a job is stopped, what failed."""
