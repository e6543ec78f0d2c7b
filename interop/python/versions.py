"""Prints the versions of Python and of the packages that the other scripts import."""

import platform
from importlib.metadata import version
from pathlib import Path

requirements = (Path(__file__).parent / "requirements.txt").read_text().split()
packages = [requirement.partition("==")[0] for requirement in requirements]
print(", ".join([f"Python {platform.python_version()}", *(f"{name} {version(name)}" for name in packages)]))
