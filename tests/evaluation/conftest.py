"""The tests of lm-evaluation-harness are there where it is (extra ``eval``)."""

from importlib.util import find_spec

collect_ignore = [] if find_spec("lm_eval") else ["test_eval_harness.py"]
