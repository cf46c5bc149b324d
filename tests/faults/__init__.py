"""What breaks in the middle, and what is broken before: disks, memory, machines, and files that somebody damaged."""
