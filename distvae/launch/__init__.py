"""`distvae launch slurm|kuberay|ray`: files that start a sweep on somebody's cluster, from the sweep's own `resources:`.

Nothing is started here. What is written is checked against the schema of what will read it, never over a file that was
edited, and holds no secret: each start makes a token of its own."""
