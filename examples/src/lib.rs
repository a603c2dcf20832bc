//! Programs to start from, one a file, in `examples/`. Each begins with what it teaches and how to try it.
