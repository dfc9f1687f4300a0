"""The check of hints in tests, see `conftest.CHECKED`."""

from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))  # an int is a float, as for type checkers
