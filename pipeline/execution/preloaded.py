"""Imports of the workers of this machine, made once in the process that they are forked from.

The garbage collector finds nothing in modules, but takes a sixth of the time of their imports. What is there
at a fork is left alone for good, so that workers share its memory.
"""

import gc
import importlib
import os

gc.disable()
for module in ("distributed", "ojala.pipeline.execution.dispatcher", "astropy.io.votable.tree", "pandas"):
    importlib.import_module(module)
os.register_at_fork(before=gc.freeze, after_in_child=gc.enable)
