"""How is the CUDA back end judged on a real GPU? One driver for each run of the measuring plan."""
