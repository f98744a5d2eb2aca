"""The virtual DGX-2's guest: a tiny operating system that tries its GPUs, obeys its host, and says what it sees."""
