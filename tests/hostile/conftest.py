"""The program in this process, as the tests of the command line run it."""

from tests.cli.conftest import program as program
