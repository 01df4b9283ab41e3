"""Looking at a running sweep and steering it from elsewhere, through files in OUT alone: any terminal, any node that sees
OUT. `desk` is the driver's side of it, all else the reader's."""
