"""One simulator of camera, PLC, clock and disk, behind the production interfaces.

`world` is the memory that all processes share, `plan` says what happens to which part, `camera`, `engine`, `disk` and
`clock` act in the daemon's own processes, `plc` and `line` in the test's. `planted` holds the mutants.
"""
